//! The body of `POST /v1/runs`. Unknown fields are refused; `params` is passed on.

use baton_protocol::{InvalidLimit, Lane, OnLimit, RawFields, RequestLimits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::SubmitRequest;
use super::messages::{check_name, metadata, read_messages};
use super::thread::{check_steering, thread};
use super::tools::{some_tools, tool_names};
use super::travelling;
use crate::error::Invalid;
use crate::json::{check_shape, read_json};

/// A request for a run. `agent` or `model`, and `messages` or `input`, must be there.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "gpt-4o-mini", "input": "What is 15% of 847?"}))]
pub struct NativeRequest {
    /// The agent to run.
    #[serde(default)]
    #[schema(max_length = 512)]
    pub agent: Option<String>,
    /// The model to ask, or an agent's name.
    #[serde(default)]
    #[schema(max_length = 512)]
    pub model: Option<String>,
    /// The conversation so far: OpenAI chat messages.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>, max_items = 100_000)]
    pub messages: Option<Box<RawValue>>,
    /// In place of `messages`: the text of one user message.
    #[serde(default)]
    pub input: Option<String>,
    /// The caller's own tools, as OpenAI tool objects. A call of one ends the run with the finish
    /// reason `tool_calls`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    pub tools: Option<Box<RawValue>>,
    /// Anything else for the upstream, such as `temperature`; with `metadata` at most 64 KiB.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub params: Option<Box<RawValue>>,
    /// Kept with the run and returned with it; at most 16 KiB.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// `interactive` unless said.
    #[serde(default)]
    pub lane: Option<Lane>,
    /// The thread that the run continues: it begins with the messages of the thread, and its own are
    /// appended when it ends.
    #[serde(default)]
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    pub thread_id: Option<String>,
    /// The rule for a thread with a run that has not ended: `reject` refuses this one with 409
    /// `thread_busy`, `queue` lets it wait, `interrupt` cancels the others, `rollback` does too and
    /// removes what they said, `steer` sends the message to the run that works. Default: `reject`.
    #[serde(default)]
    #[schema(pattern = "^(reject|queue|interrupt|rollback|steer)$")]
    pub on_busy: Option<String>,
    /// Model turns at most.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_turns: Option<u32>,
    /// Tokens over all turns at most.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_total_tokens: Option<u64>,
    /// The most that the run may use up; of these and the agent's the smaller hold.
    #[serde(default)]
    pub limits: Option<RequestLimits>,
    /// The effect of reaching `max_tokens`, `max_cost` or `max_tool_calls`. Default: the agent's, else `stop`.
    #[serde(default)]
    pub on_limit: Option<OnLimit>,
}

#[derive(Serialize)]
struct UserMessage<'a> {
    role: &'static str,
    content: &'a str,
}

/// Fields of the request itself, which `params` may not set.
const RESERVED: [&str; 8] = [
    "model",
    "messages",
    "tools",
    "stream",
    "stream_options",
    "n",
    "functions",
    "function_call",
];

impl SubmitRequest {
    /// Reads the body of `POST /v1/runs`.
    pub fn parse_native(body: &[u8]) -> Result<Self, Invalid> {
        check_shape(body)?;
        Self::from_native(read_json(body)?)
    }

    /// Reads the same body from a program that submitted it to a lane. If the body names a lane, it
    /// must be that one.
    pub fn parse_submitted(body: &[u8], lane: Lane) -> Result<Self, Invalid> {
        check_shape(body)?;
        let mut body: NativeRequest = read_json(body)?;
        if body.lane.replace(lane).is_some_and(|own| own != lane) {
            let message = format!("`lane` is not {lane}, the lane that this was published to");
            return Err(Invalid::field("invalid_lane", "lane", message));
        }
        // The run's id would name no run.
        if body.on_busy.as_deref() == Some("steer") {
            let message = "a program sends a message to a run with control.<tenant>.<key>.steer";
            return Err(Invalid::field("invalid_on_busy", "on_busy", message));
        }
        Self::from_native(body)
    }

    fn from_native(body: NativeRequest) -> Result<Self, Invalid> {
        let thread = thread(body.thread_id.as_deref(), body.on_busy.as_deref())?;
        if body.model.as_deref().is_none_or(str::is_empty) && body.agent.is_none() {
            let message = "`model` or `agent` is missing: one of them must be named";
            return Err(Invalid::field("missing_model", "model", message));
        }
        check_name("model", body.model.as_deref())?;
        check_name("agent", body.agent.as_deref())?;
        let messages = match (body.messages, body.input) {
            (Some(messages), None) => messages,
            (None, Some(input)) => {
                let message = [UserMessage {
                    role: "user",
                    content: &input,
                }];
                serde_json::value::to_raw_value(&message)
                    .map_err(|error| Invalid::body("invalid_json", error.to_string()))?
            }
            (Some(_), Some(_)) => {
                let message = "`messages` and `input` exclude one another";
                return Err(Invalid::field("invalid_messages", "input", message));
            }
            (None, None) => {
                let message = "`messages` or `input` is missing";
                return Err(Invalid::field("invalid_messages", "messages", message));
            }
        };
        let messages = read_messages(messages)?;
        check_steering(thread, &messages)?;
        let tools = body.tools.filter(|tools| some_tools(tools));
        let tool_names = tools
            .as_deref()
            .map(tool_names)
            .transpose()?
            .unwrap_or_default();
        let params = travelling::params(body.params, body.metadata.as_deref())?;
        let params = without_reserved(params)?;
        for (name, zero) in [
            ("max_turns", body.max_turns == Some(0)),
            ("max_total_tokens", body.max_total_tokens == Some(0)),
        ] {
            if zero {
                let message = format!("`{name}` must be at least 1");
                return Err(Invalid::field("invalid_limit", name, message));
            }
        }
        let most = body.limits.unwrap_or_default().read();
        let most = most.map_err(|InvalidLimit { field, message }| {
            let param = format!("limits.{field}");
            let message = message.replacen(field, &param, 1);
            Invalid::field("invalid_limit", param, message)
        })?;
        Ok(Self {
            agent: body.agent,
            model: body.model.filter(|model| !model.is_empty()),
            messages,
            tools,
            tool_names,
            server_tools: Vec::new(),
            left_out: Vec::new(),
            answers: None,
            calls: Vec::new(),
            params,
            metadata: metadata(body.metadata.as_deref())?,
            thread,
            lane: body.lane.unwrap_or_default(),
            max_turns: body.max_turns,
            shown_for_good: false,
            response: None,
            compaction: None,
            max_total_tokens: body.max_total_tokens,
            most,
            on_limit: body.on_limit,
        })
    }
}

/// Refuses the request's own fields among the parameters. One that is `null` is absent.
fn without_reserved(params: RawFields) -> Result<RawFields, Invalid> {
    let fields = params.fields();
    let is_reserved = |name: &str| RESERVED.contains(&name);
    if !fields.iter().any(|(name, _)| is_reserved(name)) {
        drop(fields);
        return Ok(params);
    }
    let mut kept = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if !is_reserved(&name) {
            kept.push((name, value));
        } else if value.get() != "null" {
            let message = match &*name {
                "functions" => "`params.functions` is the older form of `tools`, a field of the \
                                request: write `tools`"
                    .to_owned(),
                "function_call" => {
                    "`params.function_call` is the older form of `tool_choice`: write \
                                    `params.tool_choice`"
                        .to_owned()
                }
                _ => format!("`params.{name}` is a field of the request, not a parameter"),
            };
            let param = format!("params.{name}");
            return Err(Invalid::field("invalid_params", param, message));
        }
    }
    Ok(RawFields::from_fields(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<SubmitRequest, Invalid> {
        SubmitRequest::parse_native(body.as_bytes())
    }

    #[test]
    fn input_is_one_user_message() {
        let request = parse(r#"{"model":"m","input":"say \"hi\"","params":{"seed":1}}"#).unwrap();
        assert_eq!(
            request.messages.get(),
            r#"[{"role":"user","content":"say \"hi\""}]"#
        );
        assert_eq!(request.params.read("seed"), Some(1));
    }

    #[test]
    fn refusals_say_which_field() {
        for (body, code) in [
            (r#"{"model":"m","input":"x","colour":1}"#, "invalid_json"),
            (
                r#"{"model":"m","input":"x","params":{"functions":[]}}"#,
                "invalid_params",
            ),
            (r#"{"input":"x"}"#, "missing_model"),
            (r#"{"model":"m"}"#, "invalid_messages"),
            (
                r#"{"model":"m","input":"x","messages":[{"role":"user"}]}"#,
                "invalid_messages",
            ),
            (
                r#"{"model":"m","input":"x","thread_id":"t"}"#,
                "invalid_thread_id",
            ),
            (
                r#"{"model":"m","input":"x","on_busy":"queue"}"#,
                "invalid_on_busy",
            ),
            (
                r#"{"model":"m","input":"x","on_busy":"wait",
                    "thread_id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#,
                "invalid_on_busy",
            ),
            (
                r#"{"model":"m","input":"x","params":{"stream":false}}"#,
                "invalid_params",
            ),
            (
                r#"{"model":"m","input":"x","max_turns":0}"#,
                "invalid_limit",
            ),
            (
                r#"{"model":"m","input":"x","limits":{"max_cost":"0"}}"#,
                "invalid_limit",
            ),
            (
                r#"{"model":"m","input":"x","limits":{"max_tokens":-1}}"#,
                "invalid_json",
            ),
            (
                r#"{"model":"m","input":"x","limits":{"max_pages":1}}"#,
                "invalid_json",
            ),
            (
                r#"{"model":"m","input":"x","on_limit":"explode"}"#,
                "invalid_json",
            ),
            (
                r#"{"model":"m","input":"x","metadata":[1]}"#,
                "invalid_metadata",
            ),
            (r#"{"model":"m","input":"x","lane":"fast"}"#, "invalid_json"),
            (r#"{"model":"m\n","input":"x"}"#, "invalid_name"),
            (r#"{"agent":"\u0000","input":"x"}"#, "invalid_name"),
        ] {
            assert_eq!(parse(body).unwrap_err().code, code, "{body}");
        }
    }

    #[test]
    fn null_is_absent() {
        let request = parse(
            r#"{"model":"m","input":"x","messages":null,"tools":null,"agent":null,"metadata":null,
                "lane":null,"max_turns":null,"limits":null,"on_limit":null,"thread_id":null,"on_busy":null,
                "params":{"stream":null,"functions":null,"function_call":null,"seed":1}}"#,
        );
        let request = request.unwrap();
        assert!(request.tools.is_none());
        assert_eq!(request.params.as_raw().get(), r#"{"seed":1}"#);
    }

    #[test]
    fn the_lane_of_a_submission_is_the_one_that_it_was_published_to() {
        let submitted =
            |body: &str| SubmitRequest::parse_submitted(body.as_bytes(), Lane::Background);
        for body in [
            r#"{"model":"m","input":"x"}"#,
            r#"{"model":"m","input":"x","lane":"background"}"#,
        ] {
            assert_eq!(submitted(body).unwrap().lane, Lane::Background, "{body}");
        }
        let other = submitted(r#"{"model":"m","input":"x","lane":"interactive"}"#);
        assert_eq!(other.unwrap_err().code, "invalid_lane");
    }

    #[test]
    fn metadata_has_a_size() {
        let body = |size: usize| {
            format!(
                r#"{{"model":"m","input":"x","metadata":{{"k":"{}"}}}}"#,
                "v".repeat(size)
            )
        };
        assert!(parse(&body(1_000)).is_ok());
        assert_eq!(parse(&body(20_000)).unwrap_err().code, "invalid_metadata");
    }
}
