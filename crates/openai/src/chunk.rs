//! A chunk of a streamed answer, as read: text is borrowed from the frame where it can be.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{ErrorObject, Unknown, Usage, lenient};

/// Text borrowed from the frame unless it had to be unescaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

/// One `chat.completion.chunk`, or the error object in its place.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ChatChunk<'a> {
    /// The completion's id.
    #[serde(borrow, default, deserialize_with = "text")]
    pub id: Option<Cow<'a, str>>,
    /// The model that answers.
    #[serde(borrow, default, deserialize_with = "text")]
    pub model: Option<Cow<'a, str>>,
    /// What was added; empty in the chunk that carries only the usage.
    #[serde(borrow, default, deserialize_with = "lenient::null_as_default")]
    pub choices: Vec<ChunkChoice<'a>>,
    /// Token counts, in the last chunk (some upstreams: so far, in each).
    #[serde(default)]
    pub usage: Option<Usage>,
    /// An error after the answer had begun.
    #[serde(default)]
    pub error: Option<ErrorObject>,
}

/// What was added to one answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ChunkChoice<'a> {
    /// The answer's place.
    #[serde(default)]
    pub index: u32,
    /// The addition.
    #[serde(borrow, default, deserialize_with = "lenient::null_as_default")]
    pub delta: ChunkDelta<'a>,
    /// Why the model stopped, in the answer's last chunk.
    #[serde(borrow, default, deserialize_with = "text")]
    pub finish_reason: Option<Cow<'a, str>>,
}

/// An addition to a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkDelta<'a> {
    /// Text.
    pub content: Option<Cow<'a, str>>,
    /// Reasoning: `reasoning_content`, or `reasoning` as some upstreams call it.
    pub reasoning: Option<Cow<'a, str>>,
    /// Text of a refusal.
    pub refusal: Option<Cow<'a, str>>,
    /// Fragments of tool calls.
    pub tool_calls: Vec<ChunkToolCall<'a>>,
    /// Every other field but `role`.
    pub rest: Unknown,
}

/// Not derived: `#[serde(flatten)]` would buffer every key of every chunk.
impl<'de: 'a, 'a> Deserialize<'de> for ChunkDelta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ChunkDelta<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut delta = ChunkDelta::default();
                let optional = |text: Option<Text<'de>>| text.map(|text| text.0);
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "content" => delta.content = optional(map.next_value()?),
                        "reasoning_content" => delta.reasoning = optional(map.next_value()?),
                        "reasoning" => {
                            let reasoning = optional(map.next_value()?);
                            delta.reasoning = delta.reasoning.or(reasoning);
                        }
                        "refusal" => delta.refusal = optional(map.next_value()?),
                        "tool_calls" => {
                            delta.tool_calls = map.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        "role" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => {
                            delta.rest.insert(key.0.into_owned(), map.next_value()?);
                        }
                    }
                }
                Ok(delta)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A fragment of a tool call. Only the index is certain to be there, and some upstreams leave even
/// that out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ChunkToolCall<'a> {
    /// The call's place among the calls of the message.
    #[serde(default)]
    pub index: Option<u32>,
    /// The call's id, in its first fragment.
    #[serde(borrow, default, deserialize_with = "text")]
    pub id: Option<Cow<'a, str>>,
    /// The call's kind, in its first fragment.
    #[serde(borrow, default, rename = "type", deserialize_with = "text")]
    pub kind: Option<Cow<'a, str>>,
    /// The function's name and a fragment of its arguments.
    #[serde(borrow, default)]
    pub function: Option<ChunkFunction<'a>>,
    /// Every other field: some upstreams want theirs back in the next request.
    #[serde(flatten)]
    pub rest: Unknown,
}

/// The function's name and a fragment of its arguments.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ChunkFunction<'a> {
    /// The name, in the call's first fragment.
    #[serde(borrow, default, deserialize_with = "text")]
    pub name: Option<Cow<'a, str>>,
    /// A fragment of the arguments' JSON.
    #[serde(borrow, default, deserialize_with = "text")]
    pub arguments: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed_and_escaped_text_is_unescaped() {
        let frame = r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"hi","x":[1]},"finish_reason":null}],"usage":null}"#;
        let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
        let delta = &chunk.choices[0].delta;
        assert!(matches!(delta.content, Some(Cow::Borrowed("hi"))));
        assert_eq!(delta.rest["x"], serde_json::json!([1]));
        assert!(matches!(chunk.id, Some(Cow::Borrowed("c"))));

        let frame = r#"{"choices":[{"delta":{"content":"a\nb"},"finish_reason":"stop"}]}"#;
        let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
        assert_eq!(chunk.choices[0].delta.content.as_deref(), Some("a\nb"));
        assert_eq!(chunk.choices[0].finish_reason.as_deref(), Some("stop"));
    }

    #[test]
    fn nulls_and_missing_keys_are_an_empty_addition() {
        for frame in [
            r#"{"choices":[{"delta":null}]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}]}"#,
        ] {
            let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
            assert_eq!(chunk.choices[0].delta, ChunkDelta::default(), "{frame}");
        }
        let chunk: ChatChunk<'_> = serde_json::from_str(r#"{"choices":null}"#).unwrap();
        assert!(chunk.choices.is_empty());
    }

    #[test]
    fn both_names_of_reasoning_are_read_once() {
        let frame = r#"{"choices":[{"delta":{"reasoning":"b","reasoning_content":"a"}}]}"#;
        let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
        assert_eq!(chunk.choices[0].delta.reasoning.as_deref(), Some("a"));
    }
}
