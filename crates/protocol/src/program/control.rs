//! Requests about a run: to cancel it, to decide for a parked one, or to send it a message.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use super::{BadMessage, Envelope};
use crate::approval::{ApprovalScope, Decision};
use crate::ids::{ApprovalId, MessageId, RunId};
use crate::limits::RequestLimits;

/// The longest reason of a cancel, in bytes.
const MAX_REASON: usize = 1024;

/// A request about a run; the subject's last token gives its kind.
#[derive(Debug, Clone)]
pub enum ControlMessage {
    /// `cancel`.
    Cancel(CancelMessage),
    /// `decide`.
    Decide(DecideMessage),
    /// `steer`.
    Steer(SteerMessage),
}

/// A request to cancel a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelMessage {
    /// The run.
    pub run_id: RunId,
    /// The sender's own id of the request, repeated in the answer.
    pub request_id: Option<String>,
    /// The reason, kept with the run.
    pub reason: Option<String>,
}

/// A decision about a call that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecideMessage {
    /// The run.
    pub run_id: RunId,
    /// The sender's own id of the request, repeated in the answer.
    pub request_id: Option<String>,
    /// The question.
    pub approval_id: ApprovalId,
    /// The decision.
    pub decision: Decision,
}

/// A message to a run that works.
#[derive(Debug, Clone)]
pub struct SteerMessage {
    /// The run.
    pub run_id: RunId,
    /// The sender's own id of the request, repeated in the answer.
    pub request_id: Option<String>,
    /// The effect of the message.
    pub mode: SteerMode,
    /// The content of the user message, not yet checked.
    pub content: Box<RawValue>,
}

/// The effect of a message to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteerMode {
    /// The run takes it at its next step.
    Steer {
        /// The id of the message; `None` if the server draws one.
        message_id: Option<MessageId>,
    },
    /// It is the next run of the run's thread.
    FollowUp {
        /// The id of the message, and of the run that it becomes.
        message_id: MessageId,
    },
}

/// A request to cancel a run, as programs write it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cancel)]
struct CancelWire {
    /// The version of this shape: 1.
    #[serde(rename = "v")]
    #[schema(minimum = 1, maximum = 1)]
    _v: u64,
    /// The run to cancel.
    #[schema(value_type = String)]
    run_id: RunId,
    /// The sender's own id of the request: the answer repeats it.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    request_id: Option<String>,
    /// The reason, kept with the run.
    #[serde(default)]
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// A decision about a call or a run that waits for a person, as programs write it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Decide)]
struct DecideWire {
    /// The version of this shape: 1.
    #[serde(rename = "v")]
    #[schema(minimum = 1, maximum = 1)]
    _v: u64,
    /// The run that waits.
    #[schema(value_type = String)]
    run_id: RunId,
    /// The sender's own id of the request: the answer repeats it.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    request_id: Option<String>,
    /// The question, as the event `approval.requested` names it.
    #[schema(value_type = String)]
    approval_id: ApprovalId,
    /// For a call of unknown outcome: `retry` makes the call again; `result` says what it brought; `fail` gives it
    /// up. For a call that requires approval: `approve` makes it; `reject` does not. For a run at a limit of its
    /// own: `raise` lets it go on with higher `limits`; `stop` ends it. For the server of a tool that asks for
    /// input: `accept` gives it the `content`; `decline` and `cancel` do not.
    decision: DecisionName,
    /// The call's result, as the model reads it; with `result` alone.
    #[serde(default)]
    #[schema(max_length = 65536)]
    result: Option<String>,
    /// The reason, as the model reads it; with `fail` and `reject` alone.
    #[serde(default)]
    #[schema(max_length = 65536)]
    reason: Option<String>,
    /// Other arguments to call the tool with: an object that matches its schema, at most 64 KiB of JSON; with
    /// `approve` alone.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    arguments: Option<Map<String, Value>>,
    /// The calls that need no other approval: this one (`once`), or also all later ones of the tool in this run
    /// (`run`), or in the runs of its thread (`thread`); with `approve` alone.
    #[serde(default)]
    scope: Option<ApprovalScope>,
    /// The limits to raise, the reached one among them; with `raise` alone.
    #[serde(default)]
    limits: Option<RequestLimits>,
    /// An object that matches the schema of the question, at most 64 KiB of JSON; with `accept` alone.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    content: Option<Map<String, Value>>,
}

/// A message to a run that works, as programs write it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Steer)]
struct SteerWire {
    /// The version of this shape: 1.
    #[serde(rename = "v")]
    #[schema(minimum = 1, maximum = 1)]
    _v: u64,
    /// The run that works.
    #[schema(value_type = String)]
    run_id: RunId,
    /// The sender's own id of the request: the answer repeats it.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    request_id: Option<String>,
    /// A UUID of version 7 that names the message: sent again with it, the message is not taken twice.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    message_id: Option<MessageId>,
    /// `steer`, the default: the run takes the message at its next step. `follow_up`: it is the next run of the
    /// thread, and that run's id is the `message_id`, which is required then.
    #[serde(default)]
    mode: Option<ModeName>,
    /// The content of a user message: a text, or a list of content parts.
    #[schema(value_type = Value)]
    content: Box<RawValue>,
}

/// The name of a message's effect.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ModeName {
    Steer,
    FollowUp,
}

/// The name of a decision.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DecisionName {
    Retry,
    Result,
    Fail,
    Approve,
    Reject,
    Raise,
    Stop,
    Accept,
    Decline,
    Cancel,
}

impl CancelMessage {
    /// Describes the message as a JSON Schema.
    pub fn schema() -> RefOr<Schema> {
        CancelWire::schema()
    }

    fn decode(body: &[u8], envelope: &Envelope) -> Result<Self, BadMessage> {
        let wire: CancelWire = envelope.strictly(body, "invalid_request", "cancel")?;
        if wire
            .reason
            .as_ref()
            .is_some_and(|reason| reason.len() > MAX_REASON)
        {
            let message = format!("`reason` may be at most {MAX_REASON} bytes long");
            return Err(envelope.bad("invalid_request", message));
        }
        envelope.check_texts(wire.request_id.as_ref(), None)?;
        Ok(Self {
            run_id: wire.run_id,
            request_id: wire.request_id,
            reason: wire.reason,
        })
    }
}

impl DecideMessage {
    /// Describes the message as a JSON Schema, except for the texts that each decision takes.
    pub fn schema() -> RefOr<Schema> {
        DecideWire::schema()
    }

    /// Describes the schemas that the schema refers to, by name.
    pub fn schemas(into: &mut Vec<(String, RefOr<Schema>)>) {
        <DecideWire as ToSchema>::schemas(into);
    }

    fn decode(body: &[u8], envelope: &Envelope) -> Result<Self, BadMessage> {
        let wire: DecideWire = envelope.strictly(body, "invalid_request", "decision")?;
        let allows = (wire.arguments, wire.scope, wire.limits, wire.content);
        let decision = match (wire.decision, wire.result, wire.reason, allows) {
            (DecisionName::Retry, None, None, (None, None, None, None)) => Decision::Retry {},
            (DecisionName::Result, Some(result), None, (None, None, None, None)) => {
                Decision::Result { result }
            }
            (DecisionName::Fail, None, reason, (None, None, None, None)) => Decision::Fail {
                reason: reason.unwrap_or_default(),
            },
            (DecisionName::Approve, None, None, (arguments, scope, None, None)) => {
                Decision::Approve {
                    arguments,
                    scope: scope.unwrap_or_default(),
                }
            }
            (DecisionName::Reject, None, reason, (None, None, None, None)) => Decision::Reject {
                reason: reason.unwrap_or_default(),
            },
            (DecisionName::Raise, None, None, (None, None, Some(limits), None)) => {
                Decision::Raise { limits }
            }
            (DecisionName::Stop, None, None, (None, None, None, None)) => Decision::Stop {},
            (DecisionName::Accept, None, None, (None, None, None, content)) => {
                Decision::Accept { content }
            }
            (DecisionName::Decline, None, None, (None, None, None, None)) => Decision::Decline {},
            (DecisionName::Cancel, None, None, (None, None, None, None)) => Decision::Cancel {},
            _ => {
                let message = "`result` goes with `\"decision\": \"result\"`, which needs it, `reason` with \
                               `fail` and `reject`, `arguments` and `scope` with `approve`, `content` with `accept`, and \
                               `limits` with `raise`, which needs them";
                return Err(envelope.bad("invalid_request", message.to_owned()));
            }
        };
        envelope.check_texts(wire.request_id.as_ref(), None)?;
        Ok(Self {
            run_id: wire.run_id,
            request_id: wire.request_id,
            approval_id: wire.approval_id,
            decision,
        })
    }
}

impl SteerMessage {
    /// Describes the message as a JSON Schema, except for the content.
    pub fn schema() -> RefOr<Schema> {
        SteerWire::schema()
    }

    /// Describes the schemas that the schema refers to, by name.
    pub fn schemas(into: &mut Vec<(String, RefOr<Schema>)>) {
        <SteerWire as ToSchema>::schemas(into);
    }

    fn decode(body: &[u8], envelope: &Envelope) -> Result<Self, BadMessage> {
        let wire: SteerWire = envelope.strictly(body, "invalid_request", "message to a run")?;
        envelope.check_texts(wire.request_id.as_ref(), None)?;
        let mode = match (wire.mode, wire.message_id) {
            (None | Some(ModeName::Steer), message_id) => SteerMode::Steer { message_id },
            (Some(ModeName::FollowUp), Some(message_id)) => SteerMode::FollowUp { message_id },
            (Some(ModeName::FollowUp), None) => {
                let message = "`\"mode\": \"follow_up\"` needs a `message_id`, a UUID of version 7 that \
                               you draw: it becomes the id of the next run";
                return Err(envelope.bad("invalid_request", message.to_owned()));
            }
        };
        Ok(Self {
            run_id: wire.run_id,
            request_id: wire.request_id,
            mode,
            content: wire.content,
        })
    }
}

impl ControlMessage {
    /// The verbs, as subjects end with them.
    pub const VERBS: [&str; 3] = ["cancel", "decide", "steer"];

    /// Reads a message body that came under this verb.
    pub fn decode(verb: &str, body: &[u8]) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(body)?;
        envelope.check_version()?;
        envelope.run()?;
        match verb {
            "cancel" => CancelMessage::decode(body, &envelope).map(Self::Cancel),
            "decide" => DecideMessage::decode(body, &envelope).map(Self::Decide),
            "steer" => SteerMessage::decode(body, &envelope).map(Self::Steer),
            other => {
                let message = format!(
                    "`{}` is no verb: publish to one of {}",
                    super::cut(other),
                    Self::VERBS.join(", ")
                );
                Err(envelope.bad("invalid_request", message))
            }
        }
    }

    /// Returns the run.
    pub const fn run_id(&self) -> RunId {
        match self {
            Self::Cancel(cancel) => cancel.run_id,
            Self::Decide(decide) => decide.run_id,
            Self::Steer(steer) => steer.run_id,
        }
    }

    /// Returns the sender's own id of the request.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Cancel(cancel) => cancel.request_id.as_deref(),
            Self::Decide(decide) => decide.request_id.as_deref(),
            Self::Steer(steer) => steer.request_id.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests;
