//! The table `runs`: a file per transition. `baton_protocol::run` specifies each transition; the
//! statements mirror it, and `tests/transitions.rs` compares the two.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod attempts;
pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod decide;
pub(crate) mod delete;
pub(crate) mod ended;
pub(crate) mod export;
pub(crate) mod finish;
pub(crate) mod lease;
pub(crate) mod new_run;
pub(crate) mod on_busy;
pub(crate) mod park;
pub(crate) mod read;
pub(crate) mod rescue;
pub(crate) mod tasks;

use std::time::Duration;

use baton_protocol::{EventId, Outcome, RunStatus, Usage};

use crate::columns::{self, OutcomeColumns};
use crate::errors::StoreError;

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRun {
    /// The attempt that ended it: the holder's, or a new one if it was ended from outside.
    pub attempt: u32,
    /// The outcome.
    pub outcome: Outcome,
    /// The id of its terminal event.
    pub last_event_id: EventId,
    /// The tokens of all recorded turns.
    pub usage: Usage,
    /// The time from the cancel request to the end of a cancelled run; `None` unless cancelled.
    pub cancel_latency: Option<Duration>,
    /// Whether this call ended it, and not an earlier one.
    pub newly: bool,
}

/// The columns that every ending is read from.
struct EndedColumns {
    status: String,
    attempt: i32,
    last_event_id: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    finish_reason: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    error_upstream: Option<String>,
    cancel_reason: Option<String>,
    usage_estimated: bool,
    /// From the cancel request to the end.
    cancel_seconds: Option<f64>,
}

/// Takes the columns of [`EndedColumns`] out of a row with more columns.
macro_rules! ended_columns {
    ($row:expr) => {
        EndedColumns {
            status: $row.status,
            attempt: $row.attempt,
            last_event_id: $row.last_event_id,
            prompt_tokens: $row.prompt_tokens,
            completion_tokens: $row.completion_tokens,
            total_tokens: $row.total_tokens,
            finish_reason: $row.finish_reason,
            error_code: $row.error_code,
            error_message: $row.error_message,
            error_upstream: $row.error_upstream,
            cancel_reason: $row.cancel_reason,
            usage_estimated: $row.usage_estimated,
            cancel_seconds: $row.cancel_seconds,
        }
    };
}
use ended_columns;

impl EndedColumns {
    /// Reads the ending; an error if the run has not ended.
    fn read(self, newly: bool) -> Result<EndedRun, StoreError> {
        let status: RunStatus = columns::status(&self.status)?;
        let outcome = OutcomeColumns {
            finish_reason: self.finish_reason,
            error_code: self.error_code,
            error_message: self.error_message,
            error_upstream: self.error_upstream,
            cancel_reason: self.cancel_reason,
        };
        Ok(EndedRun {
            attempt: columns::count(self.attempt),
            outcome: outcome
                .read(status)?
                .ok_or_else(|| StoreError::unreadable("runs.status", &self.status))?,
            last_event_id: columns::event_id(self.last_event_id),
            usage: columns::usage_or_guess(
                self.prompt_tokens,
                self.completion_tokens,
                self.total_tokens,
                self.usage_estimated,
            ),
            cancel_latency: columns::latency(self.cancel_seconds)
                .filter(|_| status == RunStatus::Cancelled),
            newly,
        })
    }
}
