//! Writes a chat stream: complete frames, appended to a buffer.

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::{ErrorBody, ErrorObject, Usage};

/// A writer of one streamed answer's frames (`data: {…}` and an empty line). It renders the common
/// parts of all chunks once, so a frame is two copies around its text.
#[derive(Debug, Clone)]
pub struct ChunkWriter {
    /// `data: {"id":…,"object":…,"created":…`
    head: Box<[u8]>,
    /// That, `,"model":…` and `,"choices":[`.
    prefix: Box<[u8]>,
    /// Fields of the completion that every chunk repeats: `,"name":…`.
    fields: Vec<u8>,
    include_usage: bool,
    /// What follows the choices: `fields` in the middle.
    suffix: Box<[u8]>,
}

const OPEN_DELTA: &[u8] = br#"{"index":0,"delta":{"#;
const CLOSE_DELTA: &[u8] = br#"},"finish_reason":null}"#;

impl ChunkWriter {
    /// Makes a writer for the answer `id`, begun at `created` (seconds since 1970). With
    /// `include_usage`, each chunk has a `usage` key, null in all but the one that
    /// [`usage`](Self::usage) writes.
    pub fn new(id: &str, created: i64, model: &str, include_usage: bool) -> Self {
        let mut head = BytesMut::with_capacity(128 + id.len());
        head.put_slice(b"data: {\"id\":");
        json(&mut head, id);
        head.put_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        json(&mut head, &created);
        let mut writer = Self {
            head: head[..].into(),
            prefix: Box::default(),
            fields: Vec::new(),
            include_usage,
            suffix: Box::default(),
        };
        writer.set_completion(model, []);
        writer
    }

    /// Names the model that answers and the fields of the completion (name and JSON) that every chunk
    /// repeats from here on.
    pub fn set_completion<'a>(
        &mut self,
        model: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let mut prefix = BytesMut::from(&self.head[..]);
        prefix.put_slice(b",\"model\":");
        json(&mut prefix, model);
        prefix.put_slice(b",\"choices\":[");
        self.prefix = prefix[..].into();
        let mut rendered = BytesMut::new();
        for (name, value) in fields {
            put_field(&mut rendered, name, value);
        }
        self.fields = rendered.to_vec();
        let mut suffix = self.fields.clone();
        suffix.insert(0, b']');
        if self.include_usage {
            suffix.extend_from_slice(b",\"usage\":null");
        }
        suffix.extend_from_slice(b"}\n\n");
        self.suffix = suffix.into();
    }

    /// A chunk without an answer that carries a field of the completion once.
    pub fn completion_field(&self, out: &mut BytesMut, name: &str, value: &str) {
        out.put_slice(&self.prefix);
        out.put_slice(br#"{"index":0,"delta":{},"finish_reason":null}"#);
        out.put_slice(b"]");
        put_field(out, name, value);
        out.put_slice(&self.suffix[1..]);
    }

    /// A field of the message, as JSON.
    pub fn message_field(&self, out: &mut BytesMut, name: &str, value: &str) {
        self.delta(out, |out| {
            put_entry(out, name, value);
        });
    }

    /// A field of the choice, as JSON.
    pub fn choice_field(&self, out: &mut BytesMut, name: &str, value: &str) {
        out.put_slice(&self.prefix);
        out.put_slice(br#"{"index":0,"delta":{},"finish_reason":null"#);
        put_field(out, name, value);
        out.put_u8(b'}');
        out.put_slice(&self.suffix);
    }

    /// Writes the first chunk: the role, and no text yet.
    pub fn role(&self, out: &mut BytesMut) {
        self.delta(out, |out| {
            out.put_slice(br#""role":"assistant","content":"""#);
        });
    }

    /// Writes a piece of the answer.
    pub fn text(&self, out: &mut BytesMut, text: &str) {
        self.delta_text(out, b"\"content\":", text);
    }

    /// Writes a piece of a refusal.
    pub fn refusal(&self, out: &mut BytesMut, text: &str) {
        self.delta_text(out, b"\"refusal\":", text);
    }

    /// Writes a piece of the model's reasoning, under the key that most clients read.
    pub fn reasoning(&self, out: &mut BytesMut, text: &str) {
        self.delta_text(out, b"\"reasoning_content\":", text);
    }

    /// Writes the first fragment of the `index`-th call: its id, its function, and arguments so
    /// far.
    pub fn tool_call(&self, out: &mut BytesMut, index: u32, id: &str, name: &str, arguments: &str) {
        self.delta(out, |out| {
            out.put_slice(b"\"tool_calls\":[{\"index\":");
            json(out, &index);
            out.put_slice(b",\"id\":");
            json(out, id);
            out.put_slice(b",\"type\":\"function\",\"function\":{\"name\":");
            json(out, name);
            out.put_slice(b",\"arguments\":");
            json(out, arguments);
            out.put_slice(b"}}]");
        });
    }

    /// Writes a further fragment of the `index`-th call's arguments.
    pub fn tool_call_arguments(&self, out: &mut BytesMut, index: u32, fragment: &str) {
        self.delta(out, |out| {
            out.put_slice(b"\"tool_calls\":[{\"index\":");
            json(out, &index);
            out.put_slice(b",\"function\":{\"arguments\":");
            json(out, fragment);
            out.put_slice(b"}}]");
        });
    }

    /// Writes the first fragment of a call in its older form, of which an answer has one.
    pub fn function_call(&self, out: &mut BytesMut, name: &str, arguments: &str) {
        self.delta(out, |out| {
            out.put_slice(b"\"function_call\":{\"name\":");
            json(out, name);
            out.put_slice(b",\"arguments\":");
            json(out, arguments);
            out.put_slice(b"}");
        });
    }

    /// Writes a further fragment of its arguments.
    pub fn function_call_arguments(&self, out: &mut BytesMut, fragment: &str) {
        self.delta(out, |out| {
            out.put_slice(b"\"function_call\":{\"arguments\":");
            json(out, fragment);
            out.put_slice(b"}");
        });
    }

    /// Writes the chunk with the finish reason: `stop`, `length`, `tool_calls`, `content_filter`.
    pub fn finish(&self, out: &mut BytesMut, reason: &str) {
        out.put_slice(&self.prefix);
        out.put_slice(br#"{"index":0,"delta":{},"finish_reason":"#);
        json(out, reason);
        out.put_u8(b'}');
        out.put_slice(&self.suffix);
    }

    /// Writes the chunk without choices that has the token counts.
    pub fn usage(&self, out: &mut BytesMut, usage: &Usage) {
        out.put_slice(&self.prefix);
        out.put_u8(b']');
        out.put_slice(&self.fields);
        out.put_slice(b",\"usage\":");
        json(out, usage);
        out.put_slice(b"}\n\n");
    }

    /// Writes an error instead of the rest of the answer. Nothing may follow it, because the
    /// official SDKs raise it.
    pub fn error(out: &mut BytesMut, error: &ErrorObject) {
        out.put_slice(b"data: ");
        json(
            out,
            &ErrorBody {
                error: error.clone(),
            },
        );
        out.put_slice(b"\n\n");
    }

    /// Writes the end of a complete answer.
    pub fn done(out: &mut BytesMut) {
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn delta_text(&self, out: &mut BytesMut, key: &[u8], text: &str) {
        out.reserve(self.prefix.len() + OPEN_DELTA.len() + key.len() + text.len() + 64);
        self.delta(out, |out| {
            out.put_slice(key);
            json(out, text);
        });
    }

    fn delta(&self, out: &mut BytesMut, fields: impl FnOnce(&mut BytesMut)) {
        out.put_slice(&self.prefix);
        out.put_slice(OPEN_DELTA);
        fields(out);
        out.put_slice(CLOSE_DELTA);
        out.put_slice(&self.suffix);
    }
}

/// Appends `,"name":value`.
fn put_field(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u8(b',');
    put_entry(out, name, value);
}

/// Appends `"name":value`. A line end would end the frame; in JSON it is only white space.
fn put_entry(out: &mut BytesMut, name: &str, value: &str) {
    json(out, name);
    out.put_u8(b':');
    for part in value.split_inclusive(['\n', '\r']) {
        let line = part.trim_end_matches(['\n', '\r']);
        out.put_slice(line.as_bytes());
        if line.len() < part.len() {
            out.put_u8(b' ');
        }
    }
}

fn json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // A growing buffer accepts texts, integers and maps with text keys.
    let written = serde_json::to_writer(out.writer(), value);
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn frames(out: &BytesMut) -> Vec<Value> {
        let text = std::str::from_utf8(out).unwrap();
        assert!(text.ends_with("\n\n"));
        text.split_terminator("\n\n")
            .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    fn chunk(choices: &Value) -> Value {
        json!({"id": "chatcmpl-\"1", "object": "chat.completion.chunk", "created": 12,
            "model": "m/ü", "choices": choices})
    }

    #[test]
    fn frames_are_what_the_sdks_expect() {
        let writer = ChunkWriter::new("chatcmpl-\"1", 12, "m/ü", false);
        let mut out = BytesMut::new();
        writer.role(&mut out);
        writer.text(&mut out, "line\n\"ü\" \u{1}");
        writer.tool_call(&mut out, 1, "call_1", "f", "");
        writer.tool_call_arguments(&mut out, 1, "{\"a\":");
        writer.finish(&mut out, "tool_calls");
        writer.usage(&mut out, &Usage::new(3, 4));
        let delta =
            |delta| chunk(&json!([{"index": 0, "delta": delta, "finish_reason": Value::Null}]));
        let mut usage = chunk(&json!([]));
        usage["usage"] = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
        assert_eq!(
            frames(&out),
            [
                delta(json!({"role": "assistant", "content": ""})),
                delta(json!({"content": "line\n\"ü\" \u{1}"})),
                delta(
                    json!({"tool_calls": [{"index": 1, "id": "call_1", "type": "function",
                    "function": {"name": "f", "arguments": ""}}]})
                ),
                delta(json!({"tool_calls": [{"index": 1, "function": {"arguments": "{\"a\":"}}]})),
                chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])),
                usage,
            ],
        );
    }

    #[test]
    fn every_chunk_has_a_usage_key_when_usage_was_asked_for() {
        let writer = ChunkWriter::new("c", 0, "m", true);
        let mut out = BytesMut::new();
        writer.role(&mut out);
        writer.refusal(&mut out, "no");
        writer.reasoning(&mut out, "hm");
        writer.finish(&mut out, "stop");
        for frame in frames(&out) {
            assert_eq!(frame.get("usage"), Some(&Value::Null), "{frame}");
        }
    }

    #[test]
    fn passed_on_fields_are_where_the_upstream_had_them() {
        let mut writer = ChunkWriter::new("c", 0, "asked", true);
        writer.set_completion("answered", [("system_fingerprint", "\"fp\"")]);
        let mut out = BytesMut::new();
        writer.message_field(&mut out, "annotations", "[{\n\"type\":\r\n\"x\"}]");
        writer.choice_field(&mut out, "logprobs", r#"{"content":[]}"#);
        writer.completion_field(&mut out, "citations", "[1.50]");
        writer.usage(&mut out, &Usage::new(3, 4));
        assert!(
            out.windows(6).any(|bytes| bytes == b"[1.50]"),
            "digit by digit"
        );
        let frames = frames(&out);
        for frame in &frames {
            assert_eq!(frame["model"], "answered");
            assert_eq!(frame["system_fingerprint"], "fp");
        }
        let choice = &frames[0]["choices"][0];
        assert_eq!(choice["delta"], json!({"annotations": [{"type": "x"}]}));
        assert_eq!(frames[1]["choices"][0]["logprobs"], json!({"content": []}));
        assert_eq!(frames[2]["citations"], json!([1.5]));
        assert_eq!(frames[3]["usage"]["total_tokens"], 7);
        assert_eq!(frames[3]["choices"], json!([]));
    }

    #[test]
    fn errors_and_the_end_stand_alone() {
        let mut out = BytesMut::new();
        ChunkWriter::error(&mut out, &ErrorObject::new("api_error", "x", "gone"));
        assert_eq!(
            frames(&out),
            [
                json!({"error": {"message": "gone", "type": "api_error", "param": null, "code": "x"}})
            ],
        );
        out.clear();
        ChunkWriter::done(&mut out);
        assert_eq!(&out[..], b"data: [DONE]\n\n");
    }
}
