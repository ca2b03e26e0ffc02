//! Calls that wait for a person: asked once, decided once. The next start of the call uses the
//! decision up.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, Effect, EventId, Fence, FinishReason, RunId, RunStatus,
};
use baton_store::{
    CallState, ClaimOutcome, DecideOutcome, FenceError, NewApproval, NewCall, ParkCommit,
    ParkOutcome, StepData, TurnCommit,
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{CHARGE, LONG, Ledger, OVER, usage};

const LAST: EventId = EventId::new(2, 3);

/// Makes a run with two calls that were begun and then lost, held by its second attempt.
async fn two_lost_calls(ledger: &Ledger) -> Fence {
    let run = ledger.queued().await;
    let fence = ledger.fence(run, OVER).await;
    let system = ledger.store.system();
    let calls = [2, 3].map(|step| NewCall {
        step,
        call_id: format!("call_{step}"),
        name: "pay".into(),
        arguments: "{\"amount\":7}".into(),
        effect: Effect::AtMostOnce,
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
    system.commit_turn(&fence, &turn).await.unwrap();
    system.start_call(&fence, 2).await.unwrap();
    system.start_call(&fence, 3).await.unwrap();
    ledger.fence(run, LONG).await
}

fn questions() -> [NewApproval; 2] {
    [2, 3].map(|step| NewApproval {
        id: ApprovalId::from_uuid(Uuid::now_v7()),
        step,
        reason: ApprovalReason::OutcomeUnknown,
        parameters: None,
        reached: None,
        input: None,
    })
}

fn park(approvals: &[NewApproval], expire_after: Duration) -> ParkCommit<'_> {
    ParkCommit {
        approvals,
        expire_after,
        last_event_id: LAST,
    }
}

async fn decide(
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

fn decisions(steps: &[baton_store::StepRecord]) -> Vec<Option<Decision>> {
    steps
        .iter()
        .filter_map(|step| match &step.data {
            StepData::Call {
                state: CallState::Started { decision },
                ..
            } => Some(decision.clone()),
            _ => None,
        })
        .collect()
}

fn result() -> Decision {
    Decision::Result {
        result: "paid 7".into(),
    }
}

#[tokio::test]
async fn the_last_decision_queues_the_run_and_the_next_attempt_finds_them_all() {
    let ledger = Ledger::new().await;
    let fence = two_lost_calls(&ledger).await;
    let (run, asked) = (fence.run, questions());
    let system = ledger.store.system();
    // Twice, as if the first answer was lost.
    for _ in 0..2 {
        let parked = system.park_run(&fence, &park(&asked, LONG)).await.unwrap();
        assert!(matches!(parked, ParkOutcome::Parked { .. }), "{parked:?}");
    }
    let ClaimOutcome::Parked(parked) = ledger.try_claim(run).await else {
        panic!("a parked run is not claimed");
    };
    assert_eq!((parked.attempt, parked.last_event_id), (2, LAST));
    assert_eq!(
        system
            .run_approvals(ledger.tenant, run)
            .await
            .unwrap()
            .len(),
        2
    );

    let first = decide(&ledger, run, asked[0].id, &result()).await;
    assert_eq!(
        first,
        DecideOutcome::Decided {
            newly: true,
            queued: None
        }
    );
    let last = decide(&ledger, run, asked[1].id, &Decision::Retry {}).await;
    let DecideOutcome::Decided {
        newly: true,
        queued: Some(job),
    } = last
    else {
        panic!("{last:?}");
    };
    assert_eq!(job.run, run);

    let next = ledger.claimed(run, LONG).await;
    assert_eq!(
        (next.fence.attempt, next.failures),
        (3, 1),
        "parking is no failure"
    );
    assert_eq!(next.last_event_id, LAST);
    assert_eq!(next.asked.len(), 2);
    assert_eq!(
        decisions(&next.recorded),
        [Some(result()), Some(Decision::Retry {})]
    );
    // An attempt that ends before it begins the call leaves the decision unused.
    system.hand_over(&next.fence, LAST).await.unwrap();
    let next = ledger.claimed(run, OVER).await;
    assert_eq!(
        decisions(&next.recorded),
        [Some(result()), Some(Decision::Retry {})]
    );
    // An attempt that has begun the call used the decision. Whether the call took effect is a new
    // question.
    system.start_call(&next.fence, 3).await.unwrap();
    let next = ledger.claimed(run, LONG).await;
    assert_eq!(decisions(&next.recorded), [Some(result()), None]);
    let again = [NewApproval {
        id: ApprovalId::from_uuid(Uuid::now_v7()),
        ..asked[1].clone()
    }];
    system
        .park_run(&next.fence, &park(&again, LONG))
        .await
        .unwrap();
    assert_eq!(
        system
            .run_approvals(ledger.tenant, run)
            .await
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn of_fifty_decisions_at_once_one_stands_and_all_see_it() {
    let ledger = Ledger::new().await;
    let fence = two_lost_calls(&ledger).await;
    let (run, asked) = (fence.run, questions());
    let only = &asked[..1];
    ledger
        .store
        .system()
        .park_run(&fence, &park(only, LONG))
        .await
        .unwrap();

    let racing = (0..50).map(|n| {
        let decision = Decision::Result {
            result: n.to_string(),
        };
        let (ledger, id) = (&ledger, only[0].id);
        async move { (decide(ledger, run, id, &decision).await, decision) }
    });
    let outcomes = join_all(racing).await;

    let won: Vec<_> = outcomes
        .iter()
        .filter(|(outcome, _)| matches!(outcome, DecideOutcome::Decided { newly: true, .. }))
        .collect();
    let [(DecideOutcome::Decided { queued, .. }, winner)] = &won[..] else {
        panic!("{} won", won.len());
    };
    assert!(queued.is_some());
    for (outcome, decision) in &outcomes {
        if decision != winner {
            assert_eq!(*outcome, DecideOutcome::AlreadyDecided(winner.clone()));
        }
    }
    let again = decide(&ledger, run, only[0].id, winner).await;
    assert_eq!(
        again,
        DecideOutcome::Decided {
            newly: false,
            queued: None
        }
    );
}

#[tokio::test]
async fn what_nobody_decides_in_time_is_given_up_and_cannot_be_decided_late() {
    let ledger = Ledger::new().await;
    let fence = two_lost_calls(&ledger).await;
    let (run, asked) = (fence.run, questions());
    let system = ledger.store.system();
    system.park_run(&fence, &park(&asked, OVER)).await.unwrap();

    let late = decide(&ledger, run, asked[0].id, &Decision::Retry {}).await;
    assert_eq!(late, DecideOutcome::Expired);
    let queued = system.expire_approvals(10).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].run, run);
    assert_eq!(system.expire_approvals(10).await.unwrap(), []);

    let next = ledger.claimed(run, LONG).await;
    for decision in decisions(&next.recorded) {
        assert!(
            matches!(decision, Some(Decision::Fail { .. })),
            "{decision:?}"
        );
    }
    let late = decide(&ledger, run, asked[0].id, &Decision::Retry {}).await;
    assert!(matches!(late, DecideOutcome::AlreadyDecided(_)), "{late:?}");
}

#[tokio::test]
async fn a_run_that_is_to_be_cancelled_is_not_parked_and_a_parked_one_is_cancelled_at_once() {
    let ledger = Ledger::new().await;
    let cancel = async |run| {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        tx.request_cancel(run, "enough").await.unwrap();
        tx.commit().await.unwrap();
    };
    let system = ledger.store.system();

    let fence = two_lost_calls(&ledger).await;
    cancel(fence.run).await;
    let outcome = system.park_run(&fence, &park(&questions(), LONG)).await;
    assert_eq!(
        outcome.unwrap(),
        ParkOutcome::CancelRequested("enough".into())
    );

    let fence = two_lost_calls(&ledger).await;
    let asked = questions();
    system.park_run(&fence, &park(&asked, LONG)).await.unwrap();
    cancel(fence.run).await;
    let late = decide(&ledger, fence.run, asked[0].id, &Decision::Retry {}).await;
    assert_eq!(late, DecideOutcome::Ended(RunStatus::Cancelled));
}

#[tokio::test]
async fn a_replaced_attempt_parks_nothing() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let old = ledger.fence(run, OVER).await;
    ledger.fence(run, LONG).await;
    let refused = ledger
        .store
        .system()
        .park_run(&old, &park(&questions(), LONG))
        .await;
    assert!(matches!(refused, Err(FenceError::Lost)), "{refused:?}");
    let asked = ledger
        .store
        .system()
        .run_approvals(ledger.tenant, run)
        .await;
    assert_eq!(asked.unwrap(), []);
}
