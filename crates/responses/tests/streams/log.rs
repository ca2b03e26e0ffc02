//! A run's log, written by hand.

use baton_protocol::event::{
    AnswerField, AnswerPart, ApprovalRequested, AttemptReset, ContextCompacted, RunCancelled,
    RunCompleted, RunFailed, RunStarted, Text, ToolCallDelta, ToolFinished, ToolStarted,
};
use baton_protocol::{Effect, ToolDescription, ToolSource};
use baton_protocol::{Event, EventData, EventId, FinishReason, RunError, RunId, Usage};
use baton_responses::{
    CreateResponse, McpServer, McpTool, ResponseHead, ResponseStream, SequenceNumber,
};
use bytes::BytesMut;
use chrono::DateTime;
use serde_json::value::RawValue;

pub(crate) const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

pub(crate) fn run() -> RunId {
    RUN.parse().unwrap()
}

/// The MCP servers that there are.
pub(crate) fn servers() -> Vec<McpServer> {
    let server = |label: &str, tools: &[&str]| McpServer {
        label: label.into(),
        address: Some(format!("https://{label}.example/mcp")),
        trusts_hints: label == "crm",
        tools: tools
            .iter()
            .map(|name| McpTool {
                name: (*name).into(),
                offered: format!("{label}__{name}"),
            })
            .collect(),
    };
    vec![server("crm", &["find", "pay"]), server("gone", &["run"])]
}

/// A tool as a worker describes it.
pub(crate) fn described(offered: &str) -> ToolDescription {
    let gone = offered
        .starts_with("gone")
        .then(|| "the MCP server `gone` cannot be used".into());
    let hints = format!(r#"{{"readOnlyHint":{}}}"#, offered.ends_with("find"));
    ToolDescription {
        name: offered.into(),
        description: "Does something".into(),
        parameters: RawValue::from_string(r#"{"type":"object"}"#.into()).unwrap(),
        source: ToolSource::Mcp,
        effect: Effect::AtMostOnce,
        timeout_ms: 1_000,
        approval_required: false,
        annotations: Some(RawValue::from_string(hints).unwrap()),
        unavailable: gone,
    }
}

/// A head for a request with these fields.
pub(crate) fn head(fields: &str) -> ResponseHead {
    let body = format!(r#"{{"model":"m","input":"hi"{fields}}}"#);
    let mut request = CreateResponse::parse(body.as_bytes()).unwrap();
    let wanted = request.wanted_tools(&servers()).unwrap();
    let tools: Vec<_> = wanted.iter().map(|name| described(name)).collect();
    request.offer_tools(&servers(), Ok(&tools)).unwrap();
    ResponseHead {
        run: run(),
        created_at: 1_780_000_000,
        model: "m".to_owned(),
        settings: request.settings,
        metadata: request.metadata.map(baton_protocol::RawFields::into_raw),
    }
}

/// A log that grows by an event at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Event>,
    attempt: u32,
    n: u32,
    pub(crate) step: u32,
}

impl Log {
    pub(crate) fn begun() -> Self {
        let mut log = Self {
            attempt: 1,
            step: 1,
            ..Self::default()
        };
        log.push(EventData::RunStarted(RunStarted {
            model: "m".into(),
            agent: "default".into(),
        }));
        log
    }

    pub(crate) fn last(&self) -> EventId {
        self.events.last().map_or(EventId::ORIGIN, |event| event.id)
    }

    pub(crate) fn push(&mut self, data: EventData) -> &mut Self {
        self.n += 1;
        self.events.push(Event {
            id: EventId::new(self.attempt, self.n),
            prev: self.last(),
            run_id: run(),
            step: self.step,
            at: DateTime::from_timestamp(1_780_000_007, 0).unwrap(),
            data,
        });
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.push(EventData::TextDelta(Text { text: text.into() }))
    }

    pub(crate) fn reasoning(&mut self, text: &str) -> &mut Self {
        self.push(EventData::ReasoningDelta(Text { text: text.into() }))
    }

    pub(crate) fn refusal(&mut self, text: &str) -> &mut Self {
        self.push(EventData::RefusalDelta(Text { text: text.into() }))
    }

    pub(crate) fn call(&mut self, index: u32, first: bool, arguments: &str) -> &mut Self {
        self.push(EventData::ToolCallDelta(ToolCallDelta {
            index,
            id: first.then(|| format!("call_{index}")),
            name: first.then(|| "weather".into()),
            arguments: arguments.into(),
        }))
    }

    pub(crate) fn counts(&mut self, name: &str, json: &str) -> &mut Self {
        self.push(EventData::AnswerField(AnswerField {
            of: AnswerPart::Usage,
            name: name.into(),
            json: json.into(),
            more: false,
        }))
    }

    pub(crate) fn turn_recorded(&mut self) -> &mut Self {
        self.push(EventData::Usage(tokens(7, 2)))
    }

    /// Shows a whole call of a server's tool, as the next step.
    pub(crate) fn server_call(&mut self, result: &str) -> &mut Self {
        self.step += 1;
        let call_id = format!("call_s{}", self.step);
        self.push(EventData::ToolStarted(ToolStarted {
            call_id: call_id.clone(),
            name: "calculator".into(),
            arguments: r#"{"expression":"6*7"}"#.into(),
            edited: false,
        }));
        self.push(EventData::ToolFinished(ToolFinished {
            call_id,
            name: "calculator".into(),
            ok: true,
            result: result.into(),
            duration_ms: 3,
        }))
    }

    /// Shows the beginning of a call of an MCP server's tool.
    pub(crate) fn mcp_started(&mut self, step: u32, name: &str) -> &mut Self {
        self.step = step;
        self.push(EventData::ToolStarted(ToolStarted {
            call_id: format!("call_m{step}"),
            name: name.into(),
            arguments: r#"{"of":"Ada"}"#.into(),
            edited: false,
        }))
    }

    /// Shows the end of a call of an MCP server's tool.
    pub(crate) fn mcp_finished(&mut self, step: u32, name: &str, ok: bool) -> &mut Self {
        self.step = step;
        self.push(EventData::ToolFinished(ToolFinished {
            call_id: format!("call_m{step}"),
            name: name.into(),
            ok,
            result: "found".into(),
            duration_ms: 3,
        }))
    }

    /// Shows a question about a call of an MCP server's tool.
    pub(crate) fn asked(&mut self, step: u32, name: &str, reason: &str) -> &mut Self {
        self.step = step;
        self.push(EventData::ApprovalRequested(ApprovalRequested {
            approval_id: RUN.parse().unwrap(),
            call_id: format!("call_m{step}"),
            name: name.into(),
            arguments: r#"{"of":"Ada"}"#.into(),
            reason: reason.into(),
            expires_at: None,
            input: None,
        }))
    }

    /// Shows a summary, as the next step.
    pub(crate) fn compacted(&mut self) -> &mut Self {
        self.step += 1;
        let usage = tokens(900, 40);
        self.push(EventData::ContextCompacted(ContextCompacted { usage }))
    }

    pub(crate) fn next_step(&mut self) -> &mut Self {
        self.step += 1;
        self
    }

    /// A worker was lost; another one resumes after `id`.
    pub(crate) fn lost(&mut self, resume_after: EventId) -> &mut Self {
        self.attempt += 1;
        self.n = 0;
        self.reset(resume_after)
    }

    /// Everything after `id` is withdrawn.
    pub(crate) fn reset(&mut self, resume_after: EventId) -> &mut Self {
        self.push(EventData::AttemptReset(AttemptReset {
            resume_after,
            continues: false,
        }))
    }

    pub(crate) fn completed(&mut self, finish_reason: FinishReason) -> &mut Self {
        self.push(EventData::RunCompleted(RunCompleted {
            finish_reason,
            usage: tokens(14, 5),
        }))
    }

    pub(crate) fn failed(&mut self, code: &str) -> &mut Self {
        self.push(EventData::RunFailed(RunFailed {
            error: RunError::new(code, "the model server fell silent"),
            usage: Usage::default(),
        }))
    }

    pub(crate) fn cancelled(&mut self) -> &mut Self {
        self.push(EventData::RunCancelled(RunCancelled {
            reason: "by request".into(),
            usage: tokens(7, 1),
            cancel_latency_ms: None,
        }))
    }
}

pub(crate) fn tokens(prompt: u64, completion: u64) -> Usage {
    Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        estimated: false,
    }
}

/// The stream of a log, without the frames up to `after`.
pub(crate) fn stream(
    head: ResponseHead,
    events: &[Event],
    after: Option<SequenceNumber>,
    rebuilt: bool,
) -> String {
    let mut stream = ResponseStream::new(head, after);
    if rebuilt {
        stream = stream.rebuilt();
    }
    let mut out = BytesMut::new();
    stream.begin(&mut out);
    for event in events {
        if matches!(event.data, EventData::ContextCompacted(_)) {
            stream.use_summary("c2VhbGVk".to_owned());
        }
        stream.write(&mut out, event);
    }
    String::from_utf8(out.to_vec()).unwrap()
}
