//! The scheduler finds and repairs the remains of crashes.

use std::time::Duration;

use baton_protocol::{EventId, Fence, FinishReason, Lane, RunStatus, Usage, WorkerId};
use baton_store::{Claim, ClaimOutcome, FenceError, TurnCommit};
use uuid::Uuid;

use crate::fixture::{CHARGE, LONG, Ledger, OVER};

fn turn() -> TurnCommit<'static> {
    TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 1,
        message: "{}",
        usage: Usage::default(),
        charge: CHARGE,
        usage_total: Usage::default(),
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(1, 1),
        calls: &[],
    }
}

#[tokio::test]
async fn runs_of_lost_workers_go_back_to_the_queue_and_live_ones_stay() {
    let ledger = Ledger::new().await;
    let (lost, live, queued) = (
        ledger.queued().await,
        ledger.queued().await,
        ledger.queued().await,
    );
    let stale = ledger.fence(lost, OVER).await;
    let fence = ledger.fence(live, LONG).await;
    let system = ledger.store.system();
    let requeued = system.requeue_expired(10).await.unwrap();
    assert_eq!(requeued.len(), 1);
    assert_eq!((requeued[0].run, requeued[0].tenant), (lost, ledger.tenant));
    assert!(system.requeue_expired(10).await.unwrap().is_empty());
    ledger.renew(&fence, Some(LONG)).await.unwrap();
    let refused = ledger.renew(&stale, Some(LONG)).await;
    assert!(matches!(refused, Err(FenceError::Lost)));

    let claimed = ledger.claimed(lost, LONG).await;
    assert_eq!((claimed.fence.attempt, claimed.failures), (2, 2));
    assert!(matches!(
        ledger.try_claim(queued).await,
        ClaimOutcome::Claimed(_)
    ));
}

/// Makes a run that `worker` holds.
async fn held_by(ledger: &Ledger, worker: WorkerId) -> Fence {
    let run = ledger.queued().await;
    let claim = Claim {
        worker,
        ..ledger.wish(run, LONG)
    };
    match ledger.store.system().claim_run(&claim).await.unwrap() {
        ClaimOutcome::Claimed(claimed) => claimed.fence,
        other => panic!("{other:?}"),
    }
}

/// Guards the comparison with the row's version: every answer to a holder, and every write of it,
/// keeps its run from being requeued early.
#[tokio::test]
async fn runs_are_taken_early_only_if_nobody_wrote_to_them_since_the_look() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let (dead, other) = (
        WorkerId::from_uuid(Uuid::now_v7()),
        WorkerId::from_uuid(Uuid::now_v7()),
    );
    let silent = held_by(&ledger, dead).await;
    let renewed = held_by(&ledger, dead).await;
    let shown = held_by(&ledger, dead).await;
    let committed = held_by(&ledger, dead).await;
    let claimed_again = held_by(&ledger, dead).await;
    let foreign = held_by(&ledger, other).await;
    let mut holders = system.holders().await.unwrap();
    holders.sort_unstable();
    assert_eq!(holders, [dead, other]);

    let mut seen = system.held_by(dead, 10).await.unwrap();
    assert_eq!(seen.len(), 5);
    seen.extend(system.held_by(other, 10).await.unwrap());
    ledger.renew(&renewed, Some(LONG)).await.unwrap();
    ledger.renew(&shown, None).await.unwrap();
    system.commit_turn(&committed, &turn()).await.unwrap();
    let again = Claim {
        worker: dead,
        token: claimed_again.token,
        ..ledger.wish(claimed_again.run, LONG)
    };
    system.claim_run(&again).await.unwrap();

    let taken = system.requeue_silent(dead, &seen).await.unwrap();
    assert_eq!(
        taken.iter().map(|job| job.run).collect::<Vec<_>>(),
        [silent.run]
    );
    assert!(matches!(
        ledger.renew(&silent, None).await,
        Err(FenceError::Lost)
    ));
    assert!(system.requeue_silent(dead, &seen).await.unwrap().is_empty());
    for fence in [renewed, shown, committed, claimed_again, foreign] {
        ledger.renew(&fence, None).await.unwrap();
    }
    let next = ledger.claimed(silent.run, LONG).await;
    assert_eq!((next.fence.attempt, next.failures), (2, 2));
}

/// Guards the same under the race itself: a row is either renewed or requeued, never both.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_and_an_early_taking_at_once_have_one_winner() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    for _ in 0..20 {
        let worker = WorkerId::from_uuid(Uuid::now_v7());
        let fence = held_by(&ledger, worker).await;
        let seen = system.held_by(worker, 10).await.unwrap();
        let (renewed, taken) = tokio::join!(
            ledger.renew(&fence, Some(LONG)),
            system.requeue_silent(worker, &seen),
        );
        assert_eq!(renewed.is_ok(), taken.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_hand_over_costs_no_failure_and_the_next_worker_goes_on_behind_its_events() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let system = ledger.store.system();
    // More claims than failures are allowed.
    for attempt in 1..=5 {
        let claimed = ledger.claimed(run, LONG).await;
        assert_eq!((claimed.fence.attempt, claimed.failures), (attempt, 1));
        assert_eq!(claimed.last_event_id.attempt(), attempt - 1);
        let at = EventId::new(attempt, 4);
        system.hand_over(&claimed.fence, at).await.unwrap();
    }
    // A turn that was cut leaves the last checkpoint unchanged.
    let cut = ledger.fence(run, LONG).await;
    system.hand_over(&cut, EventId::ORIGIN).await.unwrap();
    let next = ledger.claimed(run, LONG).await;
    assert_eq!(next.last_event_id, EventId::new(5, 4));
}

#[tokio::test]
async fn a_stray_copy_of_a_job_is_told_from_the_job_that_is_worked_on() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    ledger.claimed(run, LONG).await;
    let mut stray = ledger.wish(run, LONG);
    stray.job_seq += 1;
    let outcome = ledger.store.system().claim_run(&stray).await.unwrap();
    assert!(
        matches!(
            outcome,
            ClaimOutcome::Leased {
                same_job: false,
                ..
            }
        ),
        "{outcome:?}"
    );
    let gone = ledger.wish(crate::fixture::run_id(), LONG);
    let outcome = ledger.store.system().claim_run(&gone).await.unwrap();
    assert!(matches!(outcome, ClaimOutcome::Gone), "{outcome:?}");
}

#[tokio::test]
async fn queued_runs_without_a_recent_job_are_found_until_one_is_published() {
    let ledger = Ledger::new().await;
    let (first, second, held) = (
        ledger.queued().await,
        ledger.queued().await,
        ledger.queued().await,
    );
    ledger.claimed(held, LONG).await;
    let system = ledger.store.system();
    assert!(system.unpublished(LONG, 10).await.unwrap().is_empty());
    let due = system.unpublished(Duration::ZERO, 10).await.unwrap();
    let runs: Vec<_> = due.iter().map(|job| job.run).collect();
    assert_eq!(runs, [first, second]);
    assert_eq!(due[0].last_due_at(), due[0].queued_at);
    assert_eq!(
        system.unpublished(Duration::ZERO, 1).await.unwrap().len(),
        1
    );

    let marked = [(ledger.tenant, first), (ledger.tenant, held)];
    assert_eq!(system.mark_published(&marked).await.unwrap(), 1);
    let due = system.unpublished(Duration::ZERO, 10).await.unwrap();
    let marked = due.iter().find(|job| job.run == first).unwrap();
    assert!(marked.last_due_at() > marked.queued_at);
    // Its age now counts from the publishing.
    sqlx::query("UPDATE runs SET queued_at = queued_at - interval '1 hour'")
        .execute(&mut ledger.superuser().await)
        .await
        .unwrap();
    let due = system
        .unpublished(Duration::from_mins(30), 10)
        .await
        .unwrap();
    assert_eq!(due.iter().map(|job| job.run).collect::<Vec<_>>(), [second]);
}

#[tokio::test]
async fn the_queue_is_counted_by_lane_and_state() {
    let ledger = Ledger::new().await;
    let held = ledger.queued().await;
    ledger.queued().await;
    ledger.queued().await;
    ledger.claimed(held, LONG).await;
    let mut stats = ledger.store.system().queue_stats().await.unwrap();
    stats.sort_by_key(|stat| stat.count);
    let counts: Vec<_> = stats
        .iter()
        .map(|stat| (stat.lane, stat.status, stat.count))
        .collect();
    assert_eq!(
        counts,
        [
            (Lane::Interactive, RunStatus::Running, 1),
            (Lane::Interactive, RunStatus::Queued, 2),
        ]
    );
    assert!(stats.iter().all(|stat| stat.oldest < LONG));
}
