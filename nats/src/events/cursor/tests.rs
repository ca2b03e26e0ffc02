use std::collections::BTreeSet;

use baton_protocol::event::{AttemptReset, Text};
use baton_protocol::{Event, EventData, EventId, RunId};
use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Cursor, Verdict};

fn event(id: EventId, prev: EventId, data: EventData) -> Event {
    Event {
        id,
        prev,
        run_id: RunId::from_uuid(Uuid::nil()),
        step: 0,
        at: DateTime::UNIX_EPOCH,
        data,
    }
}

fn text(id: EventId, prev: EventId) -> Event {
    event(
        id,
        prev,
        EventData::TextDelta(Text {
            text: id.to_string(),
        }),
    )
}

fn reset(id: EventId, prev: EventId, resume_after: EventId, continues: bool) -> Event {
    event(
        id,
        prev,
        EventData::AttemptReset(AttemptReset {
            resume_after,
            continues,
        }),
    )
}

/// One attempt: the number of skipped attempts before it (they wrote nothing), the number of events
/// it wrote, how far back of the shown events it resumes, and whether a replaced worker writes an
/// event after its reset.
type Attempt = (u32, u32, usize, bool);

/// Builds a log that follows the rules: every event names the one before it, every attempt but the
/// first begins with a reset.
fn log_of(attempts: &[Attempt]) -> Vec<Event> {
    let mut log: Vec<Event> = Vec::new();
    let mut shown: Vec<EventId> = Vec::new();
    let mut attempt = 0;
    for &(skipped, events, back, zombie) in attempts {
        let before = attempt;
        attempt += 1 + skipped;
        let prev = |log: &Vec<Event>| log.last().map_or(EventId::ORIGIN, |event| event.id);
        let mut n = 1;
        if attempt > 1 {
            shown.truncate(shown.len().saturating_sub(back));
            let resume_after = shown.last().copied().unwrap_or_default();
            let id = EventId::new(attempt, n);
            log.push(reset(id, prev(&log), resume_after, false));
            shown.push(id);
            n += 1;
        }
        if zombie && before > 0 && before + 1 < attempt {
            // It has an attempt between the two, and its only event is this one.
            log.push(text(EventId::new(attempt - 1, 1), prev(&log)));
            // The rightful holder's append is refused now, so it begins again.
            continue;
        }
        for _ in 0..events {
            let id = EventId::new(attempt, n);
            log.push(text(id, prev(&log)));
            shown.push(id);
            n += 1;
        }
    }
    log
}

/// Returns the events that remain after all resets have withdrawn theirs.
fn shown(delivered: &[Event]) -> Vec<EventId> {
    let mut shown: Vec<EventId> = Vec::new();
    for event in delivered {
        if let EventData::AttemptReset(reset) = &event.data {
            shown.retain(|id| *id <= reset.resume_after);
        } else {
            shown.push(event.id);
        }
    }
    shown
}

/// Reads the log as a follower does: live events may be lost or repeated, and a gap is closed by
/// reading the log.
fn follow(log: &[Event], heard: &[usize]) -> Vec<Event> {
    let mut cursor = Cursor::after(EventId::ORIGIN);
    let mut delivered = Vec::new();
    let mut look = |until: usize, live: &Event| {
        if cursor.accept(live) == Verdict::Deliver {
            delivered.push(live.clone());
        } else if cursor.last() < live.id {
            for event in &log[..=until] {
                match cursor.accept(event) {
                    Verdict::Deliver => delivered.push(event.clone()),
                    Verdict::Drop => {}
                    Verdict::Gap => panic!("a gap in a whole log, at {}", event.id),
                }
            }
        }
    };
    for &at in heard {
        look(at, &log[at]);
    }
    if let Some(last) = log.last() {
        look(log.len() - 1, last);
    }
    delivered
}

prop_compose! {
    fn attempts()(attempts in prop::collection::vec((0_u32..3, 0_u32..5, 0_usize..6, any::<bool>()), 1..8))
        -> Vec<Attempt> { attempts }
}

proptest! {
    #[test]
    fn whatever_is_lost_or_repeated_the_end_is_the_same(
        attempts in attempts(),
        loss in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let log = log_of(&attempts);
        if log.is_empty() {
            return Ok(());
        }
        let whole = follow(&log, &(0..log.len()).collect::<Vec<_>>());
        // Heard in order, with repeats and holes.
        let mut heard: Vec<_> = loss.iter().map(|index| index.index(log.len())).collect();
        heard.sort_unstable();
        let lossy = follow(&log, &heard);

        let ids: Vec<_> = lossy.iter().map(|event| event.id).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b), "once, and in order: {ids:?}");
        prop_assert_eq!(shown(&lossy), shown(&whole));
    }

    #[test]
    fn resuming_after_any_event_gives_the_rest(attempts in attempts(), at in any::<prop::sample::Index>()) {
        let log = log_of(&attempts);
        let whole = follow(&log, &(0..log.len()).collect::<Vec<_>>());
        if whole.is_empty() {
            return Ok(());
        }
        let at = at.index(whole.len());
        let mut cursor = Cursor::after(whole[at].id);
        let mut rest = Vec::new();
        let from = log.iter().position(|event| event.id == whole[at].id).unwrap();
        for event in &log[from..] {
            match cursor.accept(event) {
                Verdict::Deliver => rest.push(event.id),
                Verdict::Drop => {}
                Verdict::Gap => prop_assert!(false, "a gap in a whole log, at {}", event.id),
            }
        }
        let expected: Vec<_> = whole[at + 1..].iter().map(|event| event.id).collect();
        prop_assert_eq!(rest, expected);
    }

    #[test]
    fn a_missing_event_that_nothing_withdraws_is_never_passed_over(
        attempts in attempts(),
        hole in any::<prop::sample::Index>(),
    ) {
        let mut log = log_of(&attempts);
        let standing: BTreeSet<_> =
            shown(&follow(&log, &(0..log.len()).collect::<Vec<_>>())).into_iter().collect();
        if log.is_empty() {
            return Ok(());
        }
        let missing = log.remove(hole.index(log.len()));
        let mut cursor = Cursor::after(EventId::ORIGIN);
        let mut gap = false;
        for event in &log {
            gap |= cursor.accept(event) == Verdict::Gap;
        }
        let last = log.last().is_none_or(|event| event.id < missing.id);
        if standing.contains(&missing.id) && !last {
            prop_assert!(gap, "{} is missing and nobody noticed", missing.id);
        }
    }
}

#[test]
fn a_reset_that_goes_on_behind_text_needs_that_text() {
    let mut seen = Cursor::after(EventId::new(1, 2));
    let continues = reset(
        EventId::new(2, 1),
        EventId::new(1, 4),
        EventId::new(1, 2),
        true,
    );
    assert_eq!(seen.accept(&continues), Verdict::Gap);
    let withdraws = reset(
        EventId::new(2, 1),
        EventId::new(1, 4),
        EventId::new(1, 2),
        false,
    );
    assert_eq!(seen.accept(&withdraws), Verdict::Deliver);
}

#[test]
fn a_reset_behind_a_committed_event_that_was_missed_is_a_gap() {
    let mut seen = Cursor::after(EventId::new(1, 2));
    let beyond = reset(
        EventId::new(2, 1),
        EventId::new(1, 4),
        EventId::new(1, 4),
        false,
    );
    assert_eq!(seen.accept(&beyond), Verdict::Gap);
}

#[test]
fn a_replaced_worker_is_not_heard() {
    let mut seen = Cursor::after(EventId::new(3, 1));
    assert_eq!(
        seen.accept(&text(EventId::new(2, 1), EventId::new(3, 1))),
        Verdict::Drop
    );
    // The holder's append was refused because of it, so it began again after it.
    let again = reset(
        EventId::new(4, 1),
        EventId::new(2, 1),
        EventId::new(3, 1),
        true,
    );
    assert_eq!(seen.accept(&again), Verdict::Deliver);
}

#[test]
fn the_first_event_must_be_the_first() {
    let mut new = Cursor::after(EventId::ORIGIN);
    assert_eq!(
        new.accept(&text(EventId::new(1, 2), EventId::new(1, 1))),
        Verdict::Gap
    );
    assert_eq!(
        new.accept(&text(EventId::new(1, 1), EventId::ORIGIN)),
        Verdict::Deliver
    );
}
