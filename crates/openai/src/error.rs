//! The error object, as a whole answer and in the middle of a stream.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::lenient::{self, Fields, text_of};

/// An error. All four keys are always written, because the official SDKs expect them.
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
    /// Makes an error of class `kind` with a code and no field at fault.
    pub fn new(kind: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: kind.into(),
            param: None,
            code: Some(code.to_owned()),
        }
    }

    /// Adds the request field at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

/// Reads an object, a bare text, or an object with keys missing or of other types, because
/// upstreams write all of these.
impl<'de> Deserialize<'de> for ErrorObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self::read(&value).unwrap_or_else(|| Self::new("api_error", "error", "")))
    }
}

/// The keys of upstreams' messages, the usual one first.
const WORDS: [&str; 5] = ["message", "msg", "detail", "error_msg", "error"];

impl ErrorObject {
    /// Reads an error in each shape that upstreams use. Returns `None` if the value reports none:
    /// `null`, `{}`, an empty text, an object with only empty texts.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(message) if !message.trim().is_empty() => Some(Self::bare(message)),
            Value::Array(errors) => Self::read_list(errors),
            Value::Object(keys) => Self::read_keys(keys),
            _ => None,
        }
    }

    /// Reads the body of a refusal: the error object in its usual envelope, flat, in a list, as a
    /// validator's list of faults, or as a text.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let envelope = match &value {
            Value::Array(elements) => elements.first()?,
            other => other,
        };
        let Value::Object(keys) = envelope else {
            return Self::read(envelope);
        };
        match keys.get("error").or_else(|| keys.get("errors")) {
            // Next to a bare text, the message and the class are sometimes flat.
            Some(Value::String(text)) => {
                let mut error = Self::read_keys(keys).unwrap_or_else(|| Self::bare(text));
                if let Some(kind) = keys.get("error_type").and_then(lenient::text_in) {
                    error.kind = kind;
                }
                Some(error)
            }
            Some(error) => Self::read(error).or_else(|| Self::read_keys(keys)),
            None => Self::read_keys(keys),
        }
    }

    /// Reads the error that a stream has instead of a chunk, in its envelope or flat.
    pub(crate) fn in_place_of_chunk(fields: &Fields<'_>) -> Option<Self> {
        let value = |json: &RawValue| serde_json::from_str::<Value>(json.get()).ok();
        if let Some(error) = fields.get("error").and_then(value) {
            return Self::read(&error);
        }
        let says_error = ["object", "type"].iter().any(|name| {
            let said = fields.get(name).and_then(text_of);
            said.as_deref() == Some("error")
        });
        let has_choices = fields.0.iter().any(|field| field.name == "choices");
        let has_words = WORDS.iter().any(|name| fields.get(name).is_some());
        if !says_error && (has_choices || !has_words) {
            return None;
        }
        let keys = fields
            .0
            .iter()
            .filter_map(|field| Some((field.name.to_string(), value(field.json)?)));
        let keys = keys.collect();
        Self::read_keys(&keys).or_else(|| says_error.then(|| Self::bare("it does not say which")))
    }

    fn bare(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            kind: "api_error".to_owned(),
            param: None,
            code: None,
        }
    }

    fn read_list(errors: &[Value]) -> Option<Self> {
        let mut errors = errors.iter().filter_map(Self::read);
        let mut first = errors.next()?;
        for error in errors {
            first.message.push_str("; ");
            first.message.push_str(&error.message);
        }
        Some(first)
    }

    fn read_keys(keys: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| keys.get(name).and_then(lenient::text_in);
        let nested = |name: &str| keys.get(name).and_then(Self::read);
        let kind = text("type").filter(|kind| kind != "error");
        let code = text("code").or_else(|| text("error_code"));
        // A validator names the location, such as `["body", "messages", 0]`.
        let place = keys.get("loc").and_then(Value::as_array).map(|path| {
            let path = path.iter().filter_map(lenient::text_in);
            let path: Vec<_> = path.filter(|step| step != "body").collect();
            path.join(".")
        });
        let place = place.filter(|place| !place.is_empty());
        let mut error = match WORDS.iter().find_map(|name| text(name)) {
            Some(message) => Self::bare(&message),
            None => match WORDS.iter().find_map(|name| nested(name)) {
                Some(error) => error,
                None if kind.is_some() || code.as_deref().is_some_and(|code| code != "0") => {
                    Self::bare("it does not say why")
                }
                None => return None,
            },
        };
        if let Some(place) = &place {
            error.message = format!("{place}: {}", error.message);
        }
        // A gateway quotes the server behind it.
        let quoted = keys
            .get("metadata")
            .and_then(|metadata| metadata.get("raw"));
        if let Some(quoted) = quoted.and_then(lenient::text_in) {
            error.message = format!("{}: {quoted}", error.message);
        }
        if let Some(kind) = kind.or_else(|| text("status").filter(|_| error.kind == "api_error")) {
            error.kind = kind;
        }
        error.code = code.or(error.code);
        error.param = text("param").or(place).or(error.param);
        Some(error)
    }
}

/// The body with an [`ErrorObject`]: `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
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

    #[test]
    fn every_shape_of_a_refusal_keeps_its_words_code_and_param() {
        for (body, message, kind, code, param) in [
            (
                json!({"error": {"message": "too long", "type": "invalid_request_error",
                    "code": "context_length_exceeded", "param": "messages"}}),
                "too long",
                "invalid_request_error",
                Some("context_length_exceeded"),
                Some("messages"),
            ),
            (
                json!({"object": "error", "message": "no such field", "type": "BadRequestError",
                    "param": null, "code": 400}),
                "no such field",
                "BadRequestError",
                Some("400"),
                None,
            ),
            (
                json!({"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"},
                    {"loc": ["body", "model"], "msg": "not a text"}]}),
                "messages.0: field required; model: not a text",
                "missing",
                None,
                Some("messages.0"),
            ),
            (
                json!({"detail": "Not Found"}),
                "Not Found",
                "api_error",
                None,
                None,
            ),
            (
                json!({"error": "busy", "error_type": "overloaded"}),
                "busy",
                "overloaded",
                None,
                None,
            ),
            (
                json!([{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}]),
                "bad",
                "INVALID_ARGUMENT",
                Some("400"),
                None,
            ),
            (
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                "Overloaded",
                "overloaded_error",
                None,
                None,
            ),
            (
                json!({"error": {"message": "Provider returned error", "code": 429,
                    "metadata": {"raw": "slow down"}}}),
                "Provider returned error: slow down",
                "api_error",
                Some("429"),
                None,
            ),
            (
                json!({"status": 400, "error": "Bad Request", "message": "why"}),
                "why",
                "400",
                None,
                None,
            ),
            (
                json!({"error_code": 336, "error_msg": "why"}),
                "why",
                "api_error",
                Some("336"),
                None,
            ),
            (json!("plain"), "plain", "api_error", None, None),
        ] {
            let read = ErrorObject::of_body(body.to_string().as_bytes()).unwrap();
            let read = (
                read.message.as_str(),
                read.kind.as_str(),
                read.code.as_deref(),
                read.param.as_deref(),
            );
            assert_eq!(read, (message, kind, code, param), "{body}");
        }
    }

    #[test]
    fn what_says_nothing_is_no_error() {
        for nothing in [
            json!(null),
            json!({}),
            json!(""),
            json!([]),
            json!(false),
            json!(0),
            json!({"message": "", "code": 0}),
            json!({"message": null, "type": null}),
        ] {
            assert_eq!(ErrorObject::read(&nothing), None, "{nothing}");
        }
    }
}
