//! The fields that a client sets on a thread, and their limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::access::Caller;
use crate::error::ApiError;
use baton_admission::Admission;
use http::StatusCode;

/// The longest title, in characters.
const MAX_TITLE: usize = 512;
/// The most fields of metadata.
const MAX_FIELDS: usize = 16;
/// The longest name of a field of metadata, in characters.
const MAX_FIELD_NAME: usize = 64;
/// The longest value of a field of metadata, in characters.
const MAX_FIELD_VALUE: usize = 512;

/// The longest name of a model, in bytes.
const MAX_NAME: usize = 512;

/// A thread's metadata: texts by name.
pub(super) type Metadata = BTreeMap<String, String>;

/// Reads a field that may be absent, `null` or a value.
#[expect(
    clippy::option_option,
    reason = "a field may be absent, cleared or set"
)]
pub(super) fn some<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Refuses a title that is too long or cannot be shown on a line.
pub(super) fn check_title(title: Option<&str>) -> Result<(), ApiError> {
    let fits = title.is_none_or(|title| {
        title.chars().count() <= MAX_TITLE && !title.chars().any(char::is_control)
    });
    if fits {
        return Ok(());
    }
    let message = format!("`title` has at most {MAX_TITLE} characters and no control characters");
    Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_title", message).param("title"))
}

/// Refuses a model that cannot title threads for this caller.
pub(super) fn check_title_model(
    admission: &Admission,
    caller: &Caller,
    model: &str,
) -> Result<(), ApiError> {
    const PARAM: &str = "title_model";
    if model.is_empty() || model.len() > MAX_NAME || model.chars().any(char::is_control) {
        let message = format!("`{PARAM}` has 1 to {MAX_NAME} bytes and no control characters");
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_title_model", message);
        return Err(error.param(PARAM));
    }
    let checked = admission.check_title_model(&caller.grant, model);
    checked.map_err(|error| ApiError::from(error).param(PARAM))
}

/// Refuses a title together with a model to ask for one.
pub(super) fn two_titles() -> ApiError {
    let message = "`title` is the title, so no model in `title_model` gives one: send one of them";
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_title_model", message).param("title_model")
}

/// Checks metadata against their limits and returns them as they are stored.
pub(super) fn encode_metadata(metadata: &Metadata) -> Result<Box<RawValue>, ApiError> {
    let refuse = |param: String, message: String| {
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_metadata", message);
        Err(error.param(param))
    };
    if metadata.len() > MAX_FIELDS {
        let message = format!("`metadata` has at most {MAX_FIELDS} fields");
        return refuse("metadata".to_owned(), message);
    }
    for (name, value) in metadata {
        let fits = |text: &str, most| text.chars().count() <= most && !text.contains('\0');
        if !fits(name, MAX_FIELD_NAME) {
            let message =
                format!("a name in `metadata` has at most {MAX_FIELD_NAME} characters and no NUL");
            return refuse("metadata".to_owned(), message);
        }
        if !fits(value, MAX_FIELD_VALUE) {
            let message = format!(
                "`metadata.{name}` is a text of at most {MAX_FIELD_VALUE} characters without NUL"
            );
            return refuse(format!("metadata.{name}"), message);
        }
    }
    serde_json::value::to_raw_value(metadata).map_err(|error| ApiError::internal(&error))
}
