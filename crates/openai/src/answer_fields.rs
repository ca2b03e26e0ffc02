//! Fields of an answer that Baton passes on without knowing what they mean.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::usage::add_details;
use crate::{FieldOf, Unknown};

/// The passed-on fields of an answer, each with its pieces joined, by the object that they belong to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerFields {
    /// Of the message: `annotations`, `audio`, `images`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub message: Unknown,
    /// Of the choice: `logprobs`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub choice: Unknown,
    /// Of the completion: `model`, `system_fingerprint`, `service_tier`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub completion: Unknown,
    /// Of the token counts: `prompt_tokens_details`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub usage: Unknown,
}

impl AnswerFields {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a field, or a further piece of one. A value that is no JSON is left out.
    pub fn add(&mut self, of: FieldOf, name: &str, json: &str) {
        if let Ok(value) = serde_json::from_str(json) {
            self.add_value(of, name, value);
        }
    }

    fn add_value(&mut self, of: FieldOf, name: &str, value: Value) {
        match of {
            FieldOf::Message => join_piece(&mut self.message, name, value),
            FieldOf::Choice => join_piece(&mut self.choice, name, value),
            FieldOf::Completion => {
                self.completion.insert(name.to_owned(), value);
            }
            FieldOf::Usage => {
                add_details(&mut self.usage, &Map::from_iter([(name.to_owned(), value)]));
            }
        }
    }

    /// Adds the fields of a later turn.
    pub fn extend(&mut self, later: Self) {
        for (of, fields) in [
            (FieldOf::Message, later.message),
            (FieldOf::Choice, later.choice),
            (FieldOf::Completion, later.completion),
            (FieldOf::Usage, later.usage),
        ] {
            for (name, value) in fields {
                self.add_value(of, &name, value);
            }
        }
    }

    /// The model that answered, if the upstream named another than was asked.
    pub fn model(&self) -> Option<&str> {
        self.completion.get("model").and_then(Value::as_str)
    }
}

/// Adds a piece of a field: lists grow, and so do those within `logprobs`; the texts of audio are joined;
/// of the rest the newer stays.
pub(crate) fn join_piece(fields: &mut Unknown, name: &str, value: Value) {
    match (fields.get_mut(name), value) {
        (Some(Value::Array(present)), Value::Array(more)) => present.extend(more),
        (Some(Value::Object(present)), Value::Object(more))
            if matches!(name, "audio" | "logprobs") =>
        {
            for (key, value) in more {
                match (present.get_mut(&key), value) {
                    (Some(Value::String(text)), Value::String(piece))
                        if name == "audio" && matches!(&*key, "data" | "transcript") =>
                    {
                        text.push_str(&piece);
                    }
                    (Some(Value::Array(present)), Value::Array(more)) => present.extend(more),
                    (Some(_), Value::Null) => {}
                    (_, value) => {
                        present.insert(key, value);
                    }
                }
            }
        }
        (_, value) => {
            fields.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_of_a_field_become_the_whole_field() {
        let mut fields = AnswerFields::default();
        for (of, name, json) in [
            (FieldOf::Completion, "model", r#""a""#),
            (
                FieldOf::Choice,
                "logprobs",
                r#"{"content":[{"token":"a"}],"refusal":null}"#,
            ),
            (
                FieldOf::Choice,
                "logprobs",
                r#"{"content":[{"token":"b"}],"refusal":null}"#,
            ),
            (FieldOf::Message, "images", "[1]"),
            (FieldOf::Message, "images", "[2]"),
            (FieldOf::Message, "audio", r#"{"id":"x","data":"ab"}"#),
            (
                FieldOf::Message,
                "audio",
                r#"{"data":"cd","transcript":"hi"}"#,
            ),
            (FieldOf::Message, "broken", "{"),
            (
                FieldOf::Usage,
                "completion_tokens_details",
                r#"{"reasoning_tokens":3}"#,
            ),
        ] {
            fields.add(of, name, json);
        }
        assert_eq!(fields.model(), Some("a"));
        let mut later = AnswerFields::default();
        later.add(FieldOf::Completion, "model", r#""b""#);
        later.add(
            FieldOf::Usage,
            "completion_tokens_details",
            r#"{"reasoning_tokens":4}"#,
        );
        fields.extend(later);
        assert_eq!(
            serde_json::to_value(&fields).unwrap(),
            json!({
                "message": {"images": [1, 2],
                            "audio": {"id": "x", "data": "abcd", "transcript": "hi"}},
                "choice": {"logprobs": {"content": [{"token": "a"}, {"token": "b"}], "refusal": null}},
                "completion": {"model": "b"},
                "usage": {"completion_tokens_details": {"reasoning_tokens": 7}},
            }),
        );
        let stored = serde_json::to_string(&fields).unwrap();
        assert_eq!(
            serde_json::from_str::<AnswerFields>(&stored).unwrap(),
            fields
        );
    }
}
