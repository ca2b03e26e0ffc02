//! Approval requests of responses and their answers (I12).

use baton_protocol::{ApprovalReason, ApprovalScope, Decision};

use super::*;
use crate::chaos::outside::{ASKED, ASKER};
use crate::checker::{Approval, ApprovalCall};

const DECIDED: u64 = CREATED as u64 + 100;

fn id(n: u8) -> RunId {
    format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}")
        .parse()
        .unwrap()
}

fn approve() -> Decision {
    Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Once,
    }
}

fn call(place: u32, is_made: bool) -> Step {
    let mut call = step(
        place,
        StepKind::Call {
            name: ASKED.to_owned(),
            ok: is_made.then_some(true),
        },
    );
    call.attempt = 1;
    if !is_made {
        call.finished_at = None;
    }
    call
}

fn turn(place: u32) -> Step {
    Step {
        attempt: 1,
        ..step(place, StepKind::Turn)
    }
}

/// A run that asks, and was ended by an approval.
fn asking() -> LedgerRun {
    LedgerRun {
        id: id(1),
        model: ASKER.to_owned(),
        finish_reason: Some("tool_calls".to_owned()),
        attempt: 1,
        prompt: Some(7),
        output: Vec::new(),
        steps: vec![turn(1), call(2, false)],
        approvals: vec![Approval {
            id: "01890a5d-ac96-774b-bcce-b302099a8099".parse().unwrap(),
            call: Some(ApprovalCall { step: 2 }),
            reason: ApprovalReason::ApprovalRequired,
            budget: None,
            created_at: DateTime::<Utc>::UNIX_EPOCH,
            decision: Some(approve()),
            decided_at: DateTime::from_timestamp_millis(i64::try_from(DECIDED).unwrap()),
        }],
        ..good().runs.remove(0)
    }
}

/// The run that brought an answer.
fn next(n: u8) -> LedgerRun {
    LedgerRun {
        id: id(n),
        finish_reason: Some("stop".to_owned()),
        created_at: asking().created_at + TimeDelta::milliseconds(i64::from(n)),
        output: vec![
            json!({"role": "tool", "content": "{}"}),
            json!({"role": "assistant", "content": "7·0 "}),
        ],
        steps: vec![call(1, true), turn(2)],
        approvals: Vec::new(),
        ..asking()
    }
}

fn made(n: u8, place: u32, at: u64) -> Record {
    let what = What::Tool {
        key: format!("{}-{place}", id(n)),
        tool: ASKED.to_owned(),
        idempotent: false,
        arguments: "{}".to_owned(),
    };
    Record { at, what }
}

/// Returns the findings about these runs, with one execution of the call by the second.
fn found(runs: Vec<LedgerRun>, more: Vec<Record>) -> Vec<String> {
    let mut records = more;
    records.push(made(2, 1, DECIDED + 10));
    let history = History {
        records,
        runs,
        logs: Vec::new(),
    };
    let judged = judge(&history);
    let found = judged.violations.iter().map(ToString::to_string);
    found
        .filter(|found| found.starts_with("I12") || found.starts_with("I8"))
        .collect()
}

#[test]
fn a_call_that_its_answer_approved_and_made_is_right() {
    let none: [String; 0] = [];
    assert_eq!(found(vec![asking(), next(2)], vec![]), none);
}

#[test]
fn answers_that_win_twice_or_calls_without_one_break_i12() {
    let rejected = || {
        let mut run = asking();
        run.approvals[0].decision = Some(Decision::Reject {
            reason: String::new(),
        });
        run
    };
    let running = LedgerRun {
        finish_reason: Some("stop".to_owned()),
        steps: vec![turn(1), call(2, true)],
        ..asking()
    };
    let mut open = asking();
    open.approvals[0].decision = None;
    let deaf = LedgerRun {
        output: vec![json!({"role": "assistant", "content": "7·0 "})],
        ..next(2)
    };
    let early = made(1, 2, DECIDED + 5);
    for (runs, more, part) in [
        (vec![asking(), next(2), next(3)], vec![], "by 2 runs"),
        (vec![rejected(), next(2)], vec![], "not approved"),
        (vec![running, next(2)], vec![], "was answered, and is"),
        (vec![open, next(2)], vec![], "open question"),
        (vec![asking(), deaf], vec![], "did not see the result"),
        (vec![asking(), next(2)], vec![early], "made its call itself"),
        (
            vec![asking(), next(2)],
            vec![made(2, 1, DECIDED - 10)],
            "before its approval",
        ),
    ] {
        let found = found(runs, more);
        assert!(
            found.iter().any(|it| it.contains(part)),
            "{part}: {found:?}"
        );
    }
}
