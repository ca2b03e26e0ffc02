//! What crashes leave behind is found and put right.

use std::time::Duration;

use baton_protocol::{EventId, Lane, RunStatus};
use baton_store::{ClaimOutcome, FenceError};

use crate::fixture::{LONG, Ledger, OVER};

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
    system.renew_lease(&fence, LONG).await.unwrap();
    let refused = system.renew_lease(&stale, LONG).await;
    assert!(matches!(refused, Err(FenceError::Lost)));

    let claimed = ledger.claimed(lost, LONG).await;
    assert_eq!((claimed.fence.attempt, claimed.failures), (2, 2));
    assert!(matches!(
        ledger.try_claim(queued).await,
        ClaimOutcome::Claimed(_)
    ));
}

#[tokio::test]
async fn a_hand_over_costs_no_failure_and_the_next_worker_goes_on_behind_its_events() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let system = ledger.store.system();
    // More often than failures are allowed.
    for attempt in 1..=5 {
        let claimed = ledger.claimed(run, LONG).await;
        assert_eq!((claimed.fence.attempt, claimed.failures), (attempt, 1));
        assert_eq!(claimed.last_event_id.attempt(), attempt - 1);
        let at = EventId::new(attempt, 4);
        system.hand_over(&claimed.fence, at).await.unwrap();
    }
    // A turn that was cut leaves the last checkpoint where it is.
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
