//! Calls that a person must approve: asked before they begin, with arguments that the person may replace.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, ApprovalScope, Decision, Effect, EventId, Fence, FinishReason,
    RunId,
};
use baton_store::{
    CallState, DecideOutcome, NewApproval, NewCall, ParkCommit, ParkOutcome, StepData, StepRecord,
    TimelineData, TurnCommit,
};
use futures_util::future::join_all;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::fixture::{CHARGE, LONG, Ledger, OVER, usage};

const LAST: EventId = EventId::new(1, 4);
const WRITTEN: &str = "{\"amount\":7}";
const SCHEMA: &str = r#"{"type":"object"}"#;

/// Makes a run with a recorded turn and two calls that are not begun, held by its first attempt.
pub(crate) async fn two_calls(ledger: &Ledger) -> Fence {
    let run = ledger.queued().await;
    two_calls_of(ledger, run).await
}

/// As [`two_calls`], of this run.
async fn two_calls_of(ledger: &Ledger, run: RunId) -> Fence {
    let fence = ledger.fence(run, LONG).await;
    let calls = [(2, Effect::AtMostOnce), (3, Effect::Pure)].map(|(step, effect)| NewCall {
        step,
        call_id: format!("call_{step}"),
        name: "pay".into(),
        arguments: WRITTEN.into(),
        effect,
    });
    let turn = TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 1,
        message: "{}",
        usage: usage(1, 1),
        charge: CHARGE,
        usage_total: usage(1, 1),
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(1, 2),
        calls: &calls,
    };
    let system = ledger.store.system();
    system.commit_turn(&fence, &turn).await.unwrap();
    fence
}

/// Parks the run with a question about each of these steps.
async fn park(
    ledger: &Ledger,
    fence: &Fence,
    steps: &[u32],
    reason: ApprovalReason,
    expire_after: Duration,
) -> Vec<ApprovalId> {
    let required = reason == ApprovalReason::ApprovalRequired;
    let approvals: Vec<_> = steps
        .iter()
        .map(|step| NewApproval {
            id: ApprovalId::from_uuid(Uuid::now_v7()),
            step: *step,
            reason,
            parameters: required.then(|| SCHEMA.to_owned()),
            reached: None,
            input: None,
        })
        .collect();
    let park = ParkCommit {
        approvals: &approvals,
        expire_after,
        last_event_id: EventId::new(fence.attempt, LAST.n()),
    };
    let system = ledger.store.system();
    let parked = system.park_run(fence, &park).await.unwrap();
    let ParkOutcome::Parked { expires_at } = parked else {
        panic!("{parked:?}");
    };
    // Repeated because its answer was lost.
    assert_eq!(system.park_run(fence, &park).await.unwrap(), parked);
    let asked = system
        .run_approvals(ledger.tenant, fence.run)
        .await
        .unwrap();
    for asked in asked.iter().filter(|it| it.attempt == fence.attempt) {
        assert_eq!(asked.expires_at, expires_at);
        assert_eq!(asked.parameters.as_deref(), required.then_some(SCHEMA));
    }
    approvals.into_iter().map(|approval| approval.id).collect()
}

/// Parks this run with a question about each of two calls of the tool `pay`, and returns the questions.
pub(crate) async fn asked(ledger: &Ledger, run: RunId) -> Vec<ApprovalId> {
    let fence = two_calls_of(ledger, run).await;
    park(
        ledger,
        &fence,
        &[2, 3],
        ApprovalReason::ApprovalRequired,
        LONG,
    )
    .await
}

pub(crate) async fn decide(
    ledger: &Ledger,
    run: RunId,
    approval: ApprovalId,
    decision: &Decision,
) -> DecideOutcome {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let outcome = tx.decide(run, approval, decision, None).await.unwrap();
    tx.commit().await.unwrap();
    outcome
}

fn edited(amount: u64) -> Decision {
    let arguments = Map::from_iter([("amount".to_owned(), Value::from(amount))]);
    Decision::Approve {
        arguments: Some(arguments),
        scope: ApprovalScope::Once,
    }
}

fn reject() -> Decision {
    Decision::Reject {
        reason: "too much".into(),
    }
}

/// Returns the state, the model's arguments and the approved arguments of a step's call.
fn call(steps: &[StepRecord], step: u32) -> (CallState, String, Option<String>) {
    let found = steps.iter().find(|record| record.step == step).unwrap();
    match &found.data {
        StepData::Call {
            state,
            arguments,
            edited_arguments,
            ..
        } => (state.clone(), arguments.clone(), edited_arguments.clone()),
        other => panic!("{other:?}"),
    }
}

const REQUIRED: ApprovalReason = ApprovalReason::ApprovalRequired;

#[tokio::test]
async fn an_approval_holds_until_the_call_begins_and_its_arguments_stay_those_of_the_call() {
    let ledger = Ledger::new().await;
    let fence = two_calls(&ledger).await;
    let run = fence.run;
    let asked = park(&ledger, &fence, &[2, 3], REQUIRED, LONG).await;
    let system = ledger.store.system();
    let first = decide(&ledger, run, asked[0], &edited(5)).await;
    assert!(matches!(
        first,
        DecideOutcome::Decided {
            newly: true,
            queued: None
        }
    ));
    let last = decide(&ledger, run, asked[1], &reject()).await;
    assert!(matches!(
        last,
        DecideOutcome::Decided {
            newly: true,
            queued: Some(_)
        }
    ));

    // An attempt that ends before it begins the call leaves the decisions unused.
    let second = ledger.claimed(run, LONG).await;
    assert_eq!(
        second.asked.len(),
        2,
        "the questions are shown again if they were not"
    );
    let at = EventId::new(1, LAST.n());
    system.hand_over(&second.fence, at).await.unwrap();
    let third = ledger.claimed(run, OVER).await;
    for claimed in [&second, &third] {
        let five = Some(r#"{"amount":5}"#.to_owned());
        let pending = |decision| CallState::Pending {
            decision: Some(decision),
        };
        let written = WRITTEN.to_owned();
        let expected = (pending(edited(5)), written.clone(), five);
        assert_eq!(call(&claimed.recorded, 2), expected);
        assert_eq!(
            call(&claimed.recorded, 3),
            (pending(reject()), written, None)
        );
    }
    // The attempt that has begun the call used the approval.
    system.start_call(&third.fence, 2).await.unwrap();
    let fourth = ledger.claimed(run, LONG).await;
    let (state, written, arguments) = call(&fourth.recorded, 2);
    assert_eq!(state, CallState::Started { decision: None });
    assert_eq!(written, WRITTEN, "the model's stay recorded");
    assert_eq!(arguments.as_deref(), Some(r#"{"amount":5}"#));

    // The question about its outcome is about the arguments that it began with.
    let unknown = ApprovalReason::OutcomeUnknown;
    let again = park(&ledger, &fourth.fence, &[2], unknown, LONG).await;
    let all = system.run_approvals(ledger.tenant, run).await.unwrap();
    let shown: Vec<_> = all
        .iter()
        .map(|it| (it.attempt, it.step, &*it.arguments))
        .collect();
    let five = r#"{"amount":5}"#;
    assert_eq!(shown, [(1, 2, WRITTEN), (1, 3, WRITTEN), (4, 2, five)]);
    decide(&ledger, run, again[0], &Decision::Retry {}).await;
    let fifth = ledger.claimed(run, LONG).await;
    let (state, _, arguments) = call(&fifth.recorded, 2);
    let retry = Some(Decision::Retry {});
    assert_eq!(state, CallState::Started { decision: retry });
    assert_eq!(
        arguments.as_deref(),
        Some(five),
        "the repetition has the same arguments"
    );

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let timeline = tx.timeline(run).await.unwrap().unwrap();
    let decided: Vec<_> = timeline
        .entries
        .iter()
        .filter_map(|entry| match &entry.data {
            TimelineData::Approval {
                reason,
                decision,
                edited,
                ..
            } => Some((*reason, *decision, *edited)),
            _ => None,
        })
        .collect();
    assert_eq!(
        decided,
        [
            (REQUIRED, Some("approve"), true),
            (REQUIRED, Some("reject"), false),
            (unknown, Some("retry"), false),
        ]
    );
}

#[tokio::test]
async fn a_question_takes_its_own_decisions_only() {
    let ledger = Ledger::new().await;
    let fence = two_calls(&ledger).await;
    let asked = park(&ledger, &fence, &[2], REQUIRED, LONG).await;
    let result = "paid".to_owned();
    for decision in [Decision::Retry {}, Decision::Result { result }] {
        let outcome = decide(&ledger, fence.run, asked[0], &decision).await;
        assert_eq!(outcome, DecideOutcome::NotAnOption(REQUIRED));
    }
    let approve = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Once,
    };
    decide(&ledger, fence.run, asked[0], &approve).await;
    let next = ledger.claimed(fence.run, OVER).await;
    ledger
        .store
        .system()
        .start_call(&next.fence, 2)
        .await
        .unwrap();
    let next = ledger.fence(fence.run, LONG).await;
    let unknown = ApprovalReason::OutcomeUnknown;
    let asked = park(&ledger, &next, &[2], unknown, LONG).await;
    for decision in [approve, edited(5), reject()] {
        let outcome = decide(&ledger, fence.run, asked[0], &decision).await;
        assert_eq!(outcome, DecideOutcome::NotAnOption(unknown));
    }
}

#[tokio::test]
async fn of_fifty_edits_and_rejections_at_once_one_stands_and_its_repetition_is_no_other() {
    let ledger = Ledger::new().await;
    let fence = two_calls(&ledger).await;
    let run = fence.run;
    let asked = park(&ledger, &fence, &[2], REQUIRED, LONG).await;
    let racing = (0..50_u64).map(|n| {
        let decision = match n % 3 {
            0 => Decision::Reject {
                reason: n.to_string(),
            },
            _ => edited(n),
        };
        let (ledger, id) = (&ledger, asked[0]);
        async move { (decide(ledger, run, id, &decision).await, decision) }
    });
    let outcomes = join_all(racing).await;
    let won: Vec<_> = outcomes
        .iter()
        .filter(|(outcome, _)| matches!(outcome, DecideOutcome::Decided { newly: true, .. }))
        .collect();
    let [(_, winner)] = &won[..] else {
        panic!("{} won", won.len());
    };
    for (outcome, decision) in &outcomes {
        if decision != winner {
            assert_eq!(*outcome, DecideOutcome::AlreadyDecided(winner.clone()));
        }
    }
    let again = decide(&ledger, run, asked[0], winner).await;
    let unchanged = DecideOutcome::Decided {
        newly: false,
        queued: None,
    };
    assert_eq!(again, unchanged);
}

#[tokio::test]
async fn a_call_that_nobody_approves_in_time_is_rejected() {
    let ledger = Ledger::new().await;
    let fence = two_calls(&ledger).await;
    let run = fence.run;
    let asked = park(&ledger, &fence, &[2], REQUIRED, OVER).await;
    let late = decide(&ledger, run, asked[0], &edited(5)).await;
    assert_eq!(late, DecideOutcome::Expired);
    let queued = ledger.store.system().expire_approvals(10).await.unwrap();
    assert_eq!(queued.len(), 1);
    let next = ledger.claimed(run, LONG).await;
    let (state, _, arguments) = call(&next.recorded, 2);
    let CallState::Pending {
        decision: Some(Decision::Reject { reason }),
    } = state
    else {
        panic!("{state:?}");
    };
    assert_eq!((&*reason, arguments), ("nobody approved it in time", None));
}
