//! Appends the events that the log of a run without a holder lacks.
//!
//! The ledger ends or parks a run first and the events follow. A worker may die between the two,
//! and a run ended from outside (cancelled while queued, given up after too many failures) has no
//! worker at all. The process that finds such a run rebuilds the events from the row. Several
//! processes may do so at once, because the log accepts the first.

use std::ops::ControlFlow;
use std::time::Duration;

use baton_nats::{AppendError, ReadError, StoredEvents, StreamSeq};
use baton_protocol::{RunId, TenantId};
use baton_store::{ApprovalRecord, EndedRun, ParkedRun, RecordedEvents, Store, StoreError};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::append::{EventLogs, Failure, Message, Writer, append};
use crate::parked_events::missing_questions;
use crate::terminal_event::{is_ended_from_outside, missing_end};

/// The rows that missing events are rebuilt from.
pub trait RecordedRuns: Send + Sync {
    /// Returns the events that the run's last commit names.
    fn last_recorded_events(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> impl Future<Output = Result<RecordedEvents, StoreError>> + Send;

    /// Returns the run's questions to people.
    fn run_approvals(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> impl Future<Output = Result<Vec<ApprovalRecord>, StoreError>> + Send;
}

impl RecordedRuns for Store {
    async fn last_recorded_events(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<RecordedEvents, StoreError> {
        self.system().last_recorded_events(tenant, run).await
    }

    async fn run_approvals(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        self.system().run_approvals(tenant, run).await
    }
}

/// A reason for which the events are not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The log's tip could not be read.
    #[error("the log's tip cannot be read")]
    Tip(#[source] ReadError),
    /// The rows that the events are rebuilt from could not be read.
    #[error("the run's rows cannot be read")]
    Ledger(#[source] StoreError),
    /// The events were not stored, or it is unknown whether they were.
    #[error("the events cannot be stored")]
    Append(#[source] AppendError),
}

/// Appends the run's terminal event, made at `now`, unless it is there. Returns whether this call
/// appended it.
pub async fn repair_end<L: EventLogs, R: RecordedRuns>(
    logs: &L,
    rows: &R,
    now: DateTime<Utc>,
    tenant: TenantId,
    run: RunId,
    ended: &EndedRun,
) -> Result<bool, RepairError> {
    let recorded = if is_ended_from_outside(ended) {
        let last = rows.last_recorded_events(tenant, run).await;
        Some(last.map_err(RepairError::Ledger)?)
    } else {
        None
    };
    let missing = |tip: Option<&StoredEvents>| missing_end(run, ended, tip, recorded, now);
    append(logs, tenant, run, Repair::new(missing)).await
}

/// Appends the events of a parked run's questions, made at `now`, unless they are there or the run
/// has resumed. Returns whether this call appended any.
pub async fn repair_questions<L: EventLogs, R: RecordedRuns>(
    logs: &L,
    rows: &R,
    now: DateTime<Utc>,
    tenant: TenantId,
    run: RunId,
    parked: ParkedRun,
) -> Result<bool, RepairError> {
    let asked = rows.run_approvals(tenant, run).await;
    let asked = asked.map_err(RepairError::Ledger)?;
    let missing = |tip: Option<&StoredEvents>| missing_questions(run, parked, &asked, tip, now);
    append(logs, tenant, run, Repair::new(missing)).await
}

/// A writer of the lines that `missing` returns for the log's last message. It tries once: its
/// caller is asked again, or another process repairs the log.
struct Repair<F> {
    missing: F,
    message: Option<Message>,
}

impl<F: Fn(Option<&StoredEvents>) -> Option<Bytes>> Repair<F> {
    const fn new(missing: F) -> Self {
        let message = None;
        Self { missing, message }
    }
}

impl<F: Fn(Option<&StoredEvents>) -> Option<Bytes>> Writer for Repair<F> {
    type Done = bool;
    type Error = RepairError;

    fn message(&self) -> Option<Message> {
        self.message.clone()
    }

    fn decide(&mut self, tip: Option<&StoredEvents>) -> ControlFlow<Result<bool, RepairError>> {
        let Some(lines) = (self.missing)(tip) else {
            return ControlFlow::Break(Ok(false));
        };
        let after = tip.map_or(StreamSeq::NONE, |tip| tip.seq);
        self.message = Some(Message {
            after,
            events: lines.into(),
        });
        ControlFlow::Continue(())
    }

    fn stored(&self, _: StreamSeq) -> bool {
        true
    }

    fn after_failure(&mut self, failure: Failure) -> Result<Duration, RepairError> {
        Err(match failure {
            Failure::Append(error) => RepairError::Append(error),
            Failure::Tip(error) => RepairError::Tip(error),
        })
    }
}
