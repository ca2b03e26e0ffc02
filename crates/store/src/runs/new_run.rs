//! A run that asks to be accepted, and what it is told.

use baton_protocol::{ApiKeyId, Lane, RunId, RunSpec, ThreadId};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::value::RawValue;

use crate::budget::{Budget, TurnWish};
use crate::idempotency_keys::IdempotencyKey;
use crate::runs::read::RunRecord;

/// A run to be accepted.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// Its id, a UUIDv7 of now: lists are sorted by it.
    pub id: RunId,
    /// Which queue it waits in.
    pub lane: Lane,
    /// What is to be done.
    pub spec: &'a RunSpec,
    /// The thread it continues.
    pub thread_id: Option<ThreadId>,
    /// The key it was submitted with.
    pub api_key_id: Option<ApiKeyId>,
    /// If that key limits what it may use up: what the run's first turn is to use up at most.
    pub metered: Option<TurnWish>,
    /// The client's own words about it, a JSON object.
    pub metadata: Option<&'a RawValue>,
    /// Whether the caller's going away cancels it.
    pub cancel_on_disconnect: bool,
    /// What makes the submission repeatable.
    pub idempotency: Option<&'a IdempotencyKey>,
}

/// How many runs may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of one tenant: counted in the accepting transaction.
    pub tenant: u32,
    /// Of all: held to an estimate that is at most half a second old.
    pub system: u32,
}

/// The verdict on a submission.
#[derive(Debug, Clone)]
pub enum Accept {
    /// It is accepted, once the transaction is committed.
    Created {
        /// The time in its row.
        created_at: DateTime<Utc>,
    },
    /// The same key has made this run before, of the same body. Read in the transaction that found
    /// the key, so that nothing has to be read again for an answer.
    Replay(Box<RunRecord>),
    /// The same key has made a run before, of another body.
    KeyReused,
    /// There is a run with this id, in this tenant or another, that this submission has not made.
    /// Nothing was written.
    IdTaken,
    /// Too many runs of this tenant are waiting. Nothing was written.
    TenantQueueFull {
        /// The limit that was met.
        limit: u32,
    },
    /// Too many runs are waiting. Nothing was written.
    SystemQueueFull {
        /// The limit that was met.
        limit: u32,
    },
    /// Too many runs of this key are queued or at work. Nothing was written.
    TooManyRuns {
        /// The limit that was met.
        limit: u32,
    },
    /// Too little of the key's budget of this month is left. Nothing was written.
    BudgetExceeded {
        /// Which of its budgets.
        budget: Budget,
        /// The day on which there is another one, UTC.
        until: NaiveDate,
        /// How long it is until then.
        seconds: u32,
    },
    /// Too little of it is left while other runs have taken their parts; when they have ended there
    /// may be enough. Nothing was written.
    BudgetReserved,
}

impl Accept {
    /// The run that the same key has made before.
    pub fn replayed(&self) -> Option<RunId> {
        match self {
            Self::Replay(run) => Some(run.id),
            _ => None,
        }
    }
}
