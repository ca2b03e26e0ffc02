//! The judgement after a broker lost its disk.

use super::*;

/// Returns the findings if the broker has lost everything that it stored from this time on.
fn after_loss(since: u64, breach: impl FnOnce(&mut History)) -> Vec<&'static str> {
    after(|history| {
        note(history, What::LogLost { since });
        breach(history);
    })
}

#[test]
fn a_lost_log_is_judged_by_what_remains_of_it() {
    assert!(after_loss(0, |history| history.logs.clear()).is_empty());
    assert!(after_loss(0, |history| history.logs[0].lines.truncate(2)).is_empty());
    // A log that was read before the loss is whole.
    let read_before = after_loss(0, |history| {
        history.logs[0].read_at = BEFORE;
        history.logs[0].lines.truncate(2);
    });
    assert_eq!(read_before, ["I11", "I4"]);
    // The middle is gone, and the hole shows.
    assert!(after_loss(0, |history| drop(history.logs[0].lines.drain(1..4))).is_empty());
    // A follower cannot see a hole that was filled up.
    let hidden = |history: &mut History| {
        let mut events = events();
        events.remove(4);
        events[4].prev = EventId::new(2, 2);
        history.logs[0].lines = events.iter().map(line).collect();
    };
    assert_eq!(after_loss(0, hidden), ["I11"]);
    let zombie = |history: &mut History| {
        let late = event(EventId::new(1, 3), EventId::new(2, 5), text("zombie"));
        history.logs[0].lines.push(line(&late));
    };
    assert!(after_loss(0, zombie).contains(&"I10"));
    let another_end = |history: &mut History| history.runs[0].status = RunStatus::Failed;
    assert_eq!(after_loss(0, another_end), ["I4"]);
    // The clients' view and the ledger are judged as without a loss.
    assert_eq!(
        after_loss(0, |history| show(history, 2, &events()[..6])),
        ["I1"]
    );
    assert_eq!(
        after_loss(0, |history| note(history, chat("hel", "done"))),
        ["I11"]
    );
}

#[test]
fn a_run_that_ended_before_the_older_disk_was_copied_keeps_its_log() {
    let since = u64::try_from(RECORDED).unwrap() + 1_001;
    assert_eq!(after_loss(since, |history| history.logs.clear()), ["I4"]);
    let (follower, status, code) = (1, 410, "events_expired".to_owned());
    let lost = What::Lost {
        follower,
        status,
        code,
    };
    assert_eq!(
        after_loss(since, |history| note(history, lost.clone())),
        ["I13"]
    );
    assert!(after_loss(0, |history| note(history, lost)).is_empty());
    let lost = |history: &mut History| note(history, chat("he", "events_lost"));
    assert_eq!(after_loss(since, lost), ["I13"]);
    assert!(after_loss(0, lost).is_empty());
}
