//! Messages, arguments and results as attributes of spans: in the form of OpenTelemetry's conventions, without
//! secrets, and bounded.

use baton_service::Secret;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const REMOVED: &str = "[secret]";

/// Prepares content for spans, if recording it is switched on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    secrets: &'a [Secret<String>],
    /// The most bytes of an attribute.
    most: usize,
}

/// The messages of a request.
pub(super) struct Asked {
    /// The agent's instructions.
    pub(super) instructions: Option<String>,
    pub(super) messages: String,
}

impl<'a> Content<'a> {
    /// Returns nothing where content is not recorded.
    pub(super) fn new(secrets: &'a [Secret<String>]) -> Option<Self> {
        let most = baton_traces::content_limit()?;
        Some(Self { secrets, most })
    }

    /// Returns a request's messages; with instructions, they are the first message.
    pub(super) fn asked(self, messages: &RawValue, instructed: bool) -> Asked {
        let mut messages: Vec<Value> = serde_json::from_str(messages.get()).unwrap_or_default();
        let instructions = (instructed && !messages.is_empty()).then(|| {
            let mut parts = self.message(messages.remove(0));
            self.list([parts["parts"].take()].into_iter().flat_map(elements))
        });
        let messages = messages.into_iter().map(|message| self.message(message));
        Asked {
            instructions,
            messages: self.list(messages),
        }
    }

    /// Returns an answer as the only message of a list.
    pub(super) fn answered(self, message: &RawValue, finish_reason: &str) -> String {
        let message = serde_json::from_str(message.get()).unwrap_or_default();
        let mut message = self.message(message);
        let called = finish_reason == "tool_calls";
        let reason = if called { "tool_call" } else { finish_reason };
        message["finish_reason"] = json!(reason);
        self.list([message])
    }

    /// Returns the arguments or the result of a call.
    pub(super) fn text(self, text: &str) -> String {
        cut(self.cleared(text), self.most)
    }

    /// Returns a message of the OpenAI wire in the form of the conventions.
    fn message(self, mut message: Value) -> Value {
        let role = message["role"].take();
        let content = message["content"].take();
        let mut parts = Vec::new();
        if role == "tool" {
            let id = message["tool_call_id"].take();
            let response = self.shortened(&whole_text(&content));
            parts.push(json!({"type": "tool_call_response", "id": id, "response": response}));
        } else {
            if let Value::String(thought) = &message["reasoning_content"] {
                parts.push(json!({"type": "reasoning", "content": self.shortened(thought)}));
            }
            match content {
                Value::String(text) => parts.push(self.text_part(&text)),
                Value::Array(list) => parts.extend(list.into_iter().map(|part| self.part(&part))),
                _ => {}
            }
            if let Value::String(refusal) = &message["refusal"] {
                parts.push(json!({"type": "refusal", "content": self.shortened(refusal)}));
            }
            for mut call in elements(message["tool_calls"].take()) {
                let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
                let arguments = self.shortened(arguments);
                parts.push(json!({
                    "type": "tool_call", "id": call["id"].take(),
                    "name": call["function"]["name"].take(), "arguments": arguments,
                }));
            }
        }
        json!({"role": role, "parts": parts})
    }

    /// Returns a part of a message. Of files, images and sounds only the kind is recorded.
    fn part(self, part: &Value) -> Value {
        match part["text"].as_str() {
            Some(text) => self.text_part(text),
            None => json!({"type": part["type"]}),
        }
    }

    fn text_part(self, text: &str) -> Value {
        json!({"type": "text", "content": self.shortened(text)})
    }

    /// Returns a text without secrets, short enough for several of them in one attribute.
    fn shortened(self, text: &str) -> String {
        cut(self.cleared(text), self.most / 4)
    }

    /// Removes secrets, also those that are written as in JSON.
    fn cleared(self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().map(Secret::expose) {
            if text.contains(secret) {
                text = text.replace(secret, REMOVED);
            }
            let quoted = json!(secret).to_string();
            let quoted = quoted
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            if let Some(quoted) = quoted.filter(|quoted| text.contains(quoted)) {
                text = text.replace(quoted, REMOVED);
            }
        }
        text
    }

    /// Returns a JSON array of the last values that fit.
    fn list(self, values: impl IntoIterator<Item = Value>) -> String {
        let mut kept: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        let mut room = self.most.saturating_sub(2);
        let fits = kept.iter().rev().take_while(|value| {
            let fits = value.len() < room;
            room = room.saturating_sub(value.len() + 1);
            fits
        });
        let fits = fits.count();
        kept.drain(..kept.len() - fits);
        format!("[{}]", kept.join(","))
    }
}

fn elements(list: Value) -> Vec<Value> {
    match list {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// Returns the text of a message's content, which may be a list of parts.
fn whole_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// Cuts a text that is longer than `most` bytes, and marks the cut.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = most.saturating_sub('…'.len_utf8());
        text.truncate(text.floor_char_boundary(end));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    const PLAIN: Content<'_> = Content {
        secrets: &[],
        most: 16 << 10,
    };

    #[test]
    fn messages_have_the_form_of_the_conventions() {
        let call = json!({"name": "look", "arguments": "{\"a\":1}"});
        let messages = raw(&json!([
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": call},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ]));
        let asked = PLAIN.asked(&messages, true);
        let instructions = read(&asked.instructions.unwrap());
        assert_eq!(
            instructions,
            json!([{"type": "text", "content": "Be kind."}])
        );
        let expected = json!([
            {"role": "user", "parts": [{"type": "text", "content": "Hi"}, {"type": "image_url"}]},
            {"role": "assistant", "parts": [
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": "{\"a\":1}"},
            ]},
            {"role": "tool", "parts": [
                {"type": "tool_call_response", "id": "c1", "response": "seen"},
            ]},
        ]);
        assert_eq!(read(&asked.messages), expected);
        let answer = raw(&json!({"role": "assistant", "content": "Fine."}));
        let expected = json!([{
            "role": "assistant", "parts": [{"type": "text", "content": "Fine."}],
            "finish_reason": "stop",
        }]);
        assert_eq!(read(&PLAIN.answered(&answer, "stop")), expected);
    }

    #[test]
    fn secrets_are_removed_from_texts_and_from_json_in_texts() {
        let secrets = [Secret::new("very\"secret\\key\"".to_owned())];
        let content = Content {
            secrets: &secrets,
            ..PLAIN
        };
        let plain = "it is very\"secret\\key\"!";
        assert_eq!(content.text(plain), "it is [secret]!");
        let arguments = json!({"key": plain}).to_string();
        assert_eq!(content.text(&arguments), r#"{"key":"it is [secret]!"}"#);
        let messages = raw(&json!([
            {"role": "user", "content": plain},
            {"role": "tool", "tool_call_id": "c", "content": arguments},
            {"role": "assistant", "content": [{"type": "text", "text": plain}], "refusal": plain,
             "reasoning_content": plain, "tool_calls": [{"function": {"arguments": arguments}}]},
        ]));
        let shown = content.asked(&messages, false).messages;
        assert_eq!(shown.matches("[secret]").count(), 6, "{shown}");
        assert!(!shown.contains("very"), "{shown}");
    }

    #[test]
    fn an_attribute_is_bounded_and_has_the_last_messages() {
        let content = Content {
            secrets: &[],
            most: 400,
        };
        let message = |text: &str| json!({"role": "user", "content": text});
        let messages = raw(&json!([
            message(&"é".repeat(1_000)),
            message(&"ü".repeat(1_000)),
            message("last"),
        ]));
        let shown = content.asked(&messages, false).messages;
        assert!(shown.len() <= 400, "{}", shown.len());
        let shown = read(&shown);
        let texts: Vec<_> = shown.as_array().unwrap().iter().collect();
        assert_eq!(texts.last().unwrap()["parts"][0]["content"], "last");
        let cut = texts[texts.len() - 2]["parts"][0]["content"]
            .as_str()
            .unwrap();
        assert!(
            cut.starts_with('ü') && cut.ends_with('…') && cut.len() <= 100,
            "{cut}"
        );
        assert_eq!(content.text(&"é".repeat(1_000)).len(), 399);
    }
}
