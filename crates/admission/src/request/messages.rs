//! Checks of the parts that both doors share. They check only the form; the upstream decides
//! whether a model can read it.

use baton_protocol::{NotFields, RawFields};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::legacy;
use super::travelling::check_readable;
use crate::error::Invalid;
use crate::json::{is_readable, unreadable};

/// Bytes of metadata, written as JSON.
const MAX_METADATA_BYTES: usize = 16 * 1024;
/// The longest name of a model or an agent.
const MAX_NAME_BYTES: usize = 512;

const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

/// Makes a user message of its content: a text, or a list of content parts.
pub fn user_message(content: &RawValue) -> Result<Box<RawValue>, Invalid> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<Map<String, Value>>),
    }
    let empty = match serde_json::from_str(content.get()) {
        Ok(Content::Text(text)) => text.is_empty(),
        Ok(Content::Parts(parts)) => parts.is_empty(),
        Err(_) if !is_readable(content) => return Err(unreadable("invalid_json", "content")),
        Err(_) => true,
    };
    if empty {
        let message = "`content` must be a text, or an array of content parts such as \
                       {\"type\":\"text\",\"text\":\"…\"}, and not empty";
        return Err(Invalid::field("invalid_messages", "content", message));
    }
    let message = format!(r#"{{"role":"user","content":{}}}"#, content.get());
    RawValue::from_string(message).map_err(|_| unreadable("invalid_json", "content"))
}

#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(borrow, default)]
    role: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
}

/// Takes a non-empty array of objects with a known `role`. Calls in the older form are translated.
pub fn read_messages(messages: Box<RawValue>) -> Result<Box<RawValue>, Invalid> {
    let code = "invalid_messages";
    let heads: Vec<MessageHead<'_>> = serde_json::from_str(messages.get()).map_err(|_| {
        Invalid::field(
            code,
            "messages",
            "`messages` must be an array of objects such as {\"role\":\"user\",\"content\":\"…\"}",
        )
    })?;
    if heads.is_empty() {
        return Err(Invalid::field(
            code,
            "messages",
            "`messages` must hold at least one message",
        ));
    }
    let mut is_older = false;
    for (index, head) in heads.iter().enumerate() {
        let param = || format!("messages[{index}].role");
        match head.role.as_deref() {
            Some(role) if ROLES.contains(&role) => {
                is_older |= role == "function" || head.function_call.is_some();
            }
            Some(_) => {
                let message = format!(
                    "`messages[{index}].role` must be one of {}",
                    ROLES.join(", ")
                );
                return Err(Invalid::field(code, param(), message));
            }
            None => {
                let message = format!("`messages[{index}].role` is missing");
                return Err(Invalid::field(code, param(), message));
            }
        }
    }
    check_texts("messages", &messages)?;
    if is_older {
        return legacy::messages(&messages);
    }
    Ok(messages)
}

/// Refuses an array that holds half of a surrogate pair, and names the element.
pub(super) fn check_texts(param: &str, array: &RawValue) -> Result<(), Invalid> {
    if is_readable(array) {
        return Ok(());
    }
    let elements: Vec<&RawValue> = serde_json::from_str(array.get()).unwrap_or_default();
    let place = elements.iter().position(|element| !is_readable(element));
    let param = place.map_or_else(|| param.to_owned(), |index| format!("{param}[{index}]"));
    Err(unreadable("invalid_json", param))
}

/// Checks for an object of limited size.
pub(super) fn metadata(value: Option<&RawValue>) -> Result<Option<RawFields>, Invalid> {
    let invalid = |message| Invalid::field("invalid_metadata", "metadata", message);
    let Some(object) = value.filter(|value| value.get() != "null") else {
        return Ok(None);
    };
    if object.get().len() > MAX_METADATA_BYTES {
        let message = format!("`metadata` may hold at most {MAX_METADATA_BYTES} bytes of JSON");
        return Err(invalid(message));
    }
    let fields = RawFields::from_object(object.to_owned())
        .map_err(|NotFields| invalid("`metadata` must be an object".to_owned()))?;
    check_readable("invalid_metadata", "metadata", object)?;
    Ok(Some(fields))
}

/// Checks a model's or an agent's name: a text column must accept it and a log line must show it.
pub(super) fn check_name(param: &str, name: Option<&str>) -> Result<(), Invalid> {
    let fits =
        name.is_none_or(|name| name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control));
    if fits {
        return Ok(());
    }
    let message = format!("`{param}` has at most {MAX_NAME_BYTES} bytes and no control characters");
    Err(Invalid::field("invalid_name", param, message))
}
