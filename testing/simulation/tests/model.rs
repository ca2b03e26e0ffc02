//! Every order of the steps of two workers, a scheduler, a person and a canceller.

use baton_simulation::Guard;
use baton_simulation::model::Model;
use stateright::{Checker as _, Model as _};

const LOSSES: u8 = 3;

fn check(without: Option<Guard>) -> impl stateright::Checker<Model> {
    let model = Model {
        losses: LOSSES,
        without,
    };
    model.checker().threads(2).spawn_bfs().join()
}

#[test]
fn every_order_of_steps_keeps_every_promise() {
    let checker = check(None);
    assert!(checker.is_done());
    assert!(
        checker.unique_state_count() > 10_000,
        "only {} states",
        checker.unique_state_count()
    );
    checker.assert_properties();
}

fn breaks(without: Guard, promise: &'static str) {
    let found = check(Some(without));
    assert!(
        found.discovery(promise).is_some(),
        "{promise:?} does not need {without:?}"
    );
}

#[test]
fn without_the_attempt_guard_an_older_attempt_commits() {
    breaks(Guard::AttemptFence, "only the newest attempt commits");
}

#[test]
fn without_the_compare_and_set_an_older_attempt_writes_behind_a_newer_one() {
    breaks(Guard::CompareAndSet, "no event of an older attempt");
}

#[test]
fn without_a_look_at_the_tip_an_older_attempt_writes_behind_a_newer_one() {
    breaks(Guard::TipBeforeAdopting, "no event of an older attempt");
}

#[test]
fn without_the_note_that_it_begins_a_call_is_made_twice() {
    breaks(
        Guard::StartNote,
        "a call is made once, and once more for each retry",
    );
}

#[test]
fn a_decision_that_is_not_used_up_has_the_call_made_again() {
    breaks(
        Guard::DecisionUsedUp,
        "a call is made once, and once more for each retry",
    );
}

#[test]
fn without_whoever_finds_it_ended_nobody_is_told() {
    breaks(Guard::TerminalEvent, "the run ends, and its log says so");
}
