//! The error object, as an answer of its own and in the middle of a stream.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::lenient;

/// What went wrong. All four keys are always written, as the official SDKs expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorObject {
    /// For people.
    pub message: String,
    /// The error's class, for instance `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request field at fault.
    pub param: Option<String>,
    /// For programs, for instance `context_length_exceeded`.
    pub code: Option<String>,
}

impl ErrorObject {
    /// An error of class `kind` with a code and no field at fault.
    pub fn new(kind: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: kind.into(),
            param: None,
            code: Some(code.to_owned()),
        }
    }

    /// The same error, naming the request field at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

/// Upstreams write the object, a bare text, or an object with keys missing or of other types.
impl<'de> Deserialize<'de> for ErrorObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Keys {
            #[serde(default, deserialize_with = "lenient::text")]
            message: Option<String>,
            #[serde(default, rename = "type", deserialize_with = "lenient::text")]
            kind: Option<String>,
            #[serde(default, deserialize_with = "lenient::text")]
            param: Option<String>,
            #[serde(default, deserialize_with = "lenient::text")]
            code: Option<String>,
        }

        let value = Value::deserialize(deserializer)?;
        let keys = match value {
            Value::Object(_) => Keys::deserialize(value).map_err(serde::de::Error::custom)?,
            Value::String(message) => Keys {
                message: Some(message),
                kind: None,
                param: None,
                code: None,
            },
            other => Keys {
                message: Some(other.to_string()),
                kind: None,
                param: None,
                code: None,
            },
        };
        Ok(Self {
            message: keys.message.unwrap_or_default(),
            kind: keys.kind.unwrap_or_else(|| "api_error".to_owned()),
            param: keys.param,
            code: keys.code,
        })
    }
}

/// The body that carries an [`ErrorObject`]: `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_four_keys_are_written() {
        let body = ErrorBody {
            error: ErrorObject::new("api_error", "upstream_cut", "The model stopped."),
        };
        assert_eq!(
            serde_json::to_value(body).unwrap(),
            json!({"error": {
                "message": "The model stopped.", "type": "api_error", "param": null, "code": "upstream_cut",
            }}),
        );
    }

    #[test]
    fn errors_with_missing_keys_numbers_or_a_bare_text_are_understood() {
        let read = |value| serde_json::from_value::<ErrorObject>(value).unwrap();
        let sparse = read(json!({"message": "no route", "code": 502, "metadata": {}}));
        assert_eq!(sparse.code.as_deref(), Some("502"));
        assert_eq!(sparse.kind, "api_error");
        assert_eq!(read(json!("overloaded")).message, "overloaded");
    }
}
