//! A refusal must be true.

use super::*;

const CREATED_AT: u64 = 500;

fn tried(at: u64) -> Record {
    let what = What::Tried { prompt: PROMPT };
    Record { at, what }
}

fn refused(at: u64) -> Record {
    let what = What::Refused {
        status: 503,
        code: "ledger_unavailable".to_owned(),
        prompt: Some(PROMPT),
    };
    Record { at, what }
}

/// Returns the findings after these tries, if none of them was accepted.
fn unaccepted(tries: Vec<Record>) -> Vec<&'static str> {
    after(|history| {
        let accepted = |record: &Record| matches!(record.what, What::Accepted { .. });
        history.records.retain(|record| !accepted(record));
        history.records.extend(tries);
    })
}

/// Returns the findings after these tries, if a later one was accepted.
fn before_acceptance(tries: Vec<Record>) -> Vec<&'static str> {
    after(|history| drop(history.records.splice(0..0, tries)))
}

#[test]
fn a_refused_run_that_is_in_the_ledger_breaks_i1() {
    for at in [CREATED_AT, CREATED_AT + 40, CREATED_AT - 40] {
        let tries = vec![tried(at - 50), refused(at)];
        assert_eq!(unaccepted(tries), ["I1"], "refused at {at}");
    }
}

#[test]
fn a_run_that_was_there_before_its_refusal_breaks_i1_even_if_a_later_try_finds_it() {
    let late = vec![tried(CREATED_AT - 10), refused(CREATED_AT + 40), tried(700)];
    assert_eq!(before_acceptance(late), ["I1"]);
    let in_time = vec![tried(CREATED_AT - 90), refused(CREATED_AT - 50), tried(480)];
    assert!(before_acceptance(in_time).is_empty());
}

#[test]
fn a_lost_answer_excuses_a_run_that_nobody_was_told_of() {
    let lost = vec![tried(400), tried(600), refused(700)];
    assert!(unaccepted(lost).is_empty());
    let lost_at_last = vec![tried(300), refused(400), tried(450)];
    assert!(unaccepted(lost_at_last).is_empty());
    let refused_before = vec![tried(300), refused(CREATED_AT + 1), tried(600)];
    assert_eq!(unaccepted(refused_before), ["I1"]);
}
