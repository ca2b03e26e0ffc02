//! The rules for the ledger.

use super::*;

#[test]
fn an_accepted_run_that_is_gone_or_open_breaks_i1() {
    assert!(after(|history| history.runs.clear()).contains(&"I1"));
    let open = after(|history| {
        history.runs[0].status = RunStatus::Running;
        history.logs[0].lines.pop();
    });
    assert_eq!(open, ["I1"]);
    let unknown = |history: &mut History| {
        let (follower, status, code) = (1, 404, "not_found".to_owned());
        note(
            history,
            What::Lost {
                follower,
                status,
                code,
            },
        );
    };
    assert_eq!(after(unknown), ["I1"]);
}

#[test]
fn a_key_with_two_runs_breaks_i2() {
    let mut other = good().runs.remove(0);
    other.id = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
    other.status = RunStatus::Queued;
    let twice = after(|history| {
        note(history, accepted(other.id));
        history.runs.push(other);
    });
    assert!(twice.contains(&"I2"), "{twice:?}");
}

#[test]
fn a_tool_call_that_is_made_again_breaks_i7() {
    let late = after(|history| history.records.push(tool(2_001, true)));
    assert_eq!(late, ["I7"]);
    let twice = after(|history| {
        history.records.insert(0, tool(BEFORE, false));
    });
    assert_eq!(twice, ["I7"]);
    let never = after(|history| drop(history.records.drain(..2)));
    assert_eq!(never, ["I7"]);
}

#[test]
fn a_missing_step_breaks_i8_and_a_step_of_an_older_attempt_i9() {
    assert_eq!(
        after(|history| drop(history.runs[0].steps.remove(0))),
        ["I8"]
    );
    let unfinished = after(|history| history.runs[0].steps[2].finished_at = None);
    assert_eq!(unfinished, ["I8"]);
    let older = after(|history| history.runs[0].steps[2].attempt = 1);
    assert_eq!(older, ["I9"]);
}

fn approval(decision: Option<Decision>, decided_at: i64) -> Approval {
    Approval {
        id: approval_id(),
        call: ApprovalCall { step: 2 },
        decision,
        decided_at: Some(DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(decided_at)),
    }
}

fn approval_id() -> ApprovalId {
    "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap()
}

#[test]
fn a_call_that_is_made_again_without_its_own_decision_breaks_i7_or_i12() {
    let again = |approvals: Vec<Approval>| {
        after(|history| {
            history.runs[0].approvals = approvals;
            history.records.drain(..2);
            history.records.insert(0, tool(1_000, false));
            history.records.insert(1, tool(1_500, false));
        })
    };
    assert_eq!(again(Vec::new()), ["I7"]);
    assert!(again(vec![approval(Some(Decision::Retry {}), 1_400)]).is_empty());
    assert_eq!(
        again(vec![approval(Some(Decision::Retry {}), 1_600)]),
        ["I12"]
    );
    let result = Decision::Result {
        result: "by hand".to_owned(),
    };
    assert_eq!(again(vec![approval(Some(result.clone()), 1_400)]), ["I7"]);
    // The call was begun, the tool was never called, and a person decided.
    let by_hand = after(|history| {
        history.runs[0].approvals = vec![approval(Some(result), 1_400)];
        history.records.drain(..2);
    });
    assert!(by_hand.is_empty());
}

#[test]
fn a_decision_that_changes_breaks_i12() {
    let decided = |decision: &str| What::Decided {
        run: run_id(),
        approval: approval_id(),
        decision: decision.to_owned(),
    };
    let twice = after(|history| {
        note(history, decided("retry"));
        note(history, decided("fail"));
    });
    assert_eq!(twice, ["I12"]);
    let other = after(|history| {
        history.runs[0].approvals = vec![approval(Some(Decision::Retry {}), 1_400)];
        note(history, decided("fail"));
    });
    assert_eq!(other, ["I12"]);
}
