//! Calls of server-side tools that a caller makes itself: the bodies of `POST /v1/tools/{name}/execute` and
//! `POST /v1/tools/execute`. Unknown fields are refused.

use baton_protocol::{GivenCall, Lane, RawFields, UseLimits};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::SubmitRequest;
use super::messages::{check_name, metadata};
use crate::error::Invalid;
use crate::json::{check_shape, read_json};

/// The most calls of one request.
pub const MAX_GIVEN_CALLS: usize = 32;

/// A call of the tool that the path names.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"arguments": {"expression": "0.15 * 847"}}))]
pub struct ExecuteCall {
    /// The arguments, as the tool's `parameters` describe them. Default: `{}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<Box<RawValue>>,
    /// Kept with the run and returned with it; at most 16 KiB.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
}

/// Several calls, which are made at the same time.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"calls": [
    {"name": "calculator", "arguments": {"expression": "0.15 * 847"}},
    {"name": "current_time", "arguments": {"timezone": "Europe/Madrid"}},
]}))]
pub struct ExecuteCalls {
    /// The calls.
    #[schema(min_items = 1, max_items = 32)]
    pub calls: Vec<ToolCallRequest>,
    /// Kept with the run and returned with it; at most 16 KiB.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
}

/// One of several calls.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolCallRequest {
    /// The tool.
    #[schema(min_length = 1, max_length = 512)]
    pub name: String,
    /// The arguments, as the tool's `parameters` describe them. Default: `{}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<Box<RawValue>>,
}

impl SubmitRequest {
    /// Reads the body of `POST /v1/tools/{name}/execute`. An empty body has no arguments.
    pub fn parse_call(name: &str, body: &[u8]) -> Result<Self, Invalid> {
        check_shape(body)?;
        let body = if body.trim_ascii().is_empty() {
            b"{}"
        } else {
            body
        };
        let body: ExecuteCall = read_json(body)?;
        let call = given(name, body.arguments.as_deref(), "")?;
        Self::of_calls(vec![call], body.metadata.as_deref())
    }

    /// Reads the body of `POST /v1/tools/execute`.
    pub fn parse_calls(body: &[u8]) -> Result<Self, Invalid> {
        check_shape(body)?;
        let body: ExecuteCalls = read_json(body)?;
        if !(1..=MAX_GIVEN_CALLS).contains(&body.calls.len()) {
            let message = format!("`calls` holds 1 to {MAX_GIVEN_CALLS} calls");
            return Err(Invalid::field("invalid_calls", "calls", message));
        }
        let calls = body.calls.iter().enumerate().map(|(at, call)| {
            let arguments = call.arguments.as_deref();
            given(&call.name, arguments, &format!("calls[{at}]."))
        });
        Self::of_calls(calls.collect::<Result<_, _>>()?, body.metadata.as_deref())
    }

    fn of_calls(calls: Vec<GivenCall>, given: Option<&RawValue>) -> Result<Self, Invalid> {
        let no_messages = RawValue::from_string("[]".to_owned());
        Ok(Self {
            agent: None,
            model: None,
            messages: no_messages
                .map_err(|error| Invalid::body("invalid_json", error.to_string()))?,
            tools: None,
            tool_names: Vec::new(),
            server_tools: Vec::new(),
            left_out: Vec::new(),
            answers: None,
            calls,
            params: RawFields::default(),
            metadata: metadata(given)?,
            shown_for_good: false,
            response: None,
            compaction: None,
            thread: None,
            lane: Lane::Interactive,
            max_turns: None,
            max_total_tokens: None,
            most: UseLimits::default(),
            on_limit: None,
        })
    }
}

/// Checks the form of a call. The worker checks the arguments against the tool's schema.
fn given(name: &str, arguments: Option<&RawValue>, place: &str) -> Result<GivenCall, Invalid> {
    check_name(&format!("{place}name"), Some(name))?;
    let arguments = arguments.map_or("{}", RawValue::get);
    if !arguments.starts_with('{') {
        let param = format!("{place}arguments");
        let message = format!("`{param}` is an object");
        return Err(Invalid::field("invalid_arguments", param, message));
    }
    Ok(GivenCall {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_arguments_or_none() {
        for (body, arguments) in [
            (r#"{"arguments":{"a":1}}"#, r#"{"a":1}"#),
            ("{}", "{}"),
            ("", "{}"),
            (r#"{"arguments":null}"#, "{}"),
        ] {
            let request = SubmitRequest::parse_call("f", body.as_bytes()).unwrap();
            assert_eq!(request.calls[0].arguments, arguments, "{body}");
            assert_eq!(request.calls[0].name, "f");
        }
    }

    #[test]
    fn refusals_name_the_place() {
        let many = format!(r#"{{"calls":[{}]}}"#, vec![r#"{"name":"f"}"#; 33].join(","));
        for (body, code, param) in [
            (r#"{"calls":[]}"#, "invalid_calls", Some("calls")),
            (&*many, "invalid_calls", Some("calls")),
            (
                r#"{"calls":[{"name":"f"},{"name":"g","arguments":[1]}]}"#,
                "invalid_arguments",
                Some("calls[1].arguments"),
            ),
            (
                r#"{"calls":[{"name":"f\n"}]}"#,
                "invalid_name",
                Some("calls[0].name"),
            ),
            (r#"{"calls":[{"name":"f","x":1}]}"#, "invalid_json", None),
            (r#"[{"name":"f"}]"#, "invalid_json", None),
        ] {
            let refused = SubmitRequest::parse_calls(body.as_bytes()).unwrap_err();
            assert_eq!(refused.code, code, "{body}");
            if param.is_some() {
                assert_eq!(refused.param.as_deref(), param, "{body}");
            }
        }
        let refused = SubmitRequest::parse_call("f", br#"{"arguments":"x"}"#).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("arguments"));
    }
}
