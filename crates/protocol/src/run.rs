//! The states of a run, the actor of each transition, and the state that a crash leaves.
//!
//! ```text
//!            claim              answer, limit, client-side call
//!  Queued ──────────► Running ─────────────────────────────────► Completed
//!    ▲  ▲               │ │ │ ─────── error ───────────────────► Failed
//!    │  └─ hand over, ──┘ │ └──────── cancel ──────────────────► Cancelled
//!    │     lost lease     │ park
//!    └── decide ── AwaitingApproval
//! ```
//!
//! The ledger executes these transitions as guarded updates, which must agree with this model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event_id::EventId;

/// The name of a state, in JSON and in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No worker holds the run, and a job for it is under way or due. The worker that claims it
    /// moves it, or a cancel. A crash leaves at worst a run without a job; the scheduler publishes
    /// it again.
    Queued,
    /// One worker holds a lease, and moves the run. A crash leaves a lease that expires; then any
    /// worker that gets the job may claim it.
    Running,
    /// A tool call waits for a person, without a worker or a job. The decision or its expiry moves
    /// it back to `Queued`. A crash changes nothing.
    AwaitingApproval,
    /// Ended with an answer, or at a limit. Final.
    Completed,
    /// Ended without one. Final.
    Failed,
    /// Ended by request. Final.
    Cancelled,
}

impl RunStatus {
    /// All of them, in the order of a run's life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::AwaitingApproval,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns whether the run has ended: such a state never changes.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Running | Self::AwaitingApproval => false,
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A status that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a run status: it is one of queued, running, awaiting_approval, completed, failed, cancelled"
)]
pub struct UnknownStatus(String);

impl FromStr for RunStatus {
    type Err = UnknownStatus;

    fn from_str(given: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == given)
            .ok_or_else(|| UnknownStatus(given.chars().take(64).collect()))
    }
}

/// A reason for which a run completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// The model reached its token limit.
    Length,
    /// The model calls tools that the client is to execute.
    ToolCalls,
    /// The upstream withheld the rest.
    ContentFilter,
    /// The run reached its limit of model turns.
    MaxTurns,
    /// The budget of the run's key is used up.
    Budget,
    /// The run reached its limit of tokens.
    MaxTokens,
    /// The run reached its limit of cost.
    MaxCost,
    /// The run reached its limit of tool calls.
    MaxToolCalls,
    /// The run reached its limit of time.
    MaxWallTime,
}

impl FinishReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Stop,
        Self::Length,
        Self::ToolCalls,
        Self::ContentFilter,
        Self::MaxTurns,
        Self::Budget,
        Self::MaxTokens,
        Self::MaxCost,
        Self::MaxToolCalls,
        Self::MaxWallTime,
    ];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::MaxTurns => "max_turns",
            Self::Budget => "budget",
            Self::MaxTokens => "max_tokens",
            Self::MaxCost => "max_cost",
            Self::MaxToolCalls => "max_tool_calls",
            Self::MaxWallTime => "max_wall_time",
        }
    }

    /// Returns the nearest finish reason of the Chat Completions API.
    pub const fn as_chat(self) -> &'static str {
        match self {
            Self::MaxTurns
            | Self::Budget
            | Self::MaxTokens
            | Self::MaxCost
            | Self::MaxToolCalls
            | Self::MaxWallTime => "length",
            Self::Stop | Self::Length | Self::ToolCalls | Self::ContentFilter => self.as_str(),
        }
    }

    /// Reads an upstream's word. An unknown one counts as `stop`, because upstreams invent their own.
    pub fn from_upstream(given: &str) -> Self {
        match given {
            "length" | "max_tokens" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            _ => Self::Stop,
        }
    }
}

/// The error of a failed run, for the caller to act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// A stable word, such as `upstream_timeout`.
    pub code: String,
    /// One sentence for people. It never holds a secret or another tenant's data.
    pub message: String,
    /// The model server's own words for programs, if it was the one that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Box<UpstreamError>>,
}

/// A model server's own words for programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamError {
    /// Its code, such as `context_length_exceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The request field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// When it wants to be asked again, in milliseconds from the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, or at a limit.
    Completed(FinishReason),
    /// Without one.
    Failed(RunError),
    /// Cancelled by request, with the canceller's reason.
    Cancelled(String),
}

impl Outcome {
    /// Returns the terminal state.
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Completed(_) => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled(_) => RunStatus::Cancelled,
        }
    }
}

/// A run's state with all data that transitions depend on. They consume it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// See [`RunStatus::Queued`].
    Queued(Idle),
    /// See [`RunStatus::Running`].
    Running(Held),
    /// See [`RunStatus::AwaitingApproval`].
    AwaitingApproval(Idle),
    /// See [`RunStatus::Completed`], [`RunStatus::Failed`], [`RunStatus::Cancelled`].
    Ended(Ended),
}

/// A run without a holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Idle {
    /// The newest attempt so far; 0 before the first.
    pub attempt: u32,
    /// Claims since the last progress.
    pub failures: u32,
    /// The last event that the ledger has committed.
    pub last_event: EventId,
}

/// A run with a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The holder's attempt.
    pub attempt: u32,
    /// Claims since the last progress, this one included.
    pub failures: u32,
    /// The last event that the ledger has committed.
    pub last_event: EventId,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The attempt that ended it: its holder's, or a new one if another process ended it.
    pub attempt: u32,
    /// Its end.
    pub outcome: Outcome,
    /// The id of the terminal event.
    pub last_event: EventId,
}

impl Idle {
    /// A worker claims the run: the new attempt fences older ones, and counts as a failure until it
    /// makes progress.
    pub fn claim(self, max_failures: u32) -> Result<Held, Ended> {
        if self.failures >= max_failures {
            return Err(self.end(Outcome::Failed(RunError::poisoned(self.failures))));
        }
        Ok(Held {
            attempt: self.attempt + 1,
            failures: self.failures + 1,
            last_event: self.last_event,
        })
    }

    /// A process that does not hold the run ends it. It takes a new attempt, so that an earlier
    /// holder cannot append after the terminal event.
    pub fn end(self, outcome: Outcome) -> Ended {
        let attempt = self.attempt + 1;
        Ended {
            attempt,
            outcome,
            last_event: terminal_event_from_outside(attempt),
        }
    }
}

impl Held {
    /// A step is committed, which is progress. A delayed commit may arrive after later ones; it
    /// moves nothing back.
    #[must_use]
    pub fn commit_step(self, last_event: EventId) -> Self {
        Self {
            failures: 0,
            last_event: self.last_event.max(last_event),
            ..self
        }
    }

    /// The holder gives the run back, between two steps or in the middle of one: no failure.
    pub fn hand_over(self) -> Idle {
        Idle {
            attempt: self.attempt,
            // A commit may have reset the count already.
            failures: self.failures.saturating_sub(1),
            last_event: self.last_event,
        }
    }

    /// The lease expired: the failure counts.
    pub fn lose_lease(self) -> Idle {
        Idle {
            attempt: self.attempt,
            failures: self.failures,
            last_event: self.last_event,
        }
    }

    /// A tool call must wait for a person: no failure.
    pub fn park(self, last_event: EventId) -> Idle {
        Idle {
            attempt: self.attempt,
            failures: 0,
            last_event,
        }
    }

    /// The holder ends the run with the event that it will append.
    pub fn end(self, outcome: Outcome, last_event: EventId) -> Ended {
        Ended {
            attempt: self.attempt,
            outcome,
            last_event,
        }
    }
}

const POISONED: &str = "max_failures";

impl RunError {
    /// Makes an error that no model server caused.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            upstream: None,
        }
    }

    /// Returns whether the run was given up because it lost one worker after the other.
    pub fn is_poisoned(&self) -> bool {
        self.code == POISONED
    }

    /// Returns the error of a run that lost too many workers without any progress.
    pub fn poisoned(failures: u32) -> Self {
        Self::new(
            POISONED,
            format!(
                "{failures} workers in a row took this run and were lost before it made progress"
            ),
        )
    }
}

/// Returns the id of the terminal event of a run that another process than its holder ended. It
/// follows the reset that begins every attempt but the first.
pub const fn terminal_event_from_outside(attempt: u32) -> EventId {
    EventId::new(attempt, if attempt == 1 { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploys_and_approvals_are_no_failures() {
        let mut run = Idle::default();
        for _ in 0..10 {
            run = run.claim(3).unwrap().hand_over();
            let held = run.claim(3).unwrap();
            run = held.commit_step(held.last_event).hand_over();
            run = run.claim(3).unwrap().park(EventId::new(1, 1));
        }
        assert_eq!((run.attempt, run.failures), (30, 0));
    }

    #[test]
    fn lost_leases_without_progress_end_in_failure() {
        let mut run = Idle::default();
        for _ in 0..3 {
            run = run.claim(3).unwrap().lose_lease();
        }
        let ended = run.claim(3).unwrap_err();
        assert_eq!(ended.outcome.status(), RunStatus::Failed);
        assert_eq!(ended.attempt, 4, "ending from outside takes a new attempt");
        assert_eq!(ended.last_event, EventId::new(4, 2));
    }

    #[test]
    fn progress_gives_failures_back() {
        let mut run = Idle::default();
        for _ in 0..10 {
            run = run
                .claim(3)
                .unwrap()
                .commit_step(EventId::new(1, 1))
                .lose_lease();
        }
        assert_eq!(run.failures, 0);
    }

    #[test]
    fn names_read_back() {
        for status in RunStatus::ALL {
            assert_eq!(status.as_str().parse::<RunStatus>().unwrap(), status);
            assert_eq!(
                serde_json::to_string(&status).unwrap(),
                format!("\"{status}\"")
            );
        }
        for reason in FinishReason::ALL {
            assert_eq!(
                serde_json::to_string(&reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
    }
}
