//! A run's life: its states, who moves it from one to the next, and what a crash in each leaves.
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
//! The ledger executes these transitions as guarded updates; this is what they must agree with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event_id::EventId;

/// The name of a state, in JSON and in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Nobody holds the run, and a job for it is on its way or due. Moved by the worker that
    /// claims it, or by a cancel. A crash leaves at worst a run without a job; the scheduler
    /// publishes it again.
    Queued,
    /// One worker holds a lease. Moved by that worker. A crash leaves a lease that runs out; then
    /// any worker that is given the job may claim it.
    Running,
    /// A tool call waits for a person; no worker and no job is held. Moved by the decision or its
    /// expiry, back to `Queued`. A crash leaves it as it is.
    AwaitingApproval,
    /// Ended with an answer, or at a limit. Final.
    Completed,
    /// Ended without one. Final.
    Failed,
    /// Ended because somebody asked for it. Final.
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

    /// Whether the run has ended: such a state never changes.
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

/// Why a run completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model had said all it had to say.
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
}

impl FinishReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Stop,
        Self::Length,
        Self::ToolCalls,
        Self::ContentFilter,
        Self::MaxTurns,
        Self::Budget,
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
        }
    }

    /// The nearest word that the Chat Completions API knows.
    pub const fn as_chat(self) -> &'static str {
        match self {
            Self::MaxTurns | Self::Budget => "length",
            other => other.as_str(),
        }
    }

    /// Reads a stored name, or the one an upstream sent. Upstreams invent words of their own;
    /// whatever else they say, they stopped.
    pub fn from_upstream(given: &str) -> Self {
        match given {
            "length" | "max_tokens" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            "max_turns" => Self::MaxTurns,
            "budget" => Self::Budget,
            _ => Self::Stop,
        }
    }
}

/// The reason for a failed run, for the caller to act on.
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

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, or at a limit.
    Completed(FinishReason),
    /// Without one.
    Failed(RunError),
    /// Because somebody asked for it, with their reason.
    Cancelled(String),
}

impl Outcome {
    /// The terminal state's name.
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Completed(_) => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled(_) => RunStatus::Cancelled,
        }
    }
}

/// A run's state with all that the protocol decides by. Transitions consume it.
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

/// A run that nobody holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Idle {
    /// The newest attempt so far; 0 before the first.
    pub attempt: u32,
    /// Claims since the last progress.
    pub failures: u32,
    /// Where the ledger's last commit stands among the events.
    pub last_event: EventId,
}

/// A run that one worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The holder's attempt.
    pub attempt: u32,
    /// Claims since the last progress, this one included.
    pub failures: u32,
    /// Where the ledger's last commit stands among the events.
    pub last_event: EventId,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The attempt that ended it: its holder's, or a new one when it was ended from outside.
    pub attempt: u32,
    /// How.
    pub outcome: Outcome,
    /// The id of the terminal event.
    pub last_event: EventId,
}

impl Idle {
    /// A worker takes the run: the attempt fences, the failure is counted before the work.
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

    /// Somebody who does not hold the run ends it. That takes a new attempt, so that whoever held
    /// it before can append nothing behind the terminal event.
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
    /// A step is recorded: that is progress. A commit that was under way for long may come through
    /// behind later ones; it moves nothing back.
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
            // Progress may have given it back before.
            failures: self.failures.saturating_sub(1),
            last_event: self.last_event,
        }
    }

    /// The lease ran out: the failure stands.
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

    /// The holder ends the run with the event it is about to append.
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
    /// An error that no model server had a say in.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            upstream: None,
        }
    }

    /// Whether the run was given up, because its workers were lost one after the other.
    pub fn is_poisoned(&self) -> bool {
        self.code == POISONED
    }

    /// The error of a run whose workers died or failed too often without any progress.
    pub fn poisoned(failures: u32) -> Self {
        Self::new(
            POISONED,
            format!(
                "{failures} workers in a row took this run and were lost before it made progress"
            ),
        )
    }
}

/// The id of the terminal event of a run that was ended by somebody who did not hold it: behind the
/// reset that begins every attempt but the first.
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
            assert_eq!(FinishReason::from_upstream(reason.as_str()), reason);
            assert_eq!(
                serde_json::to_string(&reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
    }
}
