//! Response objects, items and parts.

use serde_json::Value;

use super::{Breach, Checked, breach, ensure, fields, list, number, text};

/// The keys of a response object, with whether each may be null.
const KEYS: [(&str, bool); 31] = [
    ("id", false),
    ("object", false),
    ("created_at", false),
    ("completed_at", true),
    ("status", false),
    ("incomplete_details", true),
    ("model", false),
    ("previous_response_id", true),
    ("instructions", true),
    ("output", false),
    ("error", true),
    ("tools", false),
    ("tool_choice", false),
    ("truncation", false),
    ("parallel_tool_calls", false),
    ("text", false),
    ("top_p", false),
    ("presence_penalty", false),
    ("frequency_penalty", false),
    ("top_logprobs", false),
    ("temperature", false),
    ("reasoning", true),
    ("usage", true),
    ("max_output_tokens", true),
    ("max_tool_calls", true),
    ("store", false),
    ("background", false),
    ("service_tier", false),
    ("metadata", false),
    ("safety_identifier", true),
    ("prompt_cache_key", true),
];

/// Checks a response object.
pub fn check_response(response: &Value) -> Checked {
    let Some(object) = response.as_object() else {
        return breach("a response is an object");
    };
    for (key, nullable) in KEYS {
        let value = object
            .get(key)
            .ok_or_else(|| Breach(format!("`{key}` is missing")))?;
        ensure(nullable || !value.is_null(), || format!("`{key}` is null"))?;
    }
    // Only a response of a conversation names one.
    if let Some(conversation) = object.get("conversation") {
        text(fields(conversation)?, "id")?;
    }
    for key in object.keys().filter(|key| *key != "conversation") {
        ensure(KEYS.iter().any(|(known, _)| known == key), || {
            format!("`{key}` is no key of a response")
        })?;
    }
    let status = text(object, "status")?;
    let has = |key: &str| !object[key].is_null();
    let ended = matches!(status, "completed" | "incomplete" | "failed" | "cancelled");
    ensure(ended || matches!(status, "queued" | "in_progress"), || {
        format!("the status {status}")
    })?;
    ensure(has("error") == (status == "failed"), || {
        format!("{status} and the error {}", object["error"])
    })?;
    ensure(
        has("incomplete_details") == (status == "incomplete"),
        || format!("{status} and {}", object["incomplete_details"]),
    )?;
    ensure(has("completed_at") == (status == "completed"), || {
        format!("{status} and completed_at {}", object["completed_at"])
    })?;
    for item in list(object, "output")? {
        check_item(item)?;
    }
    for tool in list(object, "tools")? {
        let tool = fields(tool)?;
        if tool.get("type").is_some_and(|kind| kind == "mcp") {
            text(tool, "server_label")?;
            continue;
        }
        for key in ["type", "name", "description", "parameters", "strict"] {
            ensure(tool.contains_key(key), || format!("a tool without `{key}`"))?;
        }
    }
    if let Some(usage) = object["usage"].as_object() {
        for key in ["input_tokens", "output_tokens", "total_tokens"] {
            number(usage, key)?;
        }
        number(fields(&usage["input_tokens_details"])?, "cached_tokens")?;
        number(fields(&usage["output_tokens_details"])?, "reasoning_tokens")?;
    }
    Ok(())
}

/// Checks an item.
pub fn check_item(item: &Value) -> Checked {
    let item = fields(item)?;
    text(item, "id")?;
    if text(item, "type")? == "compaction" {
        return text(item, "encrypted_content").map(drop);
    }
    if text(item, "type")? == "mcp_list_tools" {
        return check_list(item);
    }
    if text(item, "type")? == "mcp_approval_request" {
        let keys = ["server_label", "name", "arguments"];
        return keys
            .into_iter()
            .try_for_each(|key| text(item, key).map(drop));
    }
    if text(item, "type")? == "mcp_approval_response" {
        return text(item, "approval_request_id").map(drop);
    }
    let status = text(item, "status")?;
    let is_failed = status == "failed" && text(item, "type")? == "mcp_call";
    ensure(
        matches!(status, "in_progress" | "completed" | "incomplete") || is_failed,
        || format!("an item's status {status}"),
    )?;
    match text(item, "type")? {
        "message" => {
            text(item, "role")?;
            list(item, "content")?.iter().try_for_each(check_part)
        }
        "function_call" => ["call_id", "name", "arguments"]
            .into_iter()
            .try_for_each(|key| text(item, key).map(drop)),
        "function_call_output" => {
            text(item, "call_id")?;
            let output = &item["output"];
            ensure(output.is_string() || output.is_array(), || {
                format!("the output {output}")
            })
        }
        "mcp_call" => {
            for key in ["server_label", "name", "arguments"] {
                text(item, key)?;
            }
            let has = |key: &str| item.get(key).is_some_and(|value| !value.is_null());
            ensure(has("output") == (status == "completed"), || {
                format!("{status} and the output {}", item["output"])
            })?;
            ensure(has("error") == (status == "failed"), || {
                format!("{status} and the error {}", item["error"])
            })
        }
        "reasoning" => {
            list(item, "summary")?;
            list(item, "content")?.iter().try_for_each(check_part)
        }
        other => breach(format!("the item type {other}")),
    }
}

/// Checks the list of an MCP server's tools.
fn check_list(item: &serde_json::Map<String, Value>) -> Checked {
    text(item, "server_label")?;
    for tool in list(item, "tools")? {
        let tool = fields(tool)?;
        text(tool, "name")?;
        fields(&tool["input_schema"])?;
    }
    Ok(())
}

pub(super) fn check_part(part: &Value) -> Checked {
    let part = fields(part)?;
    match text(part, "type")? {
        "output_text" => {
            list(part, "annotations")?;
            list(part, "logprobs")?;
            text(part, "text").map(drop)
        }
        "input_text" | "reasoning_text" | "summary_text" => text(part, "text").map(drop),
        "refusal" => text(part, "refusal").map(drop),
        "input_image" => {
            text(part, "detail")?;
            text(part, "image_url").map(drop)
        }
        "input_file" => text(part, "file_data").map(drop),
        other => breach(format!("the part type {other}")),
    }
}
