//! A chunk of a streamed answer, as read: text is borrowed from the frame if possible.
//!
//! The reader accepts every shape with one sensible meaning: content as text or as parts, `message`
//! for `delta`, arguments as text or as an object. It keeps unknown fields unchanged.

mod content;

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::lenient::{Fields, RawField, elements, index_of, text_of};
use crate::{ErrorObject, Usage};

/// One `chat.completion.chunk`, a whole `chat.completion`, or the error object in its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatChunk<'a> {
    /// The completion's id.
    pub id: Option<Cow<'a, str>>,
    /// The model that answers.
    pub model: Option<Cow<'a, str>>,
    /// The additions; empty in the chunk that has only the usage.
    pub choices: Vec<ChunkChoice<'a>>,
    /// Token counts, in the last chunk (from some upstreams: counts so far, in each chunk).
    pub usage: Option<Usage>,
    /// An error after the answer began.
    pub error: Option<ErrorObject>,
    /// Whether this is a whole answer instead of a piece.
    pub is_whole: bool,
    /// Every other field, such as `system_fingerprint`.
    pub rest: Vec<RawField<'a>>,
}

/// An addition to one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkChoice<'a> {
    /// The answer's index.
    pub index: u32,
    /// The addition.
    pub delta: ChunkDelta<'a>,
    /// The finish reason, in the answer's last chunk.
    pub finish_reason: Option<Cow<'a, str>>,
    /// An error of this answer only.
    pub error: Option<ErrorObject>,
    /// Every other field, such as `logprobs`.
    pub rest: Vec<RawField<'a>>,
}

/// An addition to a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkDelta<'a> {
    /// Text.
    pub content: Option<Cow<'a, str>>,
    /// Reasoning: `reasoning_content`, or `reasoning` from some upstreams.
    pub reasoning: Option<Cow<'a, str>>,
    /// Text of a refusal.
    pub refusal: Option<Cow<'a, str>>,
    /// Fragments of tool calls.
    pub tool_calls: Vec<ChunkToolCall<'a>>,
    /// The call in its older form, which allows only one.
    pub function_call: Option<ChunkFunction<'a>>,
    /// Parts of the content other than text, each with the name of its list.
    pub parts: Vec<RawField<'a>>,
    /// Every other field but `role`.
    pub rest: Vec<RawField<'a>>,
}

/// A fragment of a tool call. Only the index is required, and some upstreams omit even that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkToolCall<'a> {
    /// The call's position among the calls of the message.
    pub index: Option<u32>,
    /// The call's id, in its first fragment.
    pub id: Option<Cow<'a, str>>,
    /// The call's kind, in its first fragment.
    pub kind: Option<Cow<'a, str>>,
    /// The function's name and a fragment of its arguments.
    pub function: Option<ChunkFunction<'a>>,
    /// Every other field: some upstreams need theirs back in the next request.
    pub rest: Vec<RawField<'a>>,
}

/// The function's name and a fragment of its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkFunction<'a> {
    /// The name, in the call's first fragment.
    pub name: Option<Cow<'a, str>>,
    /// A fragment of the arguments' JSON.
    pub arguments: Option<Cow<'a, str>>,
}

/// Fields of a chunk that are not passed on: padding against eavesdroppers, and values that Baton
/// sets itself.
const PADDING: [&str; 3] = ["created", "obfuscation", "p"];

impl<'de: 'a, 'a> Deserialize<'de> for ChatChunk<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Fields::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("a chunk's `choices` are no list of objects"))
    }
}

impl<'a> ChatChunk<'a> {
    fn of(fields: Fields<'a>) -> Option<Self> {
        let mut chunk = Self::default();
        let mut has_choices = false;
        chunk.error = ErrorObject::in_place_of_chunk(&fields);
        for field in fields.0 {
            let RawField { name, json } = &field;
            match &**name {
                "id" => chunk.id = text_of(json),
                "model" => chunk.model = text_of(json),
                "object" => {
                    chunk.is_whole = text_of(json).as_deref() == Some("chat.completion");
                }
                "choices" => {
                    has_choices = true;
                    for json in elements(json) {
                        if json.get() != "null" {
                            chunk.choices.push(ChunkChoice::of(Fields::of(json)?));
                        }
                    }
                }
                "usage" => chunk.usage = Usage::read(json),
                "error" => {}
                known if PADDING.contains(&known) => {}
                _ if json.get() == "null" => {}
                _ => chunk.rest.push(field),
            }
        }
        // A gateway's own error is next to the choices, its provider's inside one.
        if chunk.error.is_none() {
            let mut inner = chunk
                .choices
                .iter_mut()
                .filter_map(|choice| choice.error.take());
            chunk.error = inner.next();
        }
        // Some upstreams count inside the choice, or inside a field of their own.
        if chunk.usage.is_none() {
            let mut inner = chunk.choices.iter().flat_map(|choice| &choice.rest);
            let usage = inner.find(|field| field.name == "usage");
            let own = chunk.rest.iter().find(|field| field.name == "x_groq");
            let own = own
                .and_then(|field| Fields::of(field.json))
                .and_then(|fields| fields.get("usage"));
            chunk.usage = usage.map(|field| field.json).or(own).and_then(Usage::read);
        }
        if !has_choices && chunk.error.is_none() && chunk.usage.is_none() {
            chunk.rest.retain(|field| field.name != "type");
        }
        Some(chunk)
    }
}

impl<'a> ChunkChoice<'a> {
    fn of(fields: Fields<'a>) -> Self {
        let mut choice = Self::default();
        let mut message = None;
        let mut delta = None;
        let mut text = None;
        for field in fields.0 {
            let RawField { name, json } = &field;
            match &**name {
                "index" => choice.index = index_of(json).unwrap_or_default(),
                "delta" => delta = Fields::of(json),
                "message" => message = Fields::of(json),
                "text" => text = text_of(json),
                "error" => {
                    let error = serde_json::from_str(json.get());
                    choice.error = error.ok().and_then(|error| ErrorObject::read(&error));
                }
                "finish_reason" => choice.finish_reason = reason_of(json),
                _ if json.get() == "null" => {}
                _ => choice.rest.push(field),
            }
        }
        // A frame with both repeats itself: `message` has the pieces so far, `delta` the new one.
        let delta = delta.filter(|delta| !delta.0.is_empty()).or(message);
        choice.delta = delta.map(ChunkDelta::of).unwrap_or_default();
        if choice.delta == ChunkDelta::default() {
            choice.delta.content = text;
        }
        choice
    }
}

/// Reads a finish reason: text, or an object with the reason as its `type`. Empty words count as
/// absent.
fn reason_of(json: &RawValue) -> Option<Cow<'_, str>> {
    let reason = match Fields::of(json) {
        Some(fields) => fields.get("type").and_then(text_of),
        None => text_of(json),
    };
    reason.filter(|reason| !matches!(reason.trim(), "" | "null" | "None" | "false"))
}

impl<'a> ChunkDelta<'a> {
    fn of(fields: Fields<'a>) -> Self {
        let mut delta = Self::default();
        for field in fields.0 {
            let RawField { name, json } = &field;
            match &**name {
                "content" => delta.add_content(json),
                "reasoning_content" => {
                    if let Some(text) = content::plain(json) {
                        delta.reasoning = Some(text);
                    }
                }
                "reasoning" | "thinking" => {
                    if let Some(text) = content::plain(json) {
                        delta.reasoning.get_or_insert(text);
                    }
                }
                "refusal" => delta.refusal = content::plain(json),
                "tool_calls" => {
                    let calls = elements(json).into_iter().filter_map(Fields::of);
                    delta.tool_calls = calls.map(ChunkToolCall::of).collect();
                }
                "function_call" => {
                    delta.function_call = Fields::of(json).as_ref().map(ChunkFunction::of);
                }
                "role" => {}
                _ if json.get() == "null" => {}
                _ => delta.rest.push(field),
            }
        }
        delta
    }
}

impl<'a> ChunkToolCall<'a> {
    fn of(fields: Fields<'a>) -> Self {
        let mut call = Self::default();
        let mut bare = ChunkFunction::default();
        for field in fields.0 {
            let RawField { name, json } = &field;
            match &**name {
                "index" => call.index = index_of(json),
                "id" => call.id = text_of(json).filter(|id| !id.is_empty()),
                "type" => call.kind = text_of(json).filter(|kind| !kind.is_empty()),
                "function" => call.function = Fields::of(json).as_ref().map(ChunkFunction::of),
                // Some servers omit the object around these two.
                "name" => bare.name = text_of(json),
                "arguments" => bare.arguments = arguments_of(json),
                _ if json.get() == "null" => {}
                _ => call.rest.push(field),
            }
        }
        if bare != ChunkFunction::default() {
            call.function.get_or_insert(bare);
        }
        call
    }
}

impl<'a> ChunkFunction<'a> {
    fn of(fields: &Fields<'a>) -> Self {
        Self {
            name: fields
                .get("name")
                .and_then(text_of)
                .filter(|name| !name.is_empty()),
            arguments: fields.get("arguments").and_then(arguments_of),
        }
    }
}

/// Reads arguments: JSON within a text, or the JSON itself.
fn arguments_of(json: &RawValue) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first()? {
        b'{' | b'[' => Some(Cow::Borrowed(json.get())),
        _ => text_of(json),
    }
}

#[cfg(test)]
mod tests;
