//! The body of `POST /v1/chat/completions`. Unknown fields are passed on to the upstream.

use std::borrow::Cow;
use std::fmt;

use baton_protocol::{Lane, UseLimits};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::SubmitRequest;
use super::legacy;
use super::messages::{check_name, metadata, read_messages};
use super::stream_options::StreamOptions;
use super::thread::{check_steering, thread};
use super::tools::{some_tools, tool_names};
use super::travelling::Travelling;
use crate::error::Invalid;
use crate::json::{check_shape, read_json};

/// A chat request: the run, and the form of its answer.
#[derive(Debug, Clone)]
pub struct ChatSubmission {
    /// The run.
    pub request: SubmitRequest,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with a chunk with the usage.
    pub include_usage: bool,
    /// Whether the answer has its calls in the older form, `function_call`, as the request had.
    pub older_calls: bool,
    /// Whether the stream stays open while the run waits for a person.
    pub waits_for_people: bool,
}

/// The body's fields, borrowed from it and mostly unparsed. (A flattened struct would parse them.)
#[derive(Default)]
#[expect(
    clippy::option_option,
    reason = "a name that is `null` is there, and may not be there again"
)]
struct Body<'a> {
    model: Option<Option<String>>,
    agent: Option<Option<String>>,
    thread_id: Option<Option<String>>,
    on_busy: Option<Option<String>>,
    on_approval: Option<Option<String>>,
    messages: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    functions: Option<&'a RawValue>,
    function_call: Option<&'a RawValue>,
    rest: Travelling<'a>,
}

/// Transparent, so that a refusal names the field: the tracker of paths sees no name within a newtype.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut body = Body::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match &*key {
                "model" => once(&mut body.model, "model", &mut map)?,
                "agent" => once(&mut body.agent, "agent", &mut map)?,
                "thread_id" => once(&mut body.thread_id, "thread_id", &mut map)?,
                "on_busy" => once(&mut body.on_busy, "on_busy", &mut map)?,
                "on_approval" => once(&mut body.on_approval, "on_approval", &mut map)?,
                "messages" => once(&mut body.messages, "messages", &mut map)?,
                "tools" => once(&mut body.tools, "tools", &mut map)?,
                "stream" => once(&mut body.stream, "stream", &mut map)?,
                "stream_options" => once(&mut body.stream_options, "stream_options", &mut map)?,
                "n" => once(&mut body.n, "n", &mut map)?,
                "functions" => once(&mut body.functions, "functions", &mut map)?,
                "function_call" => once(&mut body.function_call, "function_call", &mut map)?,
                _ => body.rest.add((key, map.next_value()?)),
            }
        }
        Ok(body)
    }
}

/// Reads a field that may occur once, because for a repeated one the intended value is unknown.
fn once<'de, T, A>(field: &mut Option<T>, name: &'static str, map: &mut A) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
    A: MapAccess<'de>,
{
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(map.next_value()?);
    Ok(())
}

impl ChatSubmission {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        check_shape(body)?;
        let mut body: Body<'_> = read_json(body)?;
        let model = body.model.flatten().filter(|model| !model.is_empty());
        let agent = body.agent.flatten();
        check_name("model", model.as_deref())?;
        check_name("agent", agent.as_deref())?;
        let thread_id = body.thread_id.flatten();
        let on_busy = body.on_busy.flatten();
        let thread = thread(thread_id.as_deref(), on_busy.as_deref())?;
        if model.is_none() && agent.is_none() {
            return Err(Invalid::field(
                "missing_model",
                "model",
                "`model` is missing: name a model, or an agent",
            ));
        }
        let messages = body.messages.ok_or_else(|| {
            Invalid::field("invalid_messages", "messages", "`messages` is missing")
        })?;
        let messages = read_messages(messages.to_owned())?;
        check_steering(thread, &messages)?;
        let functions = body.functions.filter(|functions| some_tools(functions));
        let choice = present(body.function_call);
        let (tools, tool_names) = match (body.tools.filter(|tools| some_tools(tools)), functions) {
            (Some(_), Some(_)) => return Err(both_forms("functions", "tools")),
            (Some(tools), None) => (Some(tools.to_owned()), tool_names(tools)?),
            (None, Some(functions)) => {
                let functions = legacy::functions(functions)?;
                (Some(functions.tools), functions.names)
            }
            (None, None) => (None, Vec::new()),
        };
        let older_calls = functions.is_some() || choice.is_some();
        let choice = choice
            .map(|choice| legacy::choice(choice, &tool_names))
            .transpose()?;
        if let Some(choice) = &choice {
            if present(body.rest.get("tool_choice")).is_some() {
                return Err(both_forms("function_call", "tool_choice"));
            }
            body.rest.replace("tool_choice", choice);
        }

        // The upstream is always asked for a stream of one answer; this decides the form of the
        // client's.
        let stream = read_bool(body.stream, "stream")?;
        let waits_for_people = waits_for_people(body.on_approval.flatten().as_deref(), stream)?;
        let include_usage = match present(body.stream_options) {
            None => false,
            Some(given) => {
                let options = StreamOptions::read(given)?;
                if options.has_others {
                    body.rest.replace("stream_options", given);
                }
                options.include_usage
            }
        };
        if present(body.n).is_some_and(|n| n.get() != "1") {
            let message = "`n` must be 1: a run has one answer";
            return Err(Invalid::field("unsupported_value", "n", message));
        }
        // Kept with the run and passed on too; the upstream checks its form.
        let metadata = match body.rest.get("metadata") {
            Some(object) if object.get().starts_with('{') => metadata(Some(object))?,
            _ => None,
        };
        Ok(Self {
            request: SubmitRequest {
                agent,
                model,
                messages,
                tools,
                tool_names,
                server_tools: Vec::new(),
                left_out: Vec::new(),
                answers: None,
                calls: Vec::new(),
                params: body.rest.finish()?,
                metadata,
                shown_for_good: stream,
                response: None,
                compaction: None,
                thread,
                lane: Lane::Interactive,
                max_turns: None,
                max_total_tokens: None,
                most: UseLimits::default(),
                on_limit: None,
            },
            stream,
            include_usage: stream && include_usage,
            older_calls,
            waits_for_people,
        })
    }
}

/// Reads `on_approval`. An answer in one piece cannot show that it is still awaited.
fn waits_for_people(on_approval: Option<&str>, stream: bool) -> Result<bool, Invalid> {
    let invalid = |message| Invalid::field("invalid_on_approval", "on_approval", message);
    match on_approval {
        None | Some("end") => Ok(false),
        Some("wait") if stream => Ok(true),
        Some("wait") => Err(invalid(
            "`on_approval` can be `wait` with `\"stream\": true` alone",
        )),
        Some(_) => Err(invalid("`on_approval` is `end` or `wait`")),
    }
}

/// Refuses a request in both forms: nobody knows which one is meant.
fn both_forms(older: &str, newer: &str) -> Invalid {
    let message = format!("`{older}` is the older form of `{newer}`: write `{newer}` alone");
    Invalid::field("conflicting_fields", older, message)
}

/// Returns a value, unless it is `null`.
fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

pub(super) fn read_bool(value: Option<&RawValue>, name: &str) -> Result<bool, Invalid> {
    match present(value).map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(not_a_bool(name)),
    }
}

fn not_a_bool(name: &str) -> Invalid {
    let message = format!("`{name}` must be true or false");
    Invalid::field("invalid_type", name, message)
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
        assert_eq!(
            chat.request.params.as_raw().get(),
            r#"{"temperature":0.5,"x_vendor":{"a":[1]}}"#
        );
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
            (format!(r#"{{"model":7,{messages}}}"#), Some("model")),
            (format!(r#"{{"model":"m",{messages},"n":2}}"#), Some("n")),
            (
                format!(r#"{{"model":"m",{messages},"on_approval":"wait"}}"#),
                Some("on_approval"),
            ),
            (
                format!(r#"{{"model":"m",{messages},"stream":true,"on_approval":"ask"}}"#),
                Some("on_approval"),
            ),
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
                format!(r#"{{"model":"m",{messages},"functions":[7]}}"#),
                Some("functions"),
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
    fn a_stream_waits_for_people_if_it_is_asked_to() {
        for (given, waits) in [
            (r#","on_approval":"wait""#, true),
            (r#","on_approval":"end""#, false),
            (r#","on_approval":null"#, false),
            ("", false),
        ] {
            let chat = parse(&format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"stream":true{given}}}"#
            ));
            let chat = chat.unwrap();
            assert_eq!(chat.waits_for_people, waits, "{given}");
            assert_eq!(
                chat.request.params.as_raw().get(),
                "{}",
                "it is not passed on"
            );
        }
    }

    #[test]
    fn null_is_absent() {
        let chat = parse(
            r#"{"model":"m","messages":[{"role":"user","content":null}],"tools":null,"n":null,"stream":null,"stream_options":null,"metadata":null,
                "functions":null,"function_call":null,"agent":null}"#,
        )
        .unwrap();
        assert!(!chat.stream && !chat.older_calls && chat.request.tools.is_none());
    }

    #[test]
    fn a_text_that_is_none_is_refused_by_its_field_wherever_it_is() {
        let messages = r#""messages":[{"role":"user","content":"x"}]"#;
        for (body, param) in [
            (
                r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"user","content":"\ud800"}]}"#.to_owned(),
                "messages[1]",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\udc00x"}]}]}"#.to_owned(),
                "messages[0]",
            ),
            (format!(r#"{{"model":"\ud800",{messages}}}"#), "model"),
            (
                format!(
                    r#"{{"model":"m",{messages},"tools":[{{"type":"function","function":{{"name":"f","description":"\ud800"}}}}]}}"#
                ),
                "tools[0]",
            ),
            (
                format!(r#"{{"model":"m",{messages},"functions":[{{"name":"f","description":"\ud800"}}]}}"#),
                "functions[0]",
            ),
        ] {
            let refused = parse(&body).unwrap_err();
            assert_eq!(
                (refused.code, refused.param.as_deref()),
                ("invalid_json", Some(param)),
                "{body}: {}", refused.message
            );
            assert!(refused.message.contains("surrogate"), "{}", refused.message);
        }
        for native in [
            r#"{"model":"m","input":"\ud800"}"#,
            r#"{"model":"m","messages":[{"role":"user","content":"\ud800"}]}"#,
        ] {
            let refused = SubmitRequest::parse_native(native.as_bytes()).unwrap_err();
            assert_eq!(refused.code, "invalid_json");
            let param = refused.param.unwrap();
            assert!(["input", "messages[0]"].contains(&&*param), "{param}");
            assert!(refused.message.contains("surrogate"), "{}", refused.message);
        }
        assert!(
            parse(r#"{"model":"m","messages":[{"role":"user","content":"\ud83d\ude00"}]}"#).is_ok()
        );
    }

    #[test]
    fn functions_are_translated_into_tools() {
        let chat = parse(
            r#"{"model":"m","functions":[{"name":"f","parameters":{"b":1,"a":2}}],"function_call":{"name":"f"},
                "messages":[{"role":"user","content":"x"},
                    {"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},
                    {"role":"function","name":"f","content":"42"}]}"#,
        )
        .unwrap();
        assert!(chat.older_calls);
        assert_eq!(chat.request.tool_names, ["f"]);
        assert_eq!(
            chat.request.tools.unwrap().get(),
            r#"[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2}}}]"#
        );
        assert_eq!(
            chat.request.params.as_raw().get(),
            r#"{"tool_choice":{"function":{"name":"f"},"type":"function"}}"#
        );
        let messages: Vec<serde_json::Value> =
            serde_json::from_str(chat.request.messages.get()).unwrap();
        assert_eq!(
            messages[0],
            serde_json::json!({"role": "user", "content": "x"})
        );
        assert_eq!(
            messages[1],
            serde_json::json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_of_message_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})
        );
        assert_eq!(
            messages[2],
            serde_json::json!({"role": "tool", "content": "42", "tool_call_id": "call_of_message_1"})
        );
    }

    #[test]
    fn what_cannot_be_translated_is_refused_by_name() {
        let messages = r#""messages":[{"role":"user","content":"x"}]"#;
        for (rest, code, param) in [
            (r#""functions":7"#, "invalid_functions", "functions"),
            (
                r#""functions":[{"name":"a b"}]"#,
                "invalid_functions",
                "functions[0].name",
            ),
            (
                r#""functions":[{"name":"a"},{"name":"a"}]"#,
                "invalid_functions",
                "functions[1].name",
            ),
            (
                r#""functions":[{"name":"a"}],"tools":[{"type":"web_search"}]"#,
                "conflicting_fields",
                "functions",
            ),
            (
                r#""functions":[{"name":"a"}],"function_call":"required""#,
                "invalid_function_call",
                "function_call",
            ),
            (
                r#""functions":[{"name":"a"}],"function_call":{"name":"b"}"#,
                "invalid_function_call",
                "function_call",
            ),
            (
                r#""functions":[{"name":"a"}],"function_call":"auto","tool_choice":"auto""#,
                "conflicting_fields",
                "function_call",
            ),
        ] {
            let refused = parse(&format!(r#"{{"model":"m",{messages},{rest}}}"#)).unwrap_err();
            assert_eq!(
                (refused.code, refused.param.as_deref()),
                (code, Some(param)),
                "{rest}"
            );
        }
        let unasked =
            parse(r#"{"model":"m","messages":[{"role":"function","name":"f","content":"1"}]}"#);
        assert_eq!(
            unasked.unwrap_err().param.as_deref(),
            Some("messages[0].name")
        );
        let nameless =
            parse(r#"{"model":"m","messages":[{"role":"assistant","function_call":{}}]}"#);
        assert_eq!(
            nameless.unwrap_err().param.as_deref(),
            Some("messages[0].function_call")
        );
    }

    #[test]
    fn names_of_client_tools_are_known() {
        let chat = parse(
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],
                "tools":[{"type":"function","function":{"name":"look_up","parameters":{}}},{"type":"web_search"}]}"#,
        )
        .unwrap();
        assert_eq!(chat.request.tool_names, ["look_up"]);
        let of_upstream = parse(
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],
                "tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]}"#,
        );
        let names = of_upstream.unwrap().request.tool_names;
        assert_eq!(names, ["$web_search"]);
    }

    #[test]
    fn a_custom_tool_is_refused_with_the_words_to_write_instead() {
        let custom = r#""tools":[{"type":"web_search"},{"type":"custom","custom":{"name":"sql"}}]"#;
        let chat =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{custom}}}"#);
        let run = format!(r#"{{"model":"m","input":"x",{custom}}}"#);
        for refused in [
            parse(&chat).map(drop),
            SubmitRequest::parse_native(run.as_bytes()).map(drop),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(
                (refused.code, refused.param.as_deref()),
                ("unsupported_value", Some("tools[1].type"))
            );
            assert!(
                refused.message.contains("\"function\""),
                "{}",
                refused.message
            );
        }
    }
}
