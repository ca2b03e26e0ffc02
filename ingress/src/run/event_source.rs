//! Finds the events of a run after a cursor: in the stream, in the ledger, or first in the ledger
//! and then in the stream.

use baton_nats::{EventFollower, Followed, ResumeError, Subscribed, Unresumed};
use baton_protocol::{EventId, RunId, RunStatus, TenantId};
use baton_store::{ApprovalRecord, RunRecord, StepRecord, Store};
use http::StatusCode;

use super::replay::{FromLedger, lies_within_a_step, rest_of_ended, rest_of_parked};
use crate::error::ApiError;
use crate::run::reader::RunReader;

/// The preferred source of the events of a run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stream, as long as it has them all.
    Stream,
    /// The ledger, even if the stream has them: fewer, larger events.
    Ledger,
}

/// The events after a cursor, and the source that serves them.
pub(crate) enum EventsAfter {
    /// None: the cursor is the run's last event.
    Nothing,
    /// All events of a run that has ended.
    Ledger(Vec<Followed>),
    /// A parked run: the events so far, then a follower.
    Parked(Vec<Followed>, Box<EventFollower>),
    /// A follower: the stored events, then the live ones.
    Log(Box<EventFollower>),
}

/// Finds a run's events after a cursor.
pub(crate) async fn find_events(
    runs: &RunReader,
    tenant: TenantId,
    run: RunId,
    after: EventId,
    source: Source,
) -> Result<EventsAfter, ApiError> {
    // Subscribe before the row is read, so that an end in between is heard.
    let subscribed = runs.subscribe(tenant, run).await?;
    let mut tx = runs.store.tenant(tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let parked = match record.status {
        RunStatus::AwaitingApproval => Some(Parked {
            steps: tx.run_steps(run).await?,
            asked: tx.run_approvals(run).await?,
        }),
        _ => None,
    };
    drop(tx);
    let ended = record.ended();
    // If the stream has no event, only the ledger has them: they aged out, were lost, or there was
    // only the end of a run that never began. An unknown tip is read again below.
    let from_ledger = source == Source::Ledger
        || (ended.is_some() || parked.is_some()) && {
            let tip = runs.bus.event_tip_direct(tenant, run).await;
            tip.is_ok_and(|tip| tip.is_none())
        };
    if from_ledger && let Some(parked) = &parked {
        return parked.events_after(&record, subscribed, after);
    }
    if let Some(ended) = &ended {
        if after == ended.last_event_id {
            return Ok(EventsAfter::Nothing);
        }
        if after > ended.last_event_id {
            return Err(cursor_unknown(run));
        }
        if from_ledger {
            return replayed(&runs.store, tenant, &record, after, lies_within_a_step).await;
        }
        // The stream may have lost the run's end, and then nobody else will append it.
        runs.append_end(tenant, run, ended).await;
    }
    let Unresumed { reason, subscribed } = match subscribed.resume(after).await {
        Ok(follower) => return Ok(EventsAfter::Log(Box::new(follower))),
        Err(unresumed) => *unresumed,
    };
    match (reason, parked) {
        // The ledger has the events that the log lost. A log that begins with the run's first event
        // may have lost later ones.
        (ResumeError::Expired, _) if ended.is_some() => {
            replayed(&runs.store, tenant, &record, after, lies_within_a_step).await
        }
        (ResumeError::Expired, Some(parked)) => parked.events_after(&record, subscribed, after),
        (ResumeError::Expired, None) => Err(events_expired(run)),
        (ResumeError::CursorUnknown, _) if ended.is_some() => {
            replayed(&runs.store, tenant, &record, after, cursor_unknown).await
        }
        (ResumeError::CursorUnknown, _) => Err(cursor_unknown(run)),
        (ResumeError::Unreadable(error), _) => Err(ApiError::internal(&error)),
        (ResumeError::Bus(error), _) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the event log cannot be read"
            );
            let message = "the events cannot be read: try again";
            Err(ApiError::unavailable("broker_unavailable", message))
        }
    }
}

/// The rows from which the events of a parked run are rebuilt, read with its record.
struct Parked {
    steps: Vec<StepRecord>,
    asked: Vec<ApprovalRecord>,
}

impl Parked {
    /// Returns the run's events: the past ones from the ledger, then the stream.
    fn events_after(
        &self,
        record: &RunRecord,
        subscribed: Subscribed,
        after: EventId,
    ) -> Result<EventsAfter, ApiError> {
        match rest_of_parked(record, &self.steps, &self.asked, after)? {
            FromLedger::Parked(events, last) => Ok(EventsAfter::Parked(
                events,
                Box::new(subscribed.behind(last)),
            )),
            FromLedger::Events(events) => Ok(EventsAfter::Ledger(events)),
            FromLedger::CursorUnknown => Err(lies_within_a_step(record.id)),
            FromLedger::NotEnded => Err(events_expired(record.id)),
        }
    }
}

/// Returns the events of a run that has ended, from the ledger.
async fn replayed(
    store: &Store,
    tenant: TenantId,
    ended: &RunRecord,
    after: EventId,
    unknown: fn(RunId) -> ApiError,
) -> Result<EventsAfter, ApiError> {
    let run = ended.id;
    match rest_of_ended(store, tenant, ended, after).await? {
        FromLedger::Events(events) => Ok(EventsAfter::Ledger(events)),
        FromLedger::CursorUnknown => Err(unknown(run)),
        FromLedger::NotEnded | FromLedger::Parked(..) => Err(events_expired(run)),
    }
}

fn cursor_unknown(run: RunId) -> ApiError {
    let message = "the cursor is not an event of this run: begin without one";
    ApiError::new(StatusCode::GONE, "cursor_unknown", message).of_run(run)
}

/// Returns the error for an active run: the ledger has the events only once it has ended.
pub(crate) fn events_expired(run: RunId) -> ApiError {
    let message = format!(
        "events behind the cursor are no longer stored, and the run goes on: when it has ended, \
         GET /v1/runs/{run} and its events from the beginning have the whole"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message).of_run(run)
}
