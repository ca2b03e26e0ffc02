//! The timeline of a run tells all of its attempts, and has no row for a run with one.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, Effect, EventId, Fence, FinishReason, RunId, RunStatus,
    TenantId, WorkerId,
};
use baton_store::{
    AttemptEnding, NewApproval, NewCall, NewRun, ParkCommit, Timeline, TimelineData, TurnCommit,
    TurnTimes,
};
use uuid::Uuid;

use crate::fixture::{
    ANSWER, CHARGE, DONE, LONG, Ledger, OVER, ROOMY, answer, finish, new_run, run_id, spec, usage,
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn timeline(ledger: &Ledger, run: RunId) -> Timeline {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.timeline(run).await.unwrap().unwrap()
}

/// The entries in words, each with whether it has ended.
fn words(timeline: &Timeline) -> Vec<(String, bool)> {
    let entries = timeline.entries.iter().map(|entry| {
        let word = match &entry.data {
            TimelineData::Queued { .. } => "queued".to_owned(),
            TimelineData::Attempt {
                attempt, ending, ..
            } => {
                format!(
                    "attempt {attempt} {}",
                    ending.map_or("-", AttemptEnding::as_str)
                )
            }
            TimelineData::Turn { step, .. } => format!("turn {step}"),
            TimelineData::Compaction { step, .. } => format!("compaction {step}"),
            TimelineData::Call { step, state, .. } => format!("call {step} {}", state.as_str()),
            TimelineData::Approval { decision, .. } => {
                format!("approval {}", decision.unwrap_or("-"))
            }
            TimelineData::Cancel { reason } => format!("cancel {reason}"),
        };
        (word, entry.ended_at.is_some())
    });
    entries.collect()
}

async fn rows_of(ledger: &Ledger, run: RunId) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM attempts WHERE run_id = $1")
        .bind(run.as_uuid())
        .fetch_one(&mut ledger.superuser().await)
        .await
        .unwrap()
}

async fn commit_turn(ledger: &Ledger, fence: &Fence) {
    let calls = [NewCall {
        step: 2,
        call_id: "c".into(),
        name: "pay".into(),
        arguments: "{}".into(),
        effect: Effect::AtMostOnce,
    }];
    let turn = TurnCommit {
        inputs_step: None,
        step: 1,
        message: ANSWER,
        answer_fields: None,
        charged_model: None,
        usage: usage(3, 4),
        charge: CHARGE,
        times: TurnTimes {
            took: Some(Duration::from_millis(900)),
            first_token: Some(Duration::from_millis(300)),
        },
        usage_total: usage(3, 4),
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(fence.attempt, 3),
        calls: &calls,
    };
    let system = ledger.store.system();
    system.commit_turn(fence, &turn).await.unwrap();
}

#[tokio::test]
async fn a_timeline_tells_every_attempt_and_why_it_ended() {
    let ledger = Ledger::new().await;
    let (run, spec) = (run_id(), spec());
    let new = NewRun {
        traceparent: Some(TRACE),
        ..new_run(run, &spec)
    };
    ledger.accept_with(&new, &ROOMY).await.unwrap();
    assert_eq!(
        words(&timeline(&ledger, run).await),
        [("queued".to_owned(), false)]
    );
    let system = ledger.store.system();

    let claimed = ledger.claimed(run, OVER).await;
    assert_eq!(claimed.traceparent.as_deref(), Some(TRACE));
    assert_eq!(system.requeue_expired(10).await.unwrap().len(), 1);
    // Its progress keeps the run from being given up.
    let second = ledger.fence(run, OVER).await;
    commit_turn(&ledger, &second).await;
    // Taken over by a claim, without a queue between.
    let third = ledger.fence(run, LONG).await;
    system.hand_over(&third, EventId::new(3, 3)).await.unwrap();
    let fourth = ledger.fence(run, LONG).await;
    system.start_call(&fourth, 2).await.unwrap();
    let question = NewApproval {
        id: ApprovalId::from_uuid(Uuid::now_v7()),
        step: 2,
        reason: ApprovalReason::OutcomeUnknown,
        parameters: None,
        reached: None,
        input: None,
    };
    let park = ParkCommit {
        approvals: std::slice::from_ref(&question),
        expire_after: LONG,
        last_event_id: EventId::new(4, 2),
    };
    system.park_run(&fourth, &park).await.unwrap();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.decide(run, question.id, &Decision::Retry {}, None)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let fifth = ledger.fence(run, LONG).await;
    system.finish_run(&fifth, &finish(&DONE)).await.unwrap();

    let seen = timeline(&ledger, run).await;
    let ended = |word: &str| (word.to_owned(), true);
    assert_eq!(
        words(&seen)
            .into_iter()
            .filter(|(word, _)| !word.starts_with("turn"))
            .collect::<Vec<_>>(),
        [
            ended("queued"),
            ended("attempt 1 lease_expired"),
            ended("queued"),
            ended("attempt 2 lease_expired"),
            ended("attempt 3 handed_over"),
            ended("queued"),
            ended("attempt 4 parked"),
            ("call 2 started".to_owned(), false),
            ended("approval retry"),
            ended("queued"),
            ended("attempt 5 completed"),
        ],
        "{seen:#?}"
    );
    assert_eq!(seen.status, RunStatus::Completed);
    assert_eq!(seen.trace_id(), TRACE.split('-').nth(1));
    let turn = seen
        .entries
        .iter()
        .find(|entry| matches!(entry.data, TimelineData::Turn { .. }))
        .unwrap();
    let TimelineData::Turn {
        first_token_at,
        usage: used,
        cost,
        ..
    } = turn.data.clone()
    else {
        panic!("{turn:?}")
    };
    let millis = |at: chrono::DateTime<chrono::Utc>| (at - turn.began_at).num_milliseconds();
    assert_eq!(first_token_at.map(millis), Some(300));
    // The statement reads its clock twice.
    let took = turn.ended_at.map(millis);
    assert!(matches!(took, Some(899 | 900)), "{took:?}");
    assert_eq!((used, cost), (usage(3, 4), CHARGE.cost));
}

#[tokio::test]
async fn a_run_with_one_attempt_has_no_row_of_its_attempt() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let claim = baton_store::Claim {
        worker,
        ..ledger.wish(run, LONG)
    };
    let system = ledger.store.system();
    let claimed = system.claim_run(&claim).await.unwrap();
    let baton_store::ClaimOutcome::Claimed(claimed) = claimed else {
        panic!("{claimed:?}")
    };
    system
        .finish_run(&claimed.fence, &answer(&DONE))
        .await
        .unwrap();
    assert_eq!(rows_of(&ledger, run).await, 0);
    let seen = timeline(&ledger, run).await;
    let held = seen.entries.iter().find_map(|entry| match entry.data {
        TimelineData::Attempt { worker, ending, .. } => Some((worker, ending)),
        _ => None,
    });
    let completed = AttemptEnding::Ended(RunStatus::Completed);
    assert_eq!(held, Some((Some(worker), Some(completed))));
}

#[tokio::test]
async fn a_run_that_is_cancelled_in_the_queue_has_no_attempt() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(run, "enough").await.unwrap();
    tx.commit().await.unwrap();
    let seen = timeline(&ledger, run).await;
    assert_eq!(
        words(&seen),
        [
            ("queued".to_owned(), true),
            ("cancel enough".to_owned(), true)
        ]
    );
    let found = ledger.store.system().tenant_of_run(run).await.unwrap();
    assert_eq!(found, Some(ledger.tenant));
    let none = ledger.store.system().tenant_of_run(run_id()).await;
    assert_eq!(none.unwrap(), None::<TenantId>);
}
