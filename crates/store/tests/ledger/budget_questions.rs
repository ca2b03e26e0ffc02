//! Questions about limits of runs.

use std::collections::HashSet;
use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, EventId, Fence, FinishReason, ReachedLimit,
    RequestLimits, RunId, UsedUp,
};
use baton_store::{ClaimOutcome, DecideOutcome, NewApproval, ParkCommit, ParkOutcome};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{LONG, Ledger};

fn reached() -> ReachedLimit {
    ReachedLimit {
        limit: FinishReason::MaxTokens,
        limits: limits(100),
        used: UsedUp {
            tokens: 90,
            cost: None,
            tool_calls: 1,
        },
    }
}

fn limits(tokens: u64) -> RequestLimits {
    RequestLimits {
        max_tokens: Some(tokens),
        ..RequestLimits::default()
    }
}

/// Parks a run at its limit. Returns its fence and the question.
async fn at_limit(ledger: &Ledger, expire_after: Duration) -> (Fence, ApprovalId) {
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let id = ApprovalId::from_uuid(Uuid::now_v7());
    let question = NewApproval {
        id,
        step: 1,
        reason: ApprovalReason::Budget,
        parameters: None,
        reached: Some(reached()),
        input: None,
    };
    let park = ParkCommit {
        approvals: &[question],
        expire_after,
        last_event_id: EventId::new(1, 2),
    };
    let system = ledger.store.system();
    let parked = system.park_run(&fence, &park).await.unwrap();
    assert!(matches!(parked, ParkOutcome::Parked { .. }), "{parked:?}");
    (fence, id)
}

async fn raise(ledger: &Ledger, run: RunId, approval: ApprovalId, tokens: u64) -> DecideOutcome {
    let decision = Decision::Raise {
        limits: limits(tokens),
    };
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let outcome = tx.decide(run, approval, &decision, None).await.unwrap();
    tx.commit().await.unwrap();
    outcome
}

/// Guards the door: the question has no call, is listed with its limit, and one of many raises queues the run.
#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_raises_at_once_one_lets_the_run_go_on() {
    let ledger = Ledger::new().await;
    let (fence, question) = at_limit(&ledger, LONG).await;
    let run = fence.run;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let open = tx.open_approvals(None, 10).await.unwrap().data;
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].id, &open[0].reached), (question, &Some(reached())));
    assert_eq!((&*open[0].call_id, &*open[0].name), ("", ""));
    let bounds = tx.raise_bounds(run).await.unwrap().unwrap();
    assert_eq!((bounds.tokens, bounds.cost), (None, None));
    let approve = Decision::Retry {};
    let other = tx.decide(run, question, &approve, None).await.unwrap();
    assert_eq!(other, DecideOutcome::NotAnOption(ApprovalReason::Budget));
    drop(tx);

    let all = (0..50).map(|nth| raise(&ledger, run, question, 200 + nth));
    let outcomes = join_all(all).await;
    let won = |outcome: &&DecideOutcome| {
        matches!(
            outcome,
            DecideOutcome::Decided {
                newly: true,
                queued: Some(_)
            }
        )
    };
    assert_eq!(outcomes.iter().filter(won).count(), 1, "{outcomes:?}");
    let system = ledger.store.system();
    let asked = system.run_approvals(ledger.tenant, run).await.unwrap();
    let decided = asked[0].decided.clone().unwrap().decision;
    let told: HashSet<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            DecideOutcome::AlreadyDecided(earlier) => earlier.raised_limits(),
            _ => decided.raised_limits(),
        })
        .map(|limits| limits.max_tokens)
        .collect();
    assert_eq!(told.len(), 1, "all see the same winner: {told:?}");
    let claimed = ledger.try_claim(run).await;
    assert!(matches!(claimed, ClaimOutcome::Claimed(_)), "{claimed:?}");
}

/// Guards expiry: the run ends at its limit then, as if nobody had waited.
#[tokio::test]
async fn a_question_about_a_limit_expires_as_stop() {
    let ledger = Ledger::new().await;
    let (fence, _) = at_limit(&ledger, Duration::ZERO).await;
    let system = ledger.store.system();
    let queued = system.expire_approvals(10).await.unwrap();
    assert_eq!(queued.len(), 1);
    let asked = system
        .run_approvals(ledger.tenant, fence.run)
        .await
        .unwrap();
    let decided = asked[0].decided.clone().unwrap();
    assert_eq!(decided.decision, Decision::Stop {});
}
