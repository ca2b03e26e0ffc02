//! The result of a call as text, because a tool message of the chat API is text.

use std::fmt::Write as _;

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::Value;

use crate::endpoint::Endpoint;

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The result for the model.
    pub text: String,
}

impl CallOutcome {
    /// Writes the parts of a result in their order. Pictures, sounds and binary files become a note
    /// of their kind and size. Structured content counts if there is no text: servers repeat it as
    /// text for clients that do not read it.
    pub(crate) fn of(result: &CallToolResult) -> Self {
        let mut text = String::new();
        for block in &result.content {
            if !text.is_empty() {
                text.push('\n');
            }
            // Writing to a string cannot fail.
            let _ = write_block(&mut text, block);
        }
        let only_notes = !result
            .content
            .iter()
            .any(|block| matches!(block, ContentBlock::Text(text) if !text.text.is_empty()));
        let structured = result.structured_content.as_ref();
        if let Some(structured) = structured.filter(|it| only_notes && !it.is_null()) {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = write!(text, "{structured}");
        }
        Self {
            ok: !result.is_error.unwrap_or(false),
            text,
        }
    }

    /// Returns the outcome without the secrets that its server may have put into it.
    pub(crate) fn cleared(self, endpoint: &Endpoint) -> Self {
        Self {
            text: endpoint.clear(self.text),
            ..self
        }
    }
}

fn write_block(text: &mut String, block: &ContentBlock) -> std::fmt::Result {
    match block {
        ContentBlock::Text(block) => text.write_str(&block.text),
        ContentBlock::Image(image) => write_note(text, "image", &image.mime_type, &image.data),
        ContentBlock::Audio(audio) => write_note(text, "sound", &audio.mime_type, &audio.data),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents {
                uri, text: content, ..
            } => {
                write!(text, "[resource {}]\n{content}", quoted(uri))
            }
            ResourceContents::BlobResourceContents {
                uri,
                mime_type,
                blob,
                ..
            } => {
                let kind = mime_type.as_deref().unwrap_or("unknown type");
                write_note(text, &format!("resource {}", quoted(uri)), kind, blob)
            }
            _ => text.write_str("[a resource of a kind that is not shown]"),
        },
        ContentBlock::ResourceLink(link) => write!(
            text,
            "[link to the resource {}: {}]",
            quoted(&link.uri),
            quoted(&link.name)
        ),
        _ => text.write_str("[content of a kind that is not shown]"),
    }
}

/// Notes content that a text cannot hold. Base64 has four characters for three bytes.
fn write_note(text: &mut String, what: &str, kind: &str, base64: &str) -> std::fmt::Result {
    let bytes = base64.trim_end_matches('=').len() * 3 / 4;
    write!(text, "[{what}, {}, {bytes} bytes: not shown]", quoted(kind))
}

/// Quotes a name of the server's, so that it cannot look like the note around it.
fn quoted(name: &str) -> Value {
    Value::String(name.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(result: Value) -> CallOutcome {
        CallOutcome::of(&serde_json::from_value(result).unwrap())
    }

    #[test]
    fn parts_become_text_in_their_order() {
        let result = outcome(json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "audio", "data": "AAA=", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inner"}},
            {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "file:///c", "name": "c]\n["},
        ]}));
        assert!(result.ok);
        assert_eq!(
            result.text,
            "one\n[image, \"image/png\", 3 bytes: not shown]\n\
             [sound, \"audio/wav\", 2 bytes: not shown]\n\
             [resource \"file:///a\"]\ninner\n\
             [resource \"file:///b\", \"unknown type\", 3 bytes: not shown]\n\
             [link to the resource \"file:///c\": \"c]\\n[\"]"
        );
    }

    #[test]
    fn structured_content_counts_if_there_is_no_text() {
        let both = json!({"content": [{"type": "text", "text": "4 °C"}],
            "structuredContent": {"celsius": 4}});
        assert_eq!(outcome(both).text, "4 °C");
        let alone = json!({"content": [], "structuredContent": {"celsius": 4}});
        assert_eq!(outcome(alone).text, r#"{"celsius":4}"#);
    }

    #[test]
    fn an_error_of_the_tool_is_one() {
        let failed =
            json!({"content": [{"type": "text", "text": "no such city"}], "isError": true});
        assert_eq!(
            outcome(failed),
            CallOutcome {
                ok: false,
                text: "no such city".to_owned()
            }
        );
    }
}
