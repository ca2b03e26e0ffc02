//! The older form of tools: `functions` and `function_call`, translated into `tools`.
//!
//! Few upstreams still read it, and none next to the agent's tools.

use std::borrow::Cow;

use baton_protocol::RawFields;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::messages::check_texts;
use super::tools::{Names, check_count};
use crate::error::Invalid;

const FUNCTIONS: &str = "invalid_functions";

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

/// Functions as tools.
#[derive(Debug)]
pub(super) struct Functions {
    /// An array of OpenAI tool objects.
    pub(super) tools: Box<RawValue>,
    /// Their names.
    pub(super) names: Vec<String>,
}

/// Translates `functions`.
pub(super) fn functions(functions: &RawValue) -> Result<Functions, Invalid> {
    let not_functions = || {
        Invalid::field(
            FUNCTIONS,
            "functions",
            "`functions` must be an array of objects such as {\"name\":\"f\",\"parameters\":{…}}",
        )
    };
    let bodies: Vec<&RawValue> =
        serde_json::from_str(functions.get()).map_err(|_| not_functions())?;
    check_count(FUNCTIONS, "functions", bodies.len())?;
    check_texts("functions", functions)?;
    let mut names = Names::default();
    let mut tools = String::with_capacity(functions.get().len() + 40 * bodies.len());
    tools.push('[');
    for (index, body) in bodies.iter().enumerate() {
        let function: Function<'_> = Some(body.get())
            .filter(|body| body.starts_with('{'))
            .and_then(|body| serde_json::from_str(body).ok())
            .ok_or_else(not_functions)?;
        let param = format!("functions[{index}].name");
        names.add(FUNCTIONS, param, function.name)?;
        if index > 0 {
            tools.push(',');
        }
        tools.push_str(r#"{"type":"function","function":"#);
        tools.push_str(body.get());
        tools.push('}');
    }
    tools.push(']');
    Ok(Functions {
        tools: RawValue::from_string(tools).map_err(|_| not_functions())?,
        names: names.into_vec(),
    })
}

/// Translates `function_call`, which says whether one of these functions is to be called.
pub(super) fn choice(choice: &RawValue, names: &[String]) -> Result<Box<RawValue>, Invalid> {
    let invalid =
        |message: String| Invalid::field("invalid_function_call", "function_call", message);
    if matches!(choice.get(), r#""none""# | r#""auto""#) {
        return Ok(choice.to_owned());
    }
    let named = Some(choice.get())
        .filter(|choice| choice.starts_with('{'))
        .and_then(|choice| serde_json::from_str::<Function<'_>>(choice).ok())
        .and_then(|function| function.name);
    let Some(name) = named else {
        let message =
            "`function_call` must be \"none\", \"auto\" or an object such as {\"name\":\"f\"}";
        return Err(invalid(message.to_owned()));
    };
    if !names.iter().any(|known| *known == name) {
        let message = "`function_call` names none of `functions`: write the name of one";
        return Err(invalid(message.to_owned()));
    }
    to_raw_value(&json!({"type": "function", "function": {"name": name}}))
        .map_err(|error| invalid(error.to_string()))
}

/// A message's fields that may be in the older form.
#[derive(Deserialize)]
struct OlderMessage<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

/// Translates messages that hold a `function_call` or answer one. Each call gets an id, and the next
/// answer to a function of that name refers to it.
pub(super) fn messages(messages: &RawValue) -> Result<Box<RawValue>, Invalid> {
    let invalid = |index: usize, field: &str, message: String| {
        Invalid::field(
            "invalid_messages",
            format!("messages[{index}].{field}"),
            message,
        )
    };
    let unreadable = |_| Invalid::field("invalid_messages", "messages", "`messages` is no array");
    let bodies: Vec<&RawValue> = serde_json::from_str(messages.get()).map_err(unreadable)?;
    let mut open: Vec<(String, Cow<'_, str>)> = Vec::new();
    let mut translated: Vec<Box<RawValue>> = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.into_iter().enumerate() {
        let older: OlderMessage<'_> = serde_json::from_str(body.get()).map_err(|_| {
            let message = format!("`messages[{index}].function_call` must be an object");
            invalid(index, "function_call", message)
        })?;
        let fields = RawFields::from_object(body.to_owned())
            .map_err(|_| invalid(index, "role", format!("`messages[{index}]` is no object")))?;
        let is_answer = older.role.as_deref() == Some("function");
        let mut added: Option<(&str, Box<RawValue>)> = None;
        if let Some(call) = older.function_call.filter(|_| older.tool_calls.is_none()) {
            let function: Option<Function<'_>> = serde_json::from_str(call.get()).ok();
            let Some(name) = function.and_then(|function| function.name) else {
                let message = format!(
                    "`messages[{index}].function_call` must be an object with a `name` and `arguments`"
                );
                return Err(invalid(index, "function_call", message));
            };
            let id = format!("call_of_message_{index}");
            let calls = json!([{"id": id, "type": "function", "function": call}]);
            open.push((id, name));
            added = to_raw_value(&calls).ok().map(|calls| ("tool_calls", calls));
        } else if is_answer {
            let name = older.name.as_deref();
            let Some(place) = open.iter().position(|(_, called)| Some(&**called) == name) else {
                let message = format!(
                    "`messages[{index}]` has the role function, and no assistant's message before it \
                     has a `function_call` of its `name`: send that message too"
                );
                return Err(invalid(index, "name", message));
            };
            let (id, _) = open.remove(place);
            added = to_raw_value(&id).ok().map(|id| ("tool_call_id", id));
        }
        let tool = to_raw_value("tool").unwrap_or_default();
        let empty = to_raw_value("").unwrap_or_default();
        let fields = fields.fields();
        let kept = fields.iter().filter_map(|(name, value)| match &**name {
            "function_call" => None,
            "name" if is_answer => None,
            // A call without a result is a call with an empty one.
            "content" if is_answer && value.get() == "null" => Some((name.clone(), &*empty)),
            "role" if is_answer => Some((name.clone(), &*tool)),
            _ => Some((name.clone(), *value)),
        });
        let added = added
            .iter()
            .map(|(name, value)| (Cow::from(*name), &**value));
        translated.push(RawFields::from_fields(kept.chain(added)).into_raw());
    }
    to_raw_value(&translated)
        .map_err(|_| Invalid::field("invalid_messages", "messages", "`messages` is no array"))
}
