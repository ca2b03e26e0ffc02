//! The request: `POST /v1/chat/completions`.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Unknown, lenient};

/// A chat completion request. `rest` keeps all other fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// A model's or an agent's name.
    #[schema(max_length = 512)]
    pub model: String,
    /// The conversation so far.
    #[schema(min_items = 1, max_items = 100_000)]
    pub messages: Vec<Message>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub stream: bool,
    /// Options of a streamed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// The client's own tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 128)]
    pub tools: Option<Vec<Tool>>,
    /// `none`, `auto`, `required`, or an object that names a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// The older form of `tools`; excludes it. The answer then has its call as `function_call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 128)]
    pub functions: Option<Vec<FunctionDefinition>>,
    /// The older form of `tool_choice`: `none`, `auto`, or an object with a `name` of `functions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_call: Option<Value>,
    /// The older name of `max_completion_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The most tokens that the model may write in one turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// The number of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1)]
    pub n: Option<u32>,
    /// The client's own name for its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl ChatRequest {
    /// Returns whether the client asked for the chunk with the token counts.
    pub fn include_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage)
    }
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last chunk has the token counts.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub include_usage: bool,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant`, `tool` or, formerly, `function`.
    #[schema(pattern = "^(system|developer|user|assistant|tool|function)$")]
    pub role: String,
    /// The content; absent with tool calls.
    #[serde(default)]
    pub content: Option<Content>,
    /// The calls that the model asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a message of role `tool` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The participant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Every other field, `refusal` and `reasoning_content` among them.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl Message {
    /// Makes a message of plain text.
    pub fn text(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: Some(Content::Text(text.into())),
            ..Self::default()
        }
    }

    /// Makes the result of a tool call.
    pub fn tool_result(call_id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            tool_call_id: Some(call_id.into()),
            ..Self::text("tool", text)
        }
    }

    /// Returns the text of the message, its text parts joined; empty if it has no text.
    pub fn plain_text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect(),
        }
    }
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Content parts (`text`, `image_url`, …), unchanged.
    Parts(Vec<Value>),
}

/// Written by hand, because the derived one buffers the text and does not name the expected form.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;

        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`content` to be a text, an array of content parts, or null")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut all = Vec::new();
                while let Some(part) = parts.next_element()? {
                    all.push(part);
                }
                Ok(Content::Parts(all))
            }
        }

        deserializer.deserialize_any(TextOrParts)
    }
}

/// A call that the model asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolCall {
    /// The id of the call within its conversation.
    pub id: String,
    /// `function`, or another kind with its body in `rest`.
    #[serde(default = "function", rename = "type")]
    pub kind: String,
    /// The function and its arguments, for kind `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionCall>,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl ToolCall {
    /// Makes a call of a function.
    pub fn function(
        id: impl Into<String>,
        name: impl Into<String>,
        arguments: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            kind: function(),
            function: Some(FunctionCall {
                name: name.into(),
                arguments: arguments.into(),
                rest: Unknown::new(),
            }),
            rest: Unknown::new(),
        }
    }

    /// Returns the function's name; empty for another kind of call.
    pub fn name(&self) -> &str {
        self.function.as_ref().map_or("", |call| &call.name)
    }

    /// Returns the arguments, JSON as the model wrote it; empty for another kind of call.
    pub fn arguments(&self) -> &str {
        self.function.as_ref().map_or("", |call| &call.arguments)
    }
}

fn function() -> String {
    "function".to_owned()
}

/// A function and its arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// JSON as the model wrote it, which may not be valid.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub arguments: String,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tool {
    /// `function`, or another kind with its body in `rest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function, for kind `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionDefinition>,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl Tool {
    /// Makes a function with a description and the JSON Schema of its arguments.
    pub fn function(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: Value,
    ) -> Self {
        Self {
            kind: function(),
            function: Some(FunctionDefinition {
                name: name.into(),
                description: Some(description.into()),
                parameters: Some(parameters),
                rest: Unknown::new(),
            }),
            rest: Unknown::new(),
        }
    }

    /// Returns the model's name for it, if it is a function.
    pub fn name(&self) -> Option<&str> {
        self.function
            .as_ref()
            .map(|function| function.name.as_str())
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FunctionDefinition {
    /// Its name.
    pub name: String,
    /// Its description for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Every other field, `strict` among them.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_client_sends_travels_on_unchanged() {
        let sent = json!({
            "model": "gpt-x", "stream": true, "stream_options": {"include_usage": true, "new": 1},
            "temperature": 0.5, "reasoning_effort": "low", "tool_choice": "auto",
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}},
                {"type": "custom", "custom": {"name": "sql"}},
            ],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "look: "}, {"type": "image_url", "image_url": {"url": "x"}}]},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"signature": "s"}},
                    {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
                ]},
                {"role": "tool", "content": "42", "tool_call_id": "call_1"},
            ],
        });
        let request: ChatRequest = serde_json::from_value(sent.clone()).unwrap();
        assert!(request.include_usage());
        assert_eq!(request.messages[0].plain_text(), "look: ");
        assert_eq!(serde_json::to_value(request).unwrap(), sent);
    }

    #[test]
    fn null_stands_for_absent_and_wrong_content_is_named() {
        let request: ChatRequest =
            serde_json::from_str(r#"{"model":"m","messages":[],"stream":null,"n":null}"#).unwrap();
        assert!(!request.stream);
        let error = serde_json::from_str::<ChatRequest>(
            r#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
        )
        .unwrap_err();
        assert!(error.to_string().contains("`content` to be"), "{error}");
    }
}
