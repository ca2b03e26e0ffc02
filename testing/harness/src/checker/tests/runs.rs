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
    let at_limit = after(|history| {
        let run = &mut history.runs[0];
        run.finish_reason = Some("max_tool_calls".to_owned());
        run.steps[2].finished_at = None;
    });
    assert!(at_limit.is_empty(), "{at_limit:?}");
    let older = after(|history| history.runs[0].steps[2].attempt = 1);
    assert_eq!(older, ["I9"]);
}

fn approval(decision: Option<Decision>, decided_at: i64) -> Approval {
    Approval {
        id: approval_id(),
        reason: ApprovalReason::OutcomeUnknown,
        call: Some(ApprovalCall { step: 2 }),
        budget: None,
        created_at: DateTime::<Utc>::UNIX_EPOCH,
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
fn a_guarded_call_that_is_not_made_as_approved_breaks_i7_or_i12() {
    let made = |decided: &[(u32, Decision)], arguments: &str| {
        after(|history| {
            let run = &mut history.runs[0];
            run.steps[1].kind = StepKind::Call {
                name: "levy".into(),
                ok: Some(true),
            };
            run.approvals = decided
                .iter()
                .map(|(step, decision)| Approval {
                    reason: ApprovalReason::ApprovalRequired,
                    call: Some(ApprovalCall { step: *step }),
                    ..approval(Some(decision.clone()), 1_400)
                })
                .collect();
            history.records.drain(..2);
            let mut call = tool(1_500, false);
            if let What::Tool { arguments: of, .. } = &mut call.what {
                arguments.clone_into(of);
            }
            history.records.insert(0, call);
        })
    };
    let approve = |edited: Option<&str>, scope| Decision::Approve {
        arguments: edited.map(|edited| serde_json::from_str(edited).unwrap()),
        scope,
    };
    let once = approve(None, ApprovalScope::Once);
    let edited = approve(Some(r#"{"by":7}"#), ApprovalScope::Once);
    let rejected = Decision::Reject {
        reason: String::new(),
    };
    assert!(made(&[(2, once.clone())], "{}").is_empty());
    assert!(made(&[(2, edited.clone())], r#"{"by":7}"#).is_empty());
    assert_eq!(made(&[], "{}"), ["I7"]);
    assert_eq!(made(&[(2, rejected)], "{}"), ["I7"]);
    assert_eq!(made(&[(4, once.clone())], "{}"), ["I7"], "another call");
    assert!(made(&[(4, approve(None, ApprovalScope::Run))], "{}").is_empty());
    assert_eq!(made(&[(2, edited)], "{}"), ["I12"]);
    assert_eq!(made(&[(2, once)], r#"{"by":7}"#), ["I12"]);
    let early = after(|history| {
        history.runs[0].steps[1].kind = StepKind::Call {
            name: "levy".into(),
            ok: Some(true),
        };
        history.runs[0].approvals = vec![Approval {
            reason: ApprovalReason::ApprovalRequired,
            ..approval(Some(approve(None, ApprovalScope::Once)), 1_600)
        }];
        history.records.drain(..2);
        history.records.insert(0, tool(1_500, false));
    });
    assert_eq!(early, ["I12"]);
    // It has a result, but nobody called it.
    let never = after(|history| {
        history.runs[0].approvals = vec![approval(Some(approve(None, ApprovalScope::Once)), 1_400)];
        history.records.drain(..2);
    });
    assert_eq!(never, ["I7"]);
}

#[test]
fn a_decision_that_changes_breaks_i12() {
    let decided = |decision: Decision| What::Decided {
        run: run_id(),
        approval: approval_id(),
        decision,
    };
    let fail = || Decision::Fail {
        reason: String::new(),
    };
    let twice = after(|history| {
        note(history, decided(Decision::Retry {}));
        note(history, decided(fail()));
    });
    assert_eq!(twice, ["I12"]);
    let other = after(|history| {
        history.runs[0].approvals = vec![approval(Some(Decision::Retry {}), 1_400)];
        note(history, decided(fail()));
    });
    assert_eq!(other, ["I12"]);
}
