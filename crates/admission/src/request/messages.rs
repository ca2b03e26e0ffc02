//! Checks of the parts that both doors share. They look at form alone: what a model can read is
//! for the upstream to say.

use baton_protocol::{NotFields, RawFields};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::travelling::check_readable;
use crate::error::Invalid;

/// Tools that one request may bring.
const MAX_TOOLS: usize = 128;
/// Bytes of metadata, written as JSON.
const MAX_METADATA_BYTES: usize = 16 * 1024;
/// The longest name of a model or an agent.
const MAX_NAME_BYTES: usize = 512;

const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(borrow, default)]
    role: Option<std::borrow::Cow<'a, str>>,
}

/// A non-empty array of objects with a known `role`.
pub(super) fn check_messages(messages: &RawValue) -> Result<(), Invalid> {
    let code = "invalid_messages";
    let heads: Vec<MessageHead<'_>> = serde_json::from_str(messages.get()).map_err(|_| {
        Invalid::field(
            code,
            "messages",
            "`messages` must be an array of objects such as {\"role\":\"user\",\"content\":\"…\"}",
        )
    })?;
    if heads.is_empty() {
        return Err(Invalid::field(
            code,
            "messages",
            "`messages` must hold at least one message",
        ));
    }
    for (index, head) in heads.iter().enumerate() {
        let param = || format!("messages[{index}].role");
        match head.role.as_deref() {
            Some(role) if ROLES.contains(&role) => {}
            Some(_) => {
                let message = format!(
                    "`messages[{index}].role` must be one of {}",
                    ROLES.join(", ")
                );
                return Err(Invalid::field(code, param(), message));
            }
            None => {
                let message = format!("`messages[{index}].role` is missing");
                return Err(Invalid::field(code, param(), message));
            }
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<std::borrow::Cow<'a, str>>,
}

/// An array of OpenAI tool objects; answers the functions' names.
pub(super) fn tool_names(tools: &RawValue) -> Result<Vec<String>, Invalid> {
    let code = "invalid_tools";
    let tools: Vec<Tool<'_>> = serde_json::from_str(tools.get()).map_err(|_| {
        Invalid::field(
            code,
            "tools",
            "`tools` must be an array of objects such as {\"type\":\"function\",\"function\":{…}}",
        )
    })?;
    if tools.len() > MAX_TOOLS {
        let message = format!(
            "`tools` holds {} tools; {MAX_TOOLS} are allowed",
            tools.len()
        );
        return Err(Invalid::field(code, "tools", message));
    }
    let mut names: Vec<String> = Vec::with_capacity(tools.len());
    for (index, tool) in tools.into_iter().enumerate() {
        if tool.kind.is_none() {
            let message = format!("`tools[{index}].type` is missing: write \"function\"");
            return Err(Invalid::field(
                code,
                format!("tools[{index}].type"),
                message,
            ));
        }
        // Tools of other types are the upstream's own; they have no name to clash with.
        if tool.kind.as_deref() != Some("function") {
            continue;
        }
        let name = tool.function.and_then(|function| function.name);
        let Some(name) = name.filter(|name| valid_name(name)) else {
            let message = format!(
                "`tools[{index}].function.name` must be 1 to 64 letters, digits, `_` or `-`"
            );
            return Err(Invalid::field(
                code,
                format!("tools[{index}].function.name"),
                message,
            ));
        };
        if names.iter().any(|known| *known == name) {
            let message = format!("two of `tools` are named `{name}`");
            return Err(Invalid::field(
                code,
                format!("tools[{index}].function.name"),
                message,
            ));
        }
        names.push(name.into_owned());
    }
    Ok(names)
}

fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// An object, and not too large.
pub(super) fn metadata(value: Option<&RawValue>) -> Result<Option<RawFields>, Invalid> {
    let invalid = |message| Invalid::field("invalid_metadata", "metadata", message);
    let Some(object) = value.filter(|value| value.get() != "null") else {
        return Ok(None);
    };
    if object.get().len() > MAX_METADATA_BYTES {
        let message = format!("`metadata` may hold at most {MAX_METADATA_BYTES} bytes of JSON");
        return Err(invalid(message));
    }
    let fields = RawFields::from_object(object.to_owned())
        .map_err(|NotFields| invalid("`metadata` must be an object".to_owned()))?;
    check_readable("invalid_metadata", "metadata", object)?;
    Ok(Some(fields))
}

/// A model's or an agent's name: what a column of text can hold and a log line can show.
pub(super) fn check_name(param: &'static str, name: Option<&str>) -> Result<(), Invalid> {
    let fits =
        name.is_none_or(|name| name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control));
    if fits {
        return Ok(());
    }
    let message = format!("`{param}` has at most {MAX_NAME_BYTES} bytes and no control characters");
    Err(Invalid::field("invalid_name", param, message))
}
