//! Items as chat messages.

use baton_openai::{Content, Message, ToolCall};
use serde_json::{Value, json};

use super::{Item, Output, Part};

/// Returns the chat messages that say the same as the items.
///
/// Reasoning, text and calls of one assistant's turn are one message. A message begins with
/// reasoning, with text after text or calls, and with calls only if no assistant's message precedes
/// them.
pub fn to_messages(items: &[Item]) -> Vec<Message> {
    continue_messages(Vec::new(), items)
}

/// As [`to_messages`], after earlier messages: the first items may become part of the last of these.
pub(super) fn continue_messages(mut messages: Vec<Message>, items: &[Item]) -> Vec<Message> {
    // Whether the last message is an assistant's that has nothing but reasoning.
    let mut only_reasoned = false;
    if let Some(last) = messages.last_mut()
        && has_only_reasoning(last)
    {
        only_reasoned = true;
        // It was set because nothing followed.
        last.content = None;
    }
    for item in items {
        match item {
            Item::Message {
                role,
                content,
                phase,
                ..
            } if role == "assistant" => {
                if !only_reasoned {
                    messages.push(assistant());
                }
                if let Some(message) = messages.last_mut() {
                    say(message, content, phase.as_deref());
                }
                only_reasoned = false;
            }
            Item::Message { role, content, .. } => {
                messages.push(Message {
                    role: role.clone(),
                    content: Some(parts_of(content)),
                    ..Message::default()
                });
                only_reasoned = false;
            }
            Item::Reasoning { content, .. } => {
                let mut message = assistant();
                let text: String = content.iter().map(text_of).collect();
                message.rest.insert("reasoning_content".into(), text.into());
                messages.push(message);
                only_reasoned = true;
            }
            Item::FunctionCall {
                call_id,
                name,
                arguments,
                ..
            } => {
                add_call(&mut messages, call_id, name, arguments);
                only_reasoned = false;
            }
            Item::McpCall(call) => {
                add_call(&mut messages, &call.call_id, &call.offered, &call.arguments);
                messages.push(Message::tool_result(&call.call_id, call.result()));
                only_reasoned = false;
            }
            Item::FunctionCallOutput {
                call_id, output, ..
            } => {
                let content = match output {
                    Output::Text(text) => Content::Text(text.clone()),
                    Output::Parts(parts) => parts_of(parts),
                };
                messages.push(Message {
                    role: "tool".to_owned(),
                    content: Some(content),
                    tool_call_id: Some(call_id.clone()),
                    ..Message::default()
                });
                only_reasoned = false;
            }
            // Only an input has a compaction, and it becomes a message when it is opened. The model is
            // offered the tools of the request's own servers. Calls that a person was asked about are items of
            // their own by now.
            Item::Compaction { .. }
            | Item::McpListTools { .. }
            | Item::McpApprovalRequest { .. }
            | Item::McpApprovalResponse { .. } => {}
        }
    }
    for message in &mut messages {
        // Upstreams refuse a message that has reasoning and no content.
        let is_bare = message.role == "assistant"
            && message.content.is_none()
            && message.tool_calls.is_none()
            && !message.rest.contains_key("refusal");
        if is_bare {
            message.content = Some(Content::Text(String::new()));
        }
    }
    messages
}

/// Adds a call to the assistant's message at the end, or to a new one.
fn add_call(messages: &mut Vec<Message>, call_id: &str, name: &str, arguments: &str) {
    if messages.last().is_none_or(|last| last.role != "assistant") {
        messages.push(assistant());
    }
    if let Some(message) = messages.last_mut() {
        let call = ToolCall::function(call_id, name, arguments);
        message.tool_calls.get_or_insert_default().push(call);
    }
}

fn has_only_reasoning(message: &Message) -> bool {
    message.role == "assistant"
        && message.rest.contains_key("reasoning_content")
        && !message.rest.contains_key("refusal")
        && message.tool_calls.is_none()
        && message.plain_text().is_empty()
}

fn assistant() -> Message {
    Message {
        role: "assistant".to_owned(),
        ..Message::default()
    }
}

fn say(message: &mut Message, content: &[Part], phase: Option<&str>) {
    let mut text = String::new();
    let mut refusal = String::new();
    for part in content {
        match part {
            Part::Refusal { refusal: words } => refusal.push_str(words),
            other => text.push_str(text_of(other)),
        }
    }
    if !text.is_empty() || refusal.is_empty() {
        message.content = Some(Content::Text(text));
    }
    if !refusal.is_empty() {
        message.rest.insert("refusal".into(), refusal.into());
    }
    if let Some(phase) = phase {
        message.rest.insert("phase".into(), phase.into());
    }
}

fn text_of(part: &Part) -> &str {
    match part {
        Part::InputText { text }
        | Part::OutputText { text, .. }
        | Part::ReasoningText { text }
        | Part::SummaryText { text } => text,
        Part::Refusal { refusal } => refusal,
        Part::InputImage { .. } | Part::InputFile { .. } => "",
    }
}

/// Returns plain text for a single part of text, because older upstreams read nothing else.
fn parts_of(parts: &[Part]) -> Content {
    match parts {
        [Part::InputText { text }] => Content::Text(text.clone()),
        parts => Content::Parts(parts.iter().map(chat_part).collect()),
    }
}

fn chat_part(part: &Part) -> Value {
    match part {
        Part::InputImage { image_url, detail } => {
            json!({"type": "image_url", "image_url": {"url": image_url, "detail": detail}})
        }
        Part::InputFile {
            filename,
            file_data,
        } => match filename {
            Some(filename) => {
                json!({"type": "file", "file": {"filename": filename, "file_data": file_data}})
            }
            None => json!({"type": "file", "file": {"file_data": file_data}}),
        },
        other => json!({"type": "text", "text": text_of(other)}),
    }
}
