//! The events of a run that has ended or waits for a person, from the ledger, when the stream no longer has them.

use baton_nats::Followed;
use baton_protocol::{EventId, RunId, RunStatus, TenantId};
use baton_run_log::replay::{ReplayError, replay, replay_parked};
use bytes::Bytes;
use http::StatusCode;

use crate::error::ApiError;
use crate::state::AppState;

/// What the ledger has to say to a follower behind a cursor.
pub(crate) enum FromLedger {
    /// Exactly what it has not seen, up to the run's end.
    Events(Vec<Followed>),
    /// The same of a run that waits for a person, up to its questions: what follows the last of them,
    /// which has this id, is the stream's to tell.
    Parked(Vec<Followed>, EventId),
    /// The cursor lies within a step, or never was an event.
    CursorUnknown,
    /// The run goes on: its events are the stream's to tell.
    NotEnded,
}

/// The rest of a run that has ended, or what was told of one that waits for a person.
pub(crate) async fn from_ledger(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    after: EventId,
) -> Result<FromLedger, ApiError> {
    let mut tx = state.store.tenant(tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let steps = tx.run_steps(run).await?;
    let parked = record.status == RunStatus::AwaitingApproval;
    let events = if parked {
        let asked = tx.run_approvals(run).await?;
        replay_parked(&record, &steps, &asked, after)
    } else {
        replay(&record, &steps, after)
    };
    drop(tx);
    match events {
        Ok(events) => {
            let followed = events.into_iter().map(|event| {
                let mut line = Vec::new();
                event.encode_into(&mut line);
                line.pop();
                let line = Bytes::from(line);
                Followed { event, line }
            });
            let followed = followed.collect();
            Ok(if parked {
                FromLedger::Parked(followed, record.last_event_id)
            } else {
                FromLedger::Events(followed)
            })
        }
        Err(ReplayError::NotEnded) => Ok(FromLedger::NotEnded),
        Err(ReplayError::CursorUnknown(_)) => Ok(FromLedger::CursorUnknown),
        Err(error @ (ReplayError::Unreadable(_) | ReplayError::NoRoom(_))) => {
            Err(ApiError::internal(&error))
        }
    }
}

/// The stream has lost what follows, and the ledger knows only where steps end.
pub(crate) fn lies_within_a_step(run: RunId) -> ApiError {
    let message = format!(
        "the events behind the cursor are no longer stored, and it lies within a step: begin again \
         with GET /v1/runs/{run}/events?rebuilt=true and no cursor, or read the run, \
         GET /v1/runs/{run}"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message).of_run(run)
}
