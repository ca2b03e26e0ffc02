//! Answers without streaming.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Message, Unknown, Usage};

/// A whole chat completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-` and the run's id.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The model that answered.
    pub model: String,
    /// The answers, which is always one.
    pub choices: Vec<CompletionChoice>,
    /// Tokens used; null if nobody counted them.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl ChatCompletion {
    /// Makes a completion with one answer.
    pub fn new(
        id: impl Into<String>,
        created: i64,
        model: impl Into<String>,
        message: Message,
        finish_reason: impl Into<String>,
        usage: Option<Usage>,
    ) -> Self {
        Self {
            id: id.into(),
            object: "chat.completion".to_owned(),
            created,
            model: model.into(),
            choices: vec![CompletionChoice {
                index: 0,
                message,
                logprobs: None,
                finish_reason: Some(finish_reason.into()),
                rest: Unknown::new(),
            }],
            usage,
            rest: Unknown::new(),
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionChoice {
    /// Its index.
    #[serde(default)]
    pub index: u32,
    /// The assistant's message.
    pub message: Message,
    /// Log probabilities, if requested.
    #[serde(default)]
    pub logprobs: Option<Value>,
    /// The finish reason: `stop`, `length`, `tool_calls` or `content_filter`.
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

/// The answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    #[serde(default = "list")]
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// Reads an upstream's list: OpenAI's object, the array alone, or `models` in place of `data`. An
    /// entry is a model's object, known by its `id` or `name`, or the name itself.
    pub fn read(body: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Listed {
            Object {
                #[serde(alias = "models")]
                data: Vec<Value>,
            },
            Array(Vec<Value>),
        }

        let (Listed::Object { data } | Listed::Array(data)) = serde_json::from_slice(body)?;
        Ok(Self::new(
            data.into_iter().filter_map(Model::read).collect(),
        ))
    }

    /// Makes a list of models.
    pub fn new(data: Vec<Model>) -> Self {
        Self {
            object: list(),
            data,
        }
    }
}

fn list() -> String {
    "list".to_owned()
}

/// A model that can be named in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// `model`.
    #[serde(default = "model")]
    pub object: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// Its provider.
    #[serde(default)]
    pub owned_by: String,
    /// Every other field.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

impl Model {
    /// Reads an entry of a list; nothing if it names no model.
    fn read(entry: Value) -> Option<Self> {
        let mut fields = match entry {
            Value::String(name) => return Some(Self::new(name, 0, "")),
            Value::Object(fields) => fields,
            _ => return None,
        };
        let name = |value: Option<&Value>| match value {
            Some(Value::String(name)) if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        let id = name(fields.get("id")).or_else(|| name(fields.get("name")))?;
        let created = fields.get("created").and_then(Value::as_f64);
        let owned_by = name(fields.get("owned_by"));
        for known in ["id", "object", "created", "owned_by"] {
            fields.remove(known);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time is seconds; the cast saturates"
        )]
        let created = created.unwrap_or_default() as i64;
        Some(Self {
            rest: fields,
            ..Self::new(id, created, owned_by.unwrap_or_default())
        })
    }

    /// Makes a model.
    pub fn new(id: impl Into<String>, created: i64, owned_by: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: model(),
            created,
            owned_by: owned_by.into(),
            rest: Unknown::new(),
        }
    }
}

fn model() -> String {
    "model".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_models_is_read_in_each_of_its_shapes() {
        let a = |created| Model::new("a", created, "");
        for (list, models) in [
            (
                json!({"object": "list", "data": [{"id": "a", "object": "model", "created": 7}]}),
                vec![a(7)],
            ),
            (
                json!({"data": [{"id": "a", "created": null, "owned_by": null}]}),
                vec![a(0)],
            ),
            (json!([{"id": "a", "created": 7.0}]), vec![a(7)]),
            (json!({"models": [{"name": "a"}, {"x": 1}, 5]}), vec![]),
            (json!({"models": ["a"]}), vec![a(0)]),
            (json!({"data": []}), vec![]),
        ] {
            let read = ModelList::read(list.to_string().as_bytes()).unwrap();
            if list["models"][0].is_object() {
                assert_eq!((read.data.len(), &*read.data[0].id), (1, "a"));
            } else {
                assert_eq!(read.data, models, "{list}");
            }
        }
        let extra = json!({"data": [{"id": "a", "max_model_len": 4096}]}).to_string();
        let read = ModelList::read(extra.as_bytes()).unwrap();
        assert_eq!(read.data[0].rest["max_model_len"], 4096);
        for other in [r#""a""#, "{}", "<html>"] {
            assert!(ModelList::read(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_completion_has_every_key_that_the_sdks_read() {
        let completion = ChatCompletion::new(
            "chatcmpl-1",
            7,
            "m",
            Message::text("assistant", "hi"),
            "stop",
            Some(Usage::new(3, 1)),
        );
        assert_eq!(
            serde_json::to_value(completion).unwrap(),
            json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"},
                    "logprobs": null, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            }),
        );
    }
}
