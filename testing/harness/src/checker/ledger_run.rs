//! The content of the ledger when all was quiet.

use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, EventId, ReachedLimit, RunId, RunStatus, Usage,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A run in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LedgerRun {
    /// Its id.
    pub id: RunId,
    /// Its state.
    pub status: RunStatus,
    /// The model that it asks.
    #[serde(default)]
    pub model: String,
    /// The reason why it completed.
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// The tokens of its recorded turns.
    #[serde(default)]
    pub usage: Usage,
    /// The newest attempt.
    pub attempt: u32,
    /// The id of its last recorded event.
    pub last_event_id: EventId,
    /// The number of its prompt.
    #[serde(default)]
    pub prompt: Option<u64>,
    /// The time of its acceptance.
    pub created_at: DateTime<Utc>,
    /// The time of its end.
    #[serde(default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Its messages.
    #[serde(default)]
    pub output: Vec<Value>,
    /// The reason of its failure.
    #[serde(default)]
    pub error: Option<Value>,
    /// Its steps.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Its questions, which are read by a request of their own.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

impl LedgerRun {
    /// Returns whether it may have completed without making its last calls.
    pub fn may_leave_calls(&self) -> bool {
        self.stopped_at_limit() || self.was_answered()
    }

    /// Returns whether it completed because answers to its approval requests go on from it: then those calls were
    /// not made.
    pub fn was_answered(&self) -> bool {
        self.status == RunStatus::Completed && self.finish_reason.as_deref() == Some("tool_calls")
    }

    /// Returns whether it completed at a limit of its own: then its last calls may not have been made.
    pub fn stopped_at_limit(&self) -> bool {
        matches!(
            self.finish_reason.as_deref(),
            Some("max_tokens" | "max_tool_calls")
        )
    }
}

/// A question to a person, in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The call; none at a limit.
    pub call: Option<ApprovalCall>,
    /// The reason for the question.
    pub reason: ApprovalReason,
    /// The limit that the run has reached.
    #[serde(default)]
    pub budget: Option<ReachedLimit>,
    /// The time of the question.
    #[serde(default)]
    pub created_at: DateTime<Utc>,
    /// `None` if nobody decided.
    pub decision: Option<Decision>,
    /// The time of the decision.
    pub decided_at: Option<DateTime<Utc>>,
}

impl Approval {
    /// Returns whether it is about the call at this step.
    pub(super) fn is_of_step(&self, step: u32) -> bool {
        self.call.as_ref().is_some_and(|call| call.step == step)
    }

    /// Returns the time of the decision, in milliseconds since 1970.
    pub(super) fn decided_ms(&self) -> Option<u64> {
        u64::try_from(self.decided_at?.timestamp_millis()).ok()
    }
}

/// The call that a question is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalCall {
    /// Its place among the steps.
    pub step: u32,
}

/// A step in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Its place.
    #[serde(rename = "step")]
    pub place: u32,
    /// The attempt that recorded it.
    pub attempt: u32,
    /// The time at which its result was recorded.
    pub finished_at: Option<DateTime<Utc>>,
    /// Its kind.
    #[serde(flatten)]
    pub kind: StepKind,
}

/// The kind of a step. Only a call has data here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepKind {
    /// A model turn.
    Turn,
    /// A message that the run was sent.
    Input,
    /// A call of a server-side tool.
    Call {
        /// The tool.
        name: String,
        /// Whether the tool succeeded.
        ok: Option<bool>,
    },
}

impl LedgerRun {
    /// Returns the text of all its assistant messages.
    pub fn text(&self) -> String {
        let assistant = |message: &&Value| message["role"] == "assistant";
        let messages = self.output.iter().filter(assistant);
        messages
            .filter_map(|message| message["content"].as_str())
            .collect()
    }
}
