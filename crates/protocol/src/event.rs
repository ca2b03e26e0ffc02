//! Events: the visible progress of a run, stored on `events.<tenant>.<run>` and followed on
//! `live.<tenant>.<run>`.
//!
//! An event's id is `attempt * 2^32 + n`: the attempt comes from the ledger, `n` is dense within it
//! and begins at 1. Each event names its predecessor in the log, so that a reader notices a missed
//! one. The first event of every attempt after the first is [`EventData::AttemptReset`]: it names
//! the id that the attempt resumes after, and withdraws every later event. Within an attempt it
//! withdraws a turn that broke off, before the worker asks the model again.
//!
//! One message carries one or more events of one run, a line of JSON each. Events that were made
//! while the previous message was being stored share the next one.

pub mod description;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::event_id::EventId;
use crate::ids::{ApprovalId, MessageId, RunId};
use crate::input::RequestedInput;
use crate::limits::{RequestLimits, UsedUp};
use crate::run::{FinishReason, RunError};
use crate::usage::Usage;

/// One event of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its position; the attempt is part of it.
    pub id: EventId,
    /// The event before it in the log, of any attempt; [`EventId::ORIGIN`] for the first.
    pub prev: EventId,
    /// The run.
    pub run_id: RunId,
    /// The step of the run's ledger that it belongs to.
    pub step: u32,
    /// The time at which it was made, by the worker's clock: for people only, because no decision
    /// depends on it.
    pub at: DateTime<Utc>,
    /// Its content.
    pub data: EventData,
}

/// The most text in one event: a message holds at most a mebibyte, and JSON may write one byte of
/// text as six.
pub const MAX_TEXT: usize = 96 << 10;

/// The content of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum EventData {
    /// A worker has begun.
    RunStarted(RunStarted),
    /// A new attempt has begun, or asks the model again for a turn that broke off.
    AttemptReset(AttemptReset),
    /// The model wrote text.
    TextDelta(Text),
    /// The model showed its reasoning.
    ReasoningDelta(Text),
    /// The model wrote a refusal.
    RefusalDelta(Text),
    /// The model calls a tool of the client's.
    ToolCallDelta(ToolCallDelta),
    /// The upstream sent a field that Baton passes on.
    AnswerField(AnswerField),
    /// A tool of the server's begins.
    ToolStarted(ToolStarted),
    /// A tool of the server's has ended, and its result is recorded.
    ToolFinished(ToolFinished),
    /// A call waits for a person.
    ApprovalRequested(ApprovalRequested),
    /// The run waits at a limit of its own.
    BudgetReached(BudgetReached),
    /// A client sent the run a message, which waits.
    InputAccepted(InputAccepted),
    /// A message that a client sent to the run is part of its transcript.
    InputApplied(InputApplied),
    /// A summary is recorded, and replaces the conversation before it.
    ContextCompacted(ContextCompacted),
    /// A model turn is recorded; these are its tokens.
    Usage(Usage),
    /// The run has ended with an answer, or at a limit. Last.
    RunCompleted(RunCompleted),
    /// The run has ended without one. Last.
    RunFailed(RunFailed),
    /// The run was cancelled. Last.
    RunCancelled(RunCancelled),
    /// A type that this build does not know, from a newer worker: passed on as it is.
    Unknown(UnknownEvent),
}

/// `run.started`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunStarted {
    /// The upstream model that is asked.
    pub model: String,
    /// The agent that configures the run.
    pub agent: String,
}

/// `attempt.reset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptReset {
    /// Every event after this id is withdrawn.
    pub resume_after: EventId,
    /// Whether the text after `resume_after` stays valid all the same, because the attempt
    /// continues exactly after it.
    pub continues: bool,
}

/// `text.delta`, `reasoning.delta`, `refusal.delta`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Text {
    /// The text to append.
    pub text: String,
}

/// `tool_call.delta`: a fragment of a call that the client is to execute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolCallDelta {
    /// The index of the call in its turn, counted over the client's calls only.
    pub index: u32,
    /// The call's id, with its first fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool's name, with its first fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The text to append to the arguments.
    pub arguments: String,
}

/// `answer.field`: a field of the answer that Baton does not read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerField {
    /// The object of OpenAI's chat completion that it belongs to.
    pub of: AnswerPart,
    /// Its name.
    pub name: String,
    /// Its value as JSON, or a piece of that. A field that comes again adds to itself if it is a list.
    pub json: String,
    /// Whether the next event holds the next piece of this value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// An object of OpenAI's chat completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerPart {
    /// The message: `annotations`, `audio`, `images`.
    Message,
    /// The choice around it: `logprobs`.
    Choice,
    /// The completion around that: `model`, if it is another than was asked, `system_fingerprint`.
    Completion,
    /// The token counts: `prompt_tokens_details`.
    Usage,
}

/// `tool.started`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolStarted {
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, as the model wrote them unless `edited`, cut to 64 KiB here; the run holds the whole.
    pub arguments: String,
    /// Whether a person replaced the model's arguments when approving the call; left out if not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub edited: bool,
}

/// `tool.finished`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolFinished {
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The result for the model, cut to 8 KiB here; the run holds the whole.
    pub result: String,
    /// The duration of the call, in milliseconds.
    pub duration_ms: u64,
}

/// `approval.requested`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalRequested {
    /// The approval to decide: `POST /v1/runs/{run}/approvals/{approval_id}`.
    pub approval_id: ApprovalId,
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// The arguments to decide about, cut to 64 KiB here; the run holds the whole. They are as the model wrote
    /// them, unless a person replaced them before the call began and its outcome is unknown.
    pub arguments: String,
    /// The reason, as in the approval's `reason`.
    pub reason: String,
    /// The time by which somebody must decide; left out by older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The input that the tool's server asks for; left out for other reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<RequestedInput>,
}

/// `budget.reached`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetReached {
    /// The question that waits for higher limits: `PATCH /v1/runs/{run}` raises them.
    pub approval_id: ApprovalId,
    /// The reached limit: `max_tokens`, `max_cost` or `max_tool_calls`.
    pub limit: FinishReason,
    /// All limits of the run.
    pub limits: RequestLimits,
    /// The consumption of the run.
    pub used: UsedUp,
    /// The time at which the run ends at the limit, if nobody raises it.
    pub expires_at: DateTime<Utc>,
}

/// `input.accepted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputAccepted {
    /// The message: `GET /v1/runs/{run}/messages` lists it with its content.
    pub id: MessageId,
    /// Its place among the messages sent to the run, rising from 1.
    pub position: u32,
}

/// `input.applied`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputApplied {
    /// The message: `GET /v1/runs/{run}/messages` lists it with its content.
    pub id: MessageId,
    /// The step that it became. The model reads it with its next turn.
    pub step: u32,
}

/// `context.compacted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContextCompacted {
    /// The tokens of making the summary.
    pub usage: Usage,
}

/// `run.completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunCompleted {
    /// The reason for its end.
    pub finish_reason: FinishReason,
    /// Tokens over all turns.
    pub usage: Usage,
}

/// `run.failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunFailed {
    /// The error.
    pub error: RunError,
    /// Tokens until then; left out if there were none.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
}

/// `run.cancelled`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunCancelled {
    /// The canceller's reason.
    pub reason: String,
    /// Tokens until then. Those of an interrupted turn are `estimated`, unless the upstream had
    /// reported them.
    #[serde(default)]
    pub usage: Usage,
    /// The time from the request to cancel to the end of all work on the run, in milliseconds by
    /// the ledger's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_latency_ms: Option<u64>,
}

/// Returns as much of a call's arguments as an event carries: 64 KiB.
pub fn shown_arguments(arguments: &str) -> &str {
    &arguments[..arguments.floor_char_boundary(64 << 10)]
}

/// Returns as much of a tool's result as an event carries: 8 KiB.
pub fn shown_result(content: &str) -> &str {
    &content[..content.floor_char_boundary(8 << 10)]
}

/// An event of a type that this build does not know.
#[derive(Debug, Clone)]
pub struct UnknownEvent {
    /// Its type.
    pub kind: String,
    /// Its data, unparsed.
    pub data: Box<RawValue>,
}

impl PartialEq for UnknownEvent {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.data.get() == other.data.get()
    }
}

impl EventData {
    /// Returns the `type` in JSON, which is the `event:` of native SSE.
    pub fn kind(&self) -> &str {
        match self {
            Self::RunStarted(_) => "run.started",
            Self::AttemptReset(_) => "attempt.reset",
            Self::TextDelta(_) => "text.delta",
            Self::ReasoningDelta(_) => "reasoning.delta",
            Self::RefusalDelta(_) => "refusal.delta",
            Self::ToolCallDelta(_) => "tool_call.delta",
            Self::AnswerField(_) => "answer.field",
            Self::ToolStarted(_) => "tool.started",
            Self::ToolFinished(_) => "tool.finished",
            Self::ApprovalRequested(_) => "approval.requested",
            Self::BudgetReached(_) => "budget.reached",
            Self::InputAccepted(_) => "input.accepted",
            Self::InputApplied(_) => "input.applied",
            Self::ContextCompacted(_) => "context.compacted",
            Self::Usage(_) => "usage",
            Self::RunCompleted(_) => "run.completed",
            Self::RunFailed(_) => "run.failed",
            Self::RunCancelled(_) => "run.cancelled",
            Self::Unknown(unknown) => &unknown.kind,
        }
    }

    /// Returns whether this is a run's last event.
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::RunCompleted(_) | Self::RunFailed(_) | Self::RunCancelled(_)
        )
    }

    fn write_data(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::RunStarted(data) => serde_json::to_writer(out, data),
            Self::AttemptReset(data) => serde_json::to_writer(out, data),
            Self::TextDelta(data) | Self::ReasoningDelta(data) | Self::RefusalDelta(data) => {
                serde_json::to_writer(out, data)
            }
            Self::ToolCallDelta(data) => serde_json::to_writer(out, data),
            Self::AnswerField(data) => serde_json::to_writer(out, data),
            Self::ToolStarted(data) => serde_json::to_writer(out, data),
            Self::ToolFinished(data) => serde_json::to_writer(out, data),
            Self::ApprovalRequested(data) => serde_json::to_writer(out, data),
            Self::BudgetReached(data) => serde_json::to_writer(out, data),
            Self::InputAccepted(data) => serde_json::to_writer(out, data),
            Self::InputApplied(data) => serde_json::to_writer(out, data),
            Self::ContextCompacted(data) => serde_json::to_writer(out, data),
            Self::Usage(data) => serde_json::to_writer(out, data),
            Self::RunCompleted(data) => serde_json::to_writer(out, data),
            Self::RunFailed(data) => serde_json::to_writer(out, data),
            Self::RunCancelled(data) => serde_json::to_writer(out, data),
            Self::Unknown(unknown) => serde_json::to_writer(out, &unknown.data),
        }
    }

    fn read(kind: &str, data: &RawValue) -> serde_json::Result<Self> {
        let json = data.get();
        Ok(match kind {
            "run.started" => Self::RunStarted(serde_json::from_str(json)?),
            "attempt.reset" => Self::AttemptReset(serde_json::from_str(json)?),
            "text.delta" => Self::TextDelta(serde_json::from_str(json)?),
            "reasoning.delta" => Self::ReasoningDelta(serde_json::from_str(json)?),
            "refusal.delta" => Self::RefusalDelta(serde_json::from_str(json)?),
            "tool_call.delta" => Self::ToolCallDelta(serde_json::from_str(json)?),
            "answer.field" => Self::AnswerField(serde_json::from_str(json)?),
            "tool.started" => Self::ToolStarted(serde_json::from_str(json)?),
            "tool.finished" => Self::ToolFinished(serde_json::from_str(json)?),
            "approval.requested" => Self::ApprovalRequested(serde_json::from_str(json)?),
            "budget.reached" => Self::BudgetReached(serde_json::from_str(json)?),
            "input.accepted" => Self::InputAccepted(serde_json::from_str(json)?),
            "input.applied" => Self::InputApplied(serde_json::from_str(json)?),
            "context.compacted" => Self::ContextCompacted(serde_json::from_str(json)?),
            "usage" => Self::Usage(serde_json::from_str(json)?),
            "run.completed" => Self::RunCompleted(serde_json::from_str(json)?),
            "run.failed" => Self::RunFailed(serde_json::from_str(json)?),
            "run.cancelled" => Self::RunCancelled(serde_json::from_str(json)?),
            _ => Self::Unknown(UnknownEvent {
                kind: kind.to_owned(),
                data: data.to_owned(),
            }),
        })
    }
}

/// A reason for which bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A version that this build does not know.
    #[error("event version {0} is not supported: this server reads version 1")]
    UnsupportedVersion(u64),
}

#[derive(Deserialize)]
struct Wire<'a> {
    v: u64,
    id: EventId,
    prev: EventId,
    #[serde(rename = "type")]
    kind: &'a str,
    run_id: RunId,
    step: u32,
    at: DateTime<Utc>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Event {
    /// The version that this build writes.
    pub const VERSION: u64 = 1;

    /// Appends the event as one line of JSON, the newline included.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        use std::io::Write as _;

        // Written by hand around the typed data, because this runs once for every batch of tokens.
        // Writing to a Vec cannot fail, and every type above has string keys.
        let written = write!(
            out,
            r#"{{"v":1,"id":{},"prev":{},"type":"{}","run_id":"{}","attempt":{},"step":{},"at":"{}","data":"#,
            self.id,
            self.prev,
            self.data.kind(),
            self.run_id,
            self.id.attempt(),
            self.step,
            self.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        )
        .map_err(serde_json::Error::io)
        .and_then(|()| self.data.write_data(out));
        debug_assert!(written.is_ok(), "an event is always encodable");
        out.extend_from_slice(b"}\n");
    }

    /// Reads one line.
    pub fn decode(line: &[u8]) -> Result<Self, EventError> {
        let wire: Wire<'_> = serde_json::from_slice(line)?;
        if wire.v != Self::VERSION {
            return Err(EventError::UnsupportedVersion(wire.v));
        }
        Ok(Self {
            id: wire.id,
            prev: wire.prev,
            run_id: wire.run_id,
            step: wire.step,
            at: wire.at,
            data: EventData::read(wire.kind, wire.data)?,
        })
    }

    /// Splits a message into its lines, each to be given to [`Event::decode`].
    pub fn lines(message: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
        message
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("golden/events.v1.ndjson");

    #[test]
    fn released_events_stay_decodable_and_are_written_the_same() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in GOLDEN.lines() {
            let event = Event::decode(line.as_bytes()).unwrap();
            kinds.insert(event.data.kind().to_owned());
            let mut written = Vec::new();
            event.encode_into(&mut written);
            assert_eq!(String::from_utf8(written).unwrap().trim_end(), line);
        }
        assert_eq!(
            kinds.len(),
            19,
            "one golden line of each type, and one unknown: {kinds:?}"
        );
    }

    #[test]
    fn a_message_is_its_lines() {
        let lines: Vec<_> = Event::lines(GOLDEN.as_bytes()).collect();
        assert_eq!(lines.len(), GOLDEN.lines().count());
    }
}
