//! The events of a run that has ended, from the ledger, when the stream no longer has them.

use baton_admission::replay::{ReplayError, replay};
use baton_nats::Followed;
use baton_protocol::{EventId, RunId, TenantId};
use bytes::Bytes;
use http::StatusCode;

use crate::error::ApiError;
use crate::state::AppState;

/// What the ledger has to say to a follower behind a cursor.
pub(super) enum FromLedger {
    /// Exactly what it has not seen, up to the run's end.
    Events(Vec<Followed>),
    /// The cursor lies within a step, or never was an event.
    CursorUnknown,
    /// The run goes on: its events are the stream's to tell.
    NotEnded,
}

/// The rest of a run that has ended.
pub(super) async fn from_ledger(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    after: EventId,
) -> Result<FromLedger, ApiError> {
    let mut tx = state.store.tenant(tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let steps = tx.run_steps(run).await?;
    drop(tx);
    match replay(&record, &steps, after) {
        Ok(events) => {
            let followed = events.into_iter().map(|event| {
                let mut line = Vec::new();
                event.encode_into(&mut line);
                line.pop();
                let line = Bytes::from(line);
                Followed { event, line }
            });
            Ok(FromLedger::Events(followed.collect()))
        }
        Err(ReplayError::NotEnded) => Ok(FromLedger::NotEnded),
        Err(ReplayError::CursorUnknown(_)) => Ok(FromLedger::CursorUnknown),
        Err(error @ (ReplayError::Unreadable(_) | ReplayError::NoRoom(_))) => {
            Err(ApiError::internal(&error))
        }
    }
}

/// The stream has lost what follows, and the ledger knows only where steps end.
pub(super) fn lies_within_a_step(run: RunId) -> ApiError {
    let message = format!(
        "the events behind the cursor are no longer stored, and it lies within a step: begin again \
         with GET /v1/runs/{run}/events?rebuilt=true and no cursor, or read the run, \
         GET /v1/runs/{run}"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message).of_run(run)
}
