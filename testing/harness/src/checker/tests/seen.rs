//! The rules for the clients' view.

use baton_invariants::Invariant;

use super::*;

#[test]
fn a_follower_that_never_sees_the_end_breaks_i1() {
    assert_eq!(shown(&events()[..6]), ["I1"]);
}

#[test]
fn a_follower_that_misses_or_repeats_an_event_breaks_i13() {
    let mut missing = events();
    missing.remove(3);
    assert!(shown(&missing).contains(&"I13"));
    let mut twice = events();
    twice.insert(4, twice[3].clone());
    assert!(shown(&twice).contains(&"I13"));
    let (follower, status, code) = (1, 410, "cursor_unknown".to_owned());
    let lost = What::Lost {
        follower,
        status,
        code,
    };
    assert_eq!(after(|history| note(history, lost)), ["I13"]);
    let early = after(|history| {
        show(history, 2, &events()[..3]);
        note(history, What::NoMore { follower: 2 });
    });
    assert_eq!(early, ["I13"]);
}

#[test]
fn what_a_reset_withdraws_may_be_missed() {
    let mut moved = events();
    moved.remove(1);
    assert!(shown(&moved).is_empty());
}

#[test]
fn an_end_that_a_client_was_told_breaks_i4_if_it_changes() {
    let told = |status| What::Told {
        run: run_id(),
        status,
    };
    let other = after(|history| note(history, told(RunStatus::Cancelled)));
    assert_eq!(other, ["I4"]);
    assert!(after(|history| note(history, told(RunStatus::Completed))).is_empty());
    assert!(after(|history| note(history, told(RunStatus::Running))).is_empty());
    let mut events = events();
    events[6].data = EventData::RunCancelled(RunCancelled {
        reason: "late".into(),
        usage: Usage::default(),
        cancel_latency_ms: None,
    });
    assert_eq!(shown(&events), ["I4"]);
}

#[test]
fn a_client_that_is_shown_what_a_hostile_program_wrote_breaks_i18() {
    let mut forged = events();
    forged[2].data = text(FORGED);
    assert!(shown(&forged).contains(&"I18"));
    let found = after(|history| note(history, chat(FORGED, "done")));
    assert!(found.contains(&"I18"));
}

#[test]
fn a_promise_that_a_participant_sees_broken_is_broken() {
    let breach = |invariant| {
        let found = "seen".to_owned();
        after(|history| note(history, What::Breach { invariant, found }))
    };
    assert_eq!(breach(Invariant::I17), ["I17"]);
    assert_eq!(breach(Invariant::I18), ["I18"]);
    assert_eq!(breach(Invariant::I25), ["I25"]);
}
