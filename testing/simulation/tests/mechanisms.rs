//! Each mechanism is needed: without it, some seed breaks exactly the promise that depends on it.
//! So the simulation can fail, and does when it must.

use baton_simulation::Invariant::{I1, I4, I5, I7, I9, I11, I12, I13, I17, I24, I25, I26};
use baton_simulation::{Guard, Invariant, Setup, simulate};

/// The most seeds that are tried; the first breach is enough.
const SEEDS: u64 = 4_000;

fn some_seed_breaks(without: Guard, promise: Invariant) {
    some_seed_from_breaks(0, without, promise);
}

/// As [`some_seed_breaks`], for a rare breach: tries the seeds from `first` on, because the search from 0 on takes
/// minutes.
fn some_seed_from_breaks(first: u64, without: Guard, promise: Invariant) {
    let broken = (first..first + SEEDS).find(|seed| {
        let setup = Setup {
            without: Some(without),
            trace: false,
        };
        let report = simulate(*seed, setup);
        let mut accusations = report.accusations.iter();
        accusations.any(|accusation| accusation.invariant == promise)
    });
    let seed = broken.unwrap_or_else(|| panic!("{promise:?} does not need {without:?}"));
    let with = simulate(seed, Setup::default());
    assert!(with.accusations.is_empty(), "{:?}", with.accusations);
}

#[test]
fn without_the_attempt_guard_a_replaced_worker_commits() {
    some_seed_breaks(Guard::AttemptFence, I9);
}

#[test]
fn without_the_compare_and_set_two_workers_write_one_log() {
    some_seed_breaks(Guard::CompareAndSet, I9);
}

#[test]
fn without_the_gap_check_a_client_misses_events() {
    some_seed_breaks(Guard::GapCheck, I13);
}

#[test]
fn without_a_look_at_the_tip_a_lost_last_event_is_waited_for_in_vain() {
    some_seed_breaks(Guard::LookWhenIdle, I13);
}

#[test]
fn without_its_token_a_claim_whose_answer_was_lost_costs_a_failure() {
    some_seed_breaks(Guard::RepeatableClaim, I5);
}

#[test]
fn without_the_sweep_a_run_whose_job_was_lost_never_ends() {
    some_seed_breaks(Guard::Sweep, I1);
}

#[test]
fn without_the_look_behind_a_refusal_a_replaced_worker_steals_the_log() {
    some_seed_breaks(Guard::TipBeforeAdopting, I9);
}

#[test]
fn without_knowing_its_own_append_a_worker_shows_text_twice() {
    some_seed_breaks(Guard::OwnAppend, I11);
}

#[test]
fn without_whoever_finds_it_ended_a_run_ends_and_nobody_is_told() {
    some_seed_breaks(Guard::TerminalEvent, I4);
}

#[test]
fn without_the_look_for_unlogged_ends_a_log_stays_without_its_end() {
    some_seed_breaks(Guard::UnloggedEnds, I4);
}

#[test]
fn without_waiting_for_the_log_a_commit_stands_behind_text_that_nobody_saw() {
    some_seed_breaks(Guard::ShownBeforeCommitted, I11);
}

#[test]
fn without_the_note_that_it_begins_a_call_is_made_twice() {
    some_seed_breaks(Guard::StartNote, I12);
}

#[test]
fn a_decision_that_is_not_used_up_has_the_call_made_again_and_again() {
    some_seed_from_breaks(1_000, Guard::DecisionUsedUp, I12);
}

#[test]
fn without_giving_up_its_lease_a_worker_makes_recorded_calls_again() {
    some_seed_from_breaks(1_700, Guard::GiveUp, I7);
}

#[test]
fn without_a_look_at_the_row_a_living_worker_loses_its_run() {
    some_seed_breaks(Guard::Silence, I5);
}

#[test]
fn without_a_sign_of_life_a_worker_that_the_broker_lost_sight_of_loses_its_run() {
    some_seed_from_breaks(1_000, Guard::SignOfLife, I5);
}

#[test]
fn without_withdrawing_a_turn_that_broke_off_its_text_is_shown_twice() {
    some_seed_breaks(Guard::WithdrawnTurn, I11);
}

#[test]
fn without_reserving_its_turns_the_runs_of_a_key_exceed_its_budget() {
    some_seed_breaks(Guard::Budget, I25);
}

#[test]
fn without_the_check_of_its_key_a_run_goes_on_after_the_key_was_revoked() {
    some_seed_breaks(Guard::KeyCheck, I17);
}

#[test]
fn without_a_limit_of_its_events_a_run_loses_the_oldest() {
    some_seed_breaks(Guard::EventLimit, I13);
}

#[test]
fn without_giving_it_back_a_run_whose_events_are_refused_counts_as_failed() {
    some_seed_breaks(Guard::GivingBack, I5);
}

#[test]
fn without_an_end_that_gives_way_a_message_waits_for_an_answered_run() {
    some_seed_breaks(Guard::EndGivesWay, I24);
}

#[test]
fn a_message_that_is_not_marked_as_taken_is_applied_again() {
    some_seed_breaks(Guard::InputTaken, I24);
}

#[test]
fn without_the_note_of_its_event_the_acceptance_of_a_message_is_shown_twice() {
    some_seed_breaks(Guard::AcceptedNote, I24);
}

#[test]
fn without_turns_on_a_thread_two_of_its_runs_are_at_work() {
    some_seed_breaks(Guard::ThreadTurn, I26);
}

#[test]
fn without_their_order_a_later_run_of_a_thread_begins_first() {
    some_seed_breaks(Guard::ThreadOrder, I26);
}

#[test]
fn without_its_refusal_a_run_joins_a_busy_thread() {
    some_seed_breaks(Guard::BusyRefusal, I26);
}

#[test]
fn without_a_cancel_of_the_others_a_replaced_run_begins() {
    some_seed_breaks(Guard::OthersCancelled, I26);
}

#[test]
fn without_its_mark_a_run_that_was_rolled_back_leaves_messages() {
    some_seed_breaks(Guard::RolledBackEnd, I26);
}
