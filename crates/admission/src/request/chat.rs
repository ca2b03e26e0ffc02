//! The body of `POST /v1/chat/completions`. Fields that Baton does not know travel to the upstream.

use std::fmt;

use baton_protocol::Lane;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::SubmitRequest;
use super::messages::{check_messages, check_name, metadata, tool_names};
use crate::error::Invalid;
use crate::json::{check_depth, read_json};

/// A chat request: the run it asks for, and how the answer is to be told.
#[derive(Debug, Clone)]
pub struct ChatSubmission {
    /// The run.
    pub request: SubmitRequest,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with a chunk that holds the usage.
    pub include_usage: bool,
}

/// The body's fields: the large ones unparsed. (A flattened struct would parse them.)
#[derive(Default)]
struct Body {
    model: Option<String>,
    agent: Option<String>,
    messages: Option<Box<RawValue>>,
    tools: Option<Box<RawValue>>,
    rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "model" => body.model = map.next_value()?,
                "agent" => body.agent = map.next_value()?,
                "messages" => body.messages = Some(map.next_value()?),
                "tools" => body.tools = Some(map.next_value()?),
                "functions" | "function_call" => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(A::Error::custom(format!(
                        "`{key}` is not supported: use `tools` and `tool_choice`"
                    )));
                }
                _ => {
                    body.rest.insert(key, map.next_value()?);
                }
            }
        }
        Ok(body)
    }
}

impl ChatSubmission {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        check_depth(body)?;
        let mut body: Body = read_json(body)?;
        let model = body.model.filter(|model| !model.is_empty());
        check_name("model", model.as_deref())?;
        check_name("agent", body.agent.as_deref())?;
        if model.is_none() && body.agent.is_none() {
            return Err(Invalid::field(
                "missing_model",
                "model",
                "`model` is missing: name a model, or an agent",
            ));
        }
        let messages = body.messages.ok_or_else(|| {
            Invalid::field("invalid_messages", "messages", "`messages` is missing")
        })?;
        check_messages(&messages)?;
        let tools = body.tools.filter(|tools| tools.get() != "null");
        let tool_names = tools
            .as_deref()
            .map(tool_names)
            .transpose()?
            .unwrap_or_default();

        // The upstream is always asked for a stream of one answer: what the caller is given is
        // decided here.
        let stream = read_bool(body.rest.remove("stream").as_ref(), "stream")?;
        let include_usage = match body.rest.remove("stream_options") {
            None | Some(Value::Null) => false,
            Some(Value::Object(options)) => {
                read_bool(options.get("include_usage"), "stream_options.include_usage")?
            }
            Some(_) => {
                let message = "`stream_options` must be an object";
                return Err(Invalid::field("invalid_type", "stream_options", message));
            }
        };
        match body.rest.remove("n") {
            None | Some(Value::Null) => {}
            Some(n) if n.as_u64() == Some(1) => {}
            Some(_) => {
                let message = "`n` must be 1: a run has one answer";
                return Err(Invalid::field("unsupported_value", "n", message));
            }
        }
        // Kept with the run and passed on too; the upstream says whether it is a proper one.
        let metadata = match body.rest.get("metadata") {
            Some(object @ Value::Object(_)) => metadata(object.clone())?,
            _ => None,
        };
        Ok(Self {
            request: SubmitRequest {
                agent: body.agent,
                model,
                messages,
                tools,
                tool_names,
                params: body.rest,
                metadata,
                lane: Lane::Interactive,
                max_turns: None,
                max_total_tokens: None,
            },
            stream,
            include_usage: stream && include_usage,
        })
    }
}

fn read_bool(value: Option<&Value>, name: &str) -> Result<bool, Invalid> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(Invalid::field(
            "invalid_type",
            name,
            format!("`{name}` must be true or false"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<ChatSubmission, Invalid> {
        ChatSubmission::parse(body.as_bytes())
    }

    #[test]
    fn unknown_fields_travel_and_known_ones_do_not() {
        let chat = parse(
            r#"{"model":"m","messages":[ {"role":"user","content":"hi"} ],"stream":true,"n":1,
                "stream_options":{"include_usage":true},"temperature":0.5,"x_vendor":{"a":[1]}}"#,
        )
        .unwrap();
        assert!(chat.stream && chat.include_usage);
        let keys: Vec<_> = chat.request.params.keys().map(String::as_str).collect();
        assert_eq!(keys, ["temperature", "x_vendor"]);
        assert_eq!(
            chat.request.messages.get(),
            r#"[ {"role":"user","content":"hi"} ]"#,
            "messages stay as they were written"
        );
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
        for (body, param) in [
            (format!("{{{messages}}}"), Some("model")),
            (r#"{"model":"m"}"#.to_owned(), Some("messages")),
            (
                r#"{"model":"m","messages":[]}"#.to_owned(),
                Some("messages"),
            ),
            (
                r#"{"model":"m","messages":"hi"}"#.to_owned(),
                Some("messages"),
            ),
            (
                r#"{"model":"m","messages":[{"role":"user"},{"role":"x"}]}"#.to_owned(),
                Some("messages[1].role"),
            ),
            (format!(r#"{{"model":"m",{messages},"n":2}}"#), Some("n")),
            (
                format!(r#"{{"model":"m",{messages},"stream":"yes"}}"#),
                Some("stream"),
            ),
            (
                format!(
                    r#"{{"model":"m",{messages},"tools":[{{"type":"function","function":{{}}}}]}}"#
                ),
                Some("tools[0].function.name"),
            ),
            (
                format!(r#"{{"model":"m",{messages},"functions":[]}}"#),
                None,
            ),
            (format!(r#"{{"model":"m",{messages}"#), None),
            ("[]".to_owned(), None),
            (
                format!(r#"{{"model":"m\u0000",{messages}}}"#),
                Some("model"),
            ),
            (
                format!(r#"{{"agent":"{}",{messages}}}"#, "a".repeat(600)),
                Some("agent"),
            ),
        ] {
            assert_eq!(parse(&body).unwrap_err().param.as_deref(), param, "{body}");
        }
    }

    #[test]
    fn null_is_absent() {
        let chat = parse(
            r#"{"model":"m","messages":[{"role":"user","content":null}],"tools":null,"n":null,"stream":null,"stream_options":null,"metadata":null}"#,
        )
        .unwrap();
        assert!(!chat.stream && chat.request.tools.is_none());
    }

    #[test]
    fn names_of_client_tools_are_known() {
        let chat = parse(
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],
                "tools":[{"type":"function","function":{"name":"look_up","parameters":{}}},{"type":"web_search"}]}"#,
        )
        .unwrap();
        assert_eq!(chat.request.tool_names, ["look_up"]);
    }
}
