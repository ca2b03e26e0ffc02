//! Rebuilds the events of an ended or parked run from the ledger if the stream lacks them.

use baton_nats::Followed;
use baton_protocol::{Event, EventId, RunId, RunStatus, TenantId};
use baton_run_log::replay::{ReplayError, replay, replay_parked};
use baton_store::{ApprovalRecord, RunRecord, StepRecord, Store};
use bytes::Bytes;
use http::StatusCode;

use crate::error::ApiError;

/// The ledger's events after a cursor.
pub(crate) enum FromLedger {
    /// Exactly the events after the cursor, up to the run's end.
    Events(Vec<Followed>),
    /// The same for a parked run, up to its last question, which has this id. The stream has the
    /// events after it.
    Parked(Vec<Followed>, EventId),
    /// The cursor lies within a step, or never was an event.
    CursorUnknown,
    /// The run is active: the stream has its events.
    NotEnded,
}

/// Returns the rest of a run that has ended, or the events so far of a parked run.
pub(crate) async fn from_ledger(
    store: &Store,
    tenant: TenantId,
    run: RunId,
    after: EventId,
) -> Result<FromLedger, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let steps = tx.run_steps(run).await?;
    if record.status != RunStatus::AwaitingApproval {
        return rest_of(replay(&record, &steps, after), FromLedger::Events);
    }
    let asked = tx.run_approvals(run).await?;
    rest_of_parked(&record, &steps, &asked, after)
}

/// Returns the events so far of a parked run from its rows.
pub(super) fn rest_of_parked(
    record: &RunRecord,
    steps: &[StepRecord],
    asked: &[ApprovalRecord],
    after: EventId,
) -> Result<FromLedger, ApiError> {
    let last = record.last_event_id;
    let shown = replay_parked(record, steps, asked, after);
    rest_of(shown, |events| FromLedger::Parked(events, last))
}

/// Returns the rest of a run from its terminal record. It never changes, so it is not read again.
pub(super) async fn rest_of_ended(
    store: &Store,
    tenant: TenantId,
    record: &RunRecord,
    after: EventId,
) -> Result<FromLedger, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    let steps = tx.run_steps(record.id).await?;
    rest_of(replay(record, &steps, after), FromLedger::Events)
}

fn rest_of(
    replayed: Result<Vec<Event>, ReplayError>,
    found: impl FnOnce(Vec<Followed>) -> FromLedger,
) -> Result<FromLedger, ApiError> {
    match replayed {
        Ok(events) => {
            let followed = events.into_iter().map(|event| {
                let mut line = Vec::new();
                event.encode_into(&mut line);
                line.pop();
                let line = Bytes::from(line);
                Followed { event, line }
            });
            Ok(found(followed.collect()))
        }
        Err(ReplayError::NotEnded) => Ok(FromLedger::NotEnded),
        Err(ReplayError::CursorUnknown(_)) => Ok(FromLedger::CursorUnknown),
        Err(error @ (ReplayError::Unreadable(_) | ReplayError::NoRoom(_))) => {
            Err(ApiError::internal(&error))
        }
    }
}

/// Returns the error for a cursor that the ledger cannot resolve: the stream has lost the events
/// after it, and the ledger knows only the ends of steps.
pub(crate) fn lies_within_a_step(run: RunId) -> ApiError {
    let message = format!(
        "the events behind the cursor are no longer stored, and it lies within a step: begin again \
         with GET /v1/runs/{run}/events?rebuilt=true and no cursor, or read the run, \
         GET /v1/runs/{run}"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message).of_run(run)
}
