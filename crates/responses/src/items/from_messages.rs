//! Chat messages as items.

use baton_openai::{Content, Message};
use serde_json::Value;

use super::{Item, ItemStatus, Output, Part};

/// Returns the items that say the same as the messages, without ids.
pub fn to_items(messages: &[Message]) -> Vec<Item> {
    messages.iter().flat_map(items_of).collect()
}

fn items_of(message: &Message) -> Vec<Item> {
    let status = ItemStatus::Completed;
    match &*message.role {
        "assistant" => spoken(message, status),
        "tool" => vec![Item::FunctionCallOutput {
            id: String::new(),
            status,
            call_id: message.tool_call_id.clone().unwrap_or_default(),
            output: match &message.content {
                None => Output::Text(String::new()),
                Some(Content::Text(text)) => Output::Text(text.clone()),
                Some(Content::Parts(parts)) => {
                    Output::Parts(parts.iter().filter_map(item_part).collect())
                }
            },
        }],
        role => vec![Item::Message {
            id: String::new(),
            status,
            role: role.to_owned(),
            content: match &message.content {
                None => Vec::new(),
                Some(Content::Text(text)) => vec![Part::InputText { text: text.clone() }],
                Some(Content::Parts(parts)) => parts.iter().filter_map(item_part).collect(),
            },
            phase: None,
        }],
    }
}

/// Returns the items of an assistant's message: reasoning, then what it says, then its calls.
fn spoken(message: &Message, status: ItemStatus) -> Vec<Item> {
    let mut items = Vec::new();
    let field = |name: &str| message.rest.get(name).and_then(Value::as_str);
    let reasoning = field("reasoning_content");
    if let Some(text) = reasoning {
        items.push(Item::Reasoning {
            id: String::new(),
            status,
            summary: Vec::new(),
            content: Vec::from_iter((!text.is_empty()).then(|| Part::ReasoningText {
                text: text.to_owned(),
            })),
        });
    }
    let text = message.plain_text();
    let refusal = field("refusal").unwrap_or_default();
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    let mut content = Vec::new();
    // An empty text is said only if nothing else is.
    if !text.is_empty() || refusal.is_empty() && calls.is_empty() && reasoning.is_none() {
        content.push(Part::output_text(text));
    }
    if !refusal.is_empty() {
        content.push(Part::Refusal {
            refusal: refusal.to_owned(),
        });
    }
    let phase = field("phase").map(str::to_owned);
    if !content.is_empty() {
        items.push(Item::Message {
            id: String::new(),
            status,
            role: "assistant".to_owned(),
            content,
            phase,
        });
    }
    items.extend(calls.iter().map(|call| Item::FunctionCall {
        id: String::new(),
        status,
        call_id: call.id.clone(),
        name: call.name().to_owned(),
        arguments: call.arguments().to_owned(),
    }));
    items
}

fn item_part(part: &Value) -> Option<Part> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match part.get("type")?.as_str()? {
        "text" => Some(Part::InputText {
            text: text(part.get("text")?)?,
        }),
        "image_url" => {
            let image = part.get("image_url")?;
            Some(Part::InputImage {
                image_url: text(image.get("url")?)?,
                detail: image
                    .get("detail")
                    .and_then(text)
                    .unwrap_or_else(|| "auto".to_owned()),
            })
        }
        "file" => {
            let file = part.get("file")?;
            Some(Part::InputFile {
                filename: file.get("filename").and_then(text),
                file_data: text(file.get("file_data")?)?,
            })
        }
        _ => None,
    }
}
