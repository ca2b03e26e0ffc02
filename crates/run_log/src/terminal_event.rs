//! The event that ends a run, and the lines that the log of an ended run lacks.

use std::time::Duration;

use baton_nats::StoredEvents;
use baton_protocol::event::{AttemptReset, RunCancelled, RunCompleted, RunFailed};
use baton_protocol::{Event, EventData, EventId, Outcome, RunId, Usage};
use baton_store::{EndedRun, RecordedEvents};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::event_writer::last_event;

/// Makes the event that ends a run's log. `cancel_latency` is for a cancelled run.
pub fn terminal_event(
    outcome: &Outcome,
    usage: Usage,
    cancel_latency: Option<Duration>,
) -> EventData {
    match outcome {
        Outcome::Completed(finish_reason) => EventData::RunCompleted(RunCompleted {
            finish_reason: *finish_reason,
            usage,
        }),
        Outcome::Failed(error) => EventData::RunFailed(RunFailed {
            error: error.clone(),
            usage,
        }),
        Outcome::Cancelled(reason) => EventData::RunCancelled(RunCancelled {
            reason: reason.clone(),
            usage,
            cancel_latency_ms: cancel_latency
                .map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
        }),
    }
}

/// Returns whether another process than its holder may have ended the run, after earlier attempts.
/// Events that no step recorded must then be withdrawn first. A holder that stored only its reset in
/// this attempt ends with the same id, so the last recorded event decides.
pub const fn is_ended_from_outside(ended: &EndedRun) -> bool {
    ended.attempt > 1 && ended.last_event_id.n() == 2
}

/// Returns the lines that an ended run's log lacks after its last message; `None` if it has its
/// terminal event. `recorded` are the last recorded events of a run that was [ended from
/// outside](is_ended_from_outside). Pure.
pub fn missing_end(
    run: RunId,
    ended: &EndedRun,
    tip: Option<&StoredEvents>,
    recorded: Option<RecordedEvents>,
    now: DateTime<Utc>,
) -> Option<Bytes> {
    let tip = tip.and_then(last_event);
    let tip = tip.as_ref();
    let last = ended.last_event_id;
    if tip.is_some_and(|tip| tip.id >= last) {
        return None;
    }
    let step = tip.map_or(0, |tip| tip.step);
    let tip_id = tip.map_or(EventId::ORIGIN, |tip| tip.id);
    // A step that the last attempt recorded shows that its holder ended the run, and withdrew what was
    // to be withdrawn.
    let resets = recorded.filter(|events| {
        events.last.attempt() < last.attempt() && tip_id.attempt() < last.attempt()
    });
    // The last event stored before, if it is not the tip itself. If the broker lost some events,
    // the gap must show, because readers would take the rest for the whole. A commit names the
    // events that follow it, which may never have been stored; the one before them was stored.
    let follows = resets.map_or(last, |events| events.of_commit);
    let stored_before = match follows.n() {
        0 | 1 => EventId::ORIGIN,
        n => EventId::new(follows.attempt(), n - 1),
    };
    let mut prev = tip_id.max(stored_before);
    let mut out = Vec::with_capacity(512);
    let mut write = |id: EventId, data: EventData| {
        Event {
            id,
            prev,
            run_id: run,
            step,
            at: now,
            data,
        }
        .encode_into(&mut out);
        prev = id;
    };
    if let Some(events) = resets {
        let reset = AttemptReset {
            resume_after: events.last,
            continues: false,
        };
        write(
            EventId::new(last.attempt(), 1),
            EventData::AttemptReset(reset),
        );
    }
    write(
        last,
        terminal_event(&ended.outcome, ended.usage, ended.cancel_latency),
    );
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use baton_nats::StreamSeq;
    use baton_protocol::FinishReason;
    use baton_protocol::event::Text;

    use super::*;

    fn run() -> RunId {
        RunId::new(DateTime::UNIX_EPOCH)
    }

    fn stored(id: EventId) -> Bytes {
        let mut line = Vec::new();
        Event {
            id,
            prev: EventId::ORIGIN,
            run_id: run(),
            step: 1,
            at: DateTime::UNIX_EPOCH,
            data: EventData::TextDelta(Text {
                text: String::new(),
            }),
        }
        .encode_into(&mut line);
        line.into()
    }

    /// Returns the ids and predecessors of the events appended after `tip` to a run that ended with
    /// `last`.
    fn appended(
        last: EventId,
        tip: Option<EventId>,
        recorded: Option<RecordedEvents>,
    ) -> Vec<(EventId, EventId)> {
        let ended = EndedRun {
            newly: false,
            cancel_latency: None,
            attempt: last.attempt(),
            last_event_id: last,
            outcome: Outcome::Completed(FinishReason::Stop),
            usage: Usage::default(),
        };
        let tip = tip.map(|id| StoredEvents {
            seq: StreamSeq::from_u64(1),
            payload: stored(id),
        });
        let payload = missing_end(run(), &ended, tip.as_ref(), recorded, DateTime::UNIX_EPOCH);
        let payload = payload.unwrap();
        Event::lines(&payload)
            .map(|line| Event::decode(line).unwrap())
            .map(|event| (event.prev, event.id))
            .collect()
    }

    #[test]
    fn the_end_follows_the_log_and_shows_what_the_log_has_lost() {
        let id = EventId::new;
        let end = id(2, 5);
        assert_eq!(appended(end, Some(id(2, 4)), None), [(id(2, 4), end)]);
        // A late event of an older attempt, or a log that was lost from there on.
        assert_eq!(appended(end, Some(id(1, 9)), None), [(id(2, 4), end)]);
        assert_eq!(appended(end, Some(id(2, 2)), None), [(id(2, 4), end)]);
        assert_eq!(appended(end, None, None), [(id(2, 4), end)]);
        // Ended before any claim: nothing was stored.
        assert_eq!(
            appended(id(1, 1), None, None),
            [(EventId::ORIGIN, id(1, 1))]
        );
    }

    #[test]
    fn an_end_from_outside_withdraws_what_no_step_recorded_and_shows_what_is_lost_of_the_rest() {
        let id = EventId::new;
        let (reset, end) = (id(3, 1), id(3, 2));
        let only = |event| {
            Some(RecordedEvents {
                of_commit: event,
                last: event,
            })
        };
        let recorded = only(id(1, 6));
        let behind = |prev| [(prev, reset), (reset, end)];
        assert_eq!(appended(end, Some(id(2, 3)), recorded), behind(id(2, 3)));
        // The event that the commit named was never stored, or was lost with others.
        assert_eq!(appended(end, Some(id(1, 5)), recorded), behind(id(1, 5)));
        assert_eq!(appended(end, Some(id(1, 4)), recorded), behind(id(1, 5)));
        assert_eq!(appended(end, None, recorded), behind(id(1, 5)));
        assert_eq!(appended(end, Some(reset), recorded), [(reset, end)]);
        // The holder recorded a turn without any event after its reset, and the log was lost.
        assert_eq!(appended(end, None, only(reset)), [(reset, end)]);
        // The commit took a message, and none of its events was stored, or some.
        let recorded = Some(RecordedEvents {
            of_commit: id(1, 6),
            last: id(1, 8),
        });
        for tip in [id(1, 5), id(1, 6), id(1, 7), id(1, 8), id(2, 3)] {
            assert_eq!(appended(end, Some(tip), recorded), behind(tip));
        }
        assert_eq!(appended(end, Some(id(1, 4)), recorded), behind(id(1, 5)));
    }
}
