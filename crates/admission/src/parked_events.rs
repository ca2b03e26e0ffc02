//! Whoever finds a run parked makes sure that its followers know what a person is asked.
//!
//! The ledger parks a run first and the events follow; a worker may die between the two. The ids
//! are the parking attempt's and were recorded with the commit, so it does not matter who appends
//! them; and the log takes them only while no later attempt has written.

use baton_nats::{Bus, StoredEvents};
use baton_protocol::event::{ApprovalRequested, shown_arguments};
use baton_protocol::{Event, EventData, EventId, RunId, TenantId};
use baton_store::{ApprovalRecord, ParkedRun, Store};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::terminal_event::{TerminalEventError, append_missing, last_event};

/// The event that asks.
pub fn approval_requested(approval: &ApprovalRecord) -> EventData {
    EventData::ApprovalRequested(ApprovalRequested {
        approval_id: approval.id,
        call_id: approval.call_id.clone(),
        name: approval.name.clone(),
        arguments: shown_arguments(&approval.arguments).to_owned(),
        reason: approval.reason.as_str().to_owned(),
    })
}

/// What the parking attempt asked, each question with the id of its event. `asked` may have those of
/// other attempts too, and are in order.
pub fn questions(
    parked: ParkedRun,
    asked: &[ApprovalRecord],
) -> impl Iterator<Item = (EventId, &ApprovalRecord)> {
    let last = parked.last_event_id;
    let of_it = move |approval: &&ApprovalRecord| approval.attempt == parked.attempt;
    let count = u32::try_from(asked.iter().filter(of_it).count()).unwrap_or(u32::MAX);
    let first = (last.n() + 1).saturating_sub(count);
    (first..)
        .map(move |n| EventId::new(last.attempt(), n))
        .zip(asked.iter().filter(of_it))
}

/// Appends the events that ask, made at `now`, unless they are there or the run has gone on. Safe
/// to do by several at once: the log takes the first.
pub async fn ensure_parked_events(
    bus: &Bus,
    store: &Store,
    now: DateTime<Utc>,
    tenant: TenantId,
    run: RunId,
    parked: ParkedRun,
) -> Result<(), TerminalEventError> {
    let asked = store
        .system()
        .run_approvals(tenant, run)
        .await
        .map_err(TerminalEventError::Ledger)?;
    append_missing(bus, tenant, run, |tip| {
        missing_questions(run, parked, &asked, tip, now)
    })
    .await?;
    Ok(())
}

/// The lines that the log of a parked run lacks, by its last message; none if it has all of its
/// questions, or a later attempt has written. `asked` are the run's, in order. Pure.
pub fn missing_questions(
    run: RunId,
    parked: ParkedRun,
    asked: &[ApprovalRecord],
    tip: Option<&StoredEvents>,
    now: DateTime<Utc>,
) -> Option<Bytes> {
    let last = parked.last_event_id;
    let mut prev = tip
        .and_then(last_event)
        .map_or(EventId::ORIGIN, |tip| tip.id);
    if prev >= last {
        return None;
    }
    let mut out = Vec::with_capacity(512);
    for (id, approval) in questions(parked, asked) {
        if id > prev {
            Event {
                id,
                prev,
                run_id: run,
                step: approval.step,
                at: now,
                data: approval_requested(approval),
            }
            .encode_into(&mut out);
            prev = id;
        }
    }
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use baton_nats::StreamSeq;
    use baton_protocol::{ApprovalId, ApprovalReason};

    use super::*;

    #[test]
    fn what_the_log_holds_already_is_not_asked_again() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let run = RunId::new(now);
        let asked: Vec<_> = (2..5)
            .map(|step| ApprovalRecord {
                id: ApprovalId::new(now),
                run,
                step,
                attempt: 2,
                reason: ApprovalReason::OutcomeUnknown,
                call_id: format!("call_{step}"),
                name: "pay".into(),
                arguments: "{}".into(),
                created_at: now,
                expires_at: now,
                decided: None,
            })
            .collect();
        let parked = ParkedRun {
            attempt: 2,
            last_event_id: EventId::new(2, 9),
        };
        let rebuilt = |tip: Option<EventId>| {
            let tip = tip.map(|id| {
                let mut payload = Vec::new();
                Event {
                    id,
                    prev: EventId::ORIGIN,
                    run_id: run,
                    step: 1,
                    at: now,
                    data: approval_requested(&asked[0]),
                }
                .encode_into(&mut payload);
                StoredEvents {
                    seq: StreamSeq::NONE,
                    payload: payload.into(),
                }
            });
            let out = missing_questions(run, parked, &asked, tip.as_ref(), now);
            Event::lines(&out.unwrap_or_default())
                .map(|line| Event::decode(line).unwrap())
                .map(|event| (event.prev.n(), event.id.n(), event.step))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rebuilt(Some(EventId::new(2, 6))),
            [(6, 7, 2), (7, 8, 3), (8, 9, 4)]
        );
        assert_eq!(rebuilt(Some(EventId::new(2, 8))), [(8, 9, 4)]);
        assert_eq!(rebuilt(Some(EventId::new(2, 9))), []);
        assert_eq!(rebuilt(Some(EventId::new(3, 1))), []);
        assert_eq!(rebuilt(None), [(0, 7, 2), (7, 8, 3), (8, 9, 4)]);
    }
}
