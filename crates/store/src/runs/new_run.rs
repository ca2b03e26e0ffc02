//! A submitted run, and the answer to the submission.

use baton_protocol::{ApiKeyId, ApprovalId, Decision, Lane, RunId, RunSpec, ThreadId};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::value::RawValue;

use crate::audit::AuditEntry;
use crate::budget::{Budget, TurnWish};
use crate::idempotency_keys::IdempotencyKey;
use crate::run_inputs::MOST_WAITING_INPUTS;
use crate::runs::cancel::CancelRequest;
use crate::runs::read::RunRecord;

/// A run to be accepted.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// Its id, a UUIDv7 of now; lists are sorted by it.
    pub id: RunId,
    /// Its lane.
    pub lane: Lane,
    /// The specification of the work.
    pub spec: &'a RunSpec,
    /// The thread it continues.
    pub thread_id: Option<ThreadId>,
    /// The rule for a thread with a run that has not ended.
    pub on_busy: OnBusy,
    /// The thread that its answer is to title. Such a run is not kept after its end.
    pub titles: Option<ThreadId>,
    /// The key it was submitted with.
    pub api_key_id: Option<ApiKeyId>,
    /// The actor that submits it, as the audit log names actors.
    pub created_by: Option<&'a str>,
    /// The most that the first turn may use up, if the key limits it.
    pub metered: Option<TurnWish>,
    /// The client's metadata, a JSON object.
    pub metadata: Option<&'a RawValue>,
    /// Whether the run is cancelled if the client disconnects.
    pub cancel_on_disconnect: bool,
    /// The W3C trace context that its spans belong to.
    pub traceparent: Option<&'a str>,
    /// The idempotency key, which makes the submission repeatable.
    pub idempotency: Option<&'a IdempotencyKey>,
}

/// The answers of a new run's request to the questions of a parked run. They are committed with the new run, and
/// end the parked one.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The parked run.
    pub run: RunId,
    /// An answer to each of its open questions: [`Decision::Approve`] or [`Decision::Reject`].
    pub decisions: Vec<(ApprovalId, Decision)>,
    /// Their entries in the audit log.
    pub audit: Vec<AuditEntry>,
}

/// The rule for a run on a thread with a run that has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBusy {
    /// The new run is refused.
    #[default]
    Reject,
    /// The new run waits for the others.
    Queue,
    /// The others are cancelled, and what they said stays in the thread; the new run goes next.
    Interrupt,
    /// The others are cancelled, and leave nothing in the thread; the new run goes next.
    Rollback,
    /// The new message joins the run that works, and there is no new run.
    Steer,
}

/// The limits on the number of waiting runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// The limit of one tenant, counted in the accepting transaction.
    pub tenant: u32,
    /// The limit of the whole system, checked against an estimate that is at most half a second
    /// old.
    pub system: u32,
}

/// The answer to a submission.
#[derive(Debug, Clone)]
pub enum Accept {
    /// The run is accepted, once the transaction is committed.
    Created {
        /// The time in its row.
        created_at: DateTime<Utc>,
        /// The runs of its thread that it cancelled, or the run that it ended by answering.
        cancelled: Vec<(RunId, CancelRequest)>,
        /// The model to ask for a title of its thread, if that wants one.
        title_model: Option<String>,
    },
    /// The message joined this run of the thread, once the transaction is committed.
    Steered(Box<RunRecord>),
    /// The same key has accepted this run before, with the same body. The record was read in the
    /// transaction that found the key, so that the answer needs no further read.
    Replay(Box<RunRecord>),
    /// The run is not accepted. Nothing was written.
    Refused(Refusal),
}

/// A reason for which a run is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same key was used before, with another body.
    #[error("this Idempotency-Key was used with a different request: use a fresh key for it")]
    KeyReused,
    /// Another submission has used this run id, in this tenant or another.
    #[error(
        "this run id is taken: draw a fresh UUIDv7 for each run, and repeat it only with the same request"
    )]
    IdTaken,
    /// The tenant has no such thread.
    #[error("there is no thread with this id")]
    ThreadNotFound,
    /// The thread wants no title: it has one, or another run is to title it.
    #[error("the thread wants no title")]
    TitleNotWanted,
    /// The questions that the request answers are not all open, or not all that are open.
    #[error(
        "these approval requests are no longer open: they were decided, or the response has ended"
    )]
    AlreadyAnswered,
    /// Nobody answered the questions in time.
    #[error("nobody decided these approval requests in time: they are closed")]
    AnsweredLate,
    /// A run of the thread has not ended.
    #[error(
        "a run of this thread has not ended: wait for its end, cancel it, or send `\"on_busy\": \"queue\"`"
    )]
    ThreadBusy,
    /// As many messages as may wait for the run of the thread do.
    #[error(
        "{MOST_WAITING_INPUTS} messages wait for the run of this thread already: try again later"
    )]
    InputsFull,
    /// Too many runs of this tenant are waiting.
    #[error("this tenant already has {limit} queued runs, as many as it may: try again later")]
    TenantQueueFull {
        /// The limit that was reached.
        limit: u32,
    },
    /// Too many runs are waiting.
    #[error("the system is full: try again later")]
    SystemQueueFull {
        /// The limit that was reached.
        limit: u32,
    },
    /// Too many runs of this key are queued or running.
    #[error(
        "this API key already has {limit} runs queued or at work, as many as it may: try again when one has ended"
    )]
    TooManyRuns {
        /// The limit that was reached.
        limit: u32,
    },
    /// Too little of the key's budget for this month is left.
    #[error("this API key's {} is used up, or what is left is too little for this request: there is another one from {until} on", .budget.of_what())]
    BudgetExceeded {
        /// The budget.
        budget: Budget,
        /// The day on which the next budget begins, UTC.
        until: NaiveDate,
        /// The seconds until then.
        seconds: u32,
    },
    /// Too little of the budget is left while other runs hold their reservations; once they end
    /// there may be enough.
    #[error(
        "what is left of this API key's budget is set aside for its other runs: try again when one has ended"
    )]
    BudgetReserved,
}

impl Accept {
    /// Returns the run that the same key accepted before.
    pub fn replayed(&self) -> Option<RunId> {
        match self {
            Self::Replay(run) => Some(run.id),
            _ => None,
        }
    }
}
