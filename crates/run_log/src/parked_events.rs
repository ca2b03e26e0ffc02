//! The events of a parked run's questions, and the lines that its log lacks.
//!
//! Their ids belong to the parking attempt and were recorded with the commit, so any process may
//! append them. The log accepts them only until a later attempt writes.

use baton_nats::StoredEvents;
use baton_protocol::event::{ApprovalRequested, BudgetReached, shown_arguments};
use baton_protocol::{Event, EventData, EventId, RunId};
use baton_store::{ApprovalRecord, ParkedRun};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::event_writer::last_event;

/// Makes the event for a question.
pub fn question_event(approval: &ApprovalRecord) -> EventData {
    if let Some(reached) = approval.reached.clone() {
        return EventData::BudgetReached(BudgetReached {
            approval_id: approval.id,
            limit: reached.limit,
            limits: reached.limits,
            used: reached.used,
            expires_at: approval.expires_at,
        });
    }
    EventData::ApprovalRequested(ApprovalRequested {
        approval_id: approval.id,
        call_id: approval.call_id.clone(),
        name: approval.name.clone(),
        arguments: shown_arguments(&approval.arguments).to_owned(),
        reason: approval.reason.as_str().to_owned(),
        expires_at: Some(approval.expires_at),
        input: approval.input.clone(),
    })
}

/// Returns the parking attempt's questions, each with the id of its event. `asked` is in order, and
/// may include those of other attempts.
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

/// Returns the lines that a parked run's log lacks after its last message; `None` if it has all
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
                data: question_event(approval),
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
                parameters: None,
                reached: None,
                input: None,
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
                    data: question_event(&asked[0]),
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
