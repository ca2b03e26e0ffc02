//! Concurrent calls: one wins, and the others see its result.

use std::pin::pin;

use baton_protocol::{EventId, Outcome, RunStatus};
use baton_store::{Accept, CancelRequest, ClaimOutcome, FenceError, QueueLimits, Refusal};
use futures_util::future::{join, join_all};

use crate::fixture::{
    DONE, LONG, Ledger, MAX_FAILURES, OVER, ROOMY, answer, new_run, run_id, spec,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_claims_at_once_one_holds_the_run_and_the_others_see_its_lease() {
    let ledger = Ledger::new().await;
    for expired_before in [false, true] {
        let run = ledger.queued().await;
        if expired_before {
            ledger.claimed(run, OVER).await;
        }
        let outcomes = join_all((0..50).map(|_| ledger.try_claim(run))).await;
        let mut claimed = Vec::new();
        for outcome in outcomes {
            match outcome {
                ClaimOutcome::Claimed(run) => claimed.push(run.fence),
                ClaimOutcome::Leased {
                    remaining,
                    same_job,
                } => {
                    assert!(same_job);
                    assert!(remaining > LONG / 2, "{remaining:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].attempt, if expired_before { 2 } else { 1 });
        ledger.renew(&claimed[0], Some(LONG)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_of_a_run_lost_too_often_one_fails_it() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    for _ in 0..MAX_FAILURES {
        ledger.claimed(run, OVER).await;
    }
    let outcomes = join_all((0..20).map(|_| ledger.try_claim(run))).await;
    let ended: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            ClaimOutcome::Ended(ended) => ended,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended.iter().filter(|ended| ended.newly).count(), 1);
    assert!(ended.iter().all(|ended| ended.attempt == 3));
    assert!(
        ended
            .iter()
            .all(|ended| ended.last_event_id == EventId::new(3, 2))
    );
    assert_eq!(ended[0].outcome.status(), RunStatus::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_finish_at_once_leave_one_ending_that_both_agree_on() {
    let ledger = Ledger::new().await;
    for _ in 0..20 {
        let run = ledger.queued().await;
        let fence = ledger.fence(run, OVER).await;
        let cancelling = async {
            let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
            let cancel = tx.request_cancel(run, "enough").await.unwrap();
            tx.commit().await.unwrap();
            // The worker is late, so that another worker's claim turns the flag into an ending.
            (cancel, ledger.try_claim(run).await)
        };
        let system = ledger.store.system();
        let commit = answer(&DONE);
        let ((cancel, claim), finished) =
            join(cancelling, system.finish_run(&fence, &commit)).await;
        let ClaimOutcome::Ended(ended) = claim else {
            panic!("{claim:?}");
        };
        match finished {
            Ok(_) => assert_eq!(ended.outcome, DONE),
            Err(FenceError::Lost) => {
                assert_eq!(ended.outcome, Outcome::Cancelled("enough".into()));
                assert!(matches!(cancel, CancelRequest::Requested { .. }));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_submissions_at_once_with_one_key_one_is_made_and_all_name_it() {
    let ledger = Ledger::new().await;
    let submissions = (0..20).map(|_| async {
        let run = run_id();
        (run, ledger.accept_keyed(run, "same", 1).await)
    });
    let answers = join_all(submissions).await;
    let made: Vec<_> = answers
        .iter()
        .filter(|(_, accept)| matches!(accept, Accept::Created { .. }))
        .map(|(run, _)| *run)
        .collect();
    assert_eq!(made.len(), 1);
    assert_eq!(
        answers
            .iter()
            .filter(|(_, accept)| accept.replayed() == Some(made[0]))
            .count(),
        19
    );
}

/// Submits `many` runs at once from two servers and returns the number of accepted ones.
async fn accepted_at_once(ledger: &Ledger, many: usize, limit: u32) -> usize {
    let limits = QueueLimits {
        tenant: limit,
        ..ROOMY
    };
    let (other, spec) = (ledger.database.store().await, spec());
    let submissions = (0..many).map(|n| {
        let store = if n % 2 == 0 { &ledger.store } else { &other };
        let (spec, limits) = (&spec, &limits);
        async move {
            let run = new_run(run_id(), spec);
            store.accept_run(ledger.tenant, &run, limits).await.unwrap()
        }
    });
    let answers = join_all(submissions).await;
    assert!(answers.iter().all(|answer| matches!(
        answer,
        Accept::Created { .. } | Accept::Refused(Refusal::TenantQueueFull { .. })
    )));
    let created = answers
        .iter()
        .filter(|answer| matches!(answer, Accept::Created { .. }));
    created.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_submissions_at_once_as_many_are_accepted_as_the_limit_has_places() {
    let ledger = Ledger::new().await;
    assert_eq!(accepted_at_once(&ledger, 100, 20).await, 20);

    // The limit is far above the backlog, so that submissions do not take turns until they come
    // near it.
    let mut superuser = ledger.superuser().await;
    let connections = "SELECT current_setting('max_connections')::integer";
    let connections: i32 = sqlx::query_scalar(connections)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let limit = 20 + u32::try_from(connections).unwrap() + 20;
    let many = usize::try_from(connections).unwrap() + 60;
    let free = usize::try_from(limit).unwrap() - 20;
    assert_eq!(accepted_at_once(&ledger, many, limit).await, free);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_waits_to_see_whether_another_takes_the_last_place() {
    let ledger = Ledger::new().await;
    let limits = QueueLimits { tenant: 1, ..ROOMY };
    let (spec, store) = (spec(), ledger.database.store().await);
    for commits in [false, true] {
        let mut first = ledger.store.tenant(ledger.tenant).await.unwrap();
        let run = new_run(run_id(), &spec);
        let accepted = first.accept_run(&run, &limits).await.unwrap();
        assert!(matches!(accepted, Accept::Created { .. }));
        let run = new_run(run_id(), &spec);
        let mut second = pin!(store.accept_run(ledger.tenant, &run, &limits));
        tokio::select! {
            answer = &mut second => panic!("it did not wait: {answer:?}"),
            () = ledger.database.until_blocked("runs.accept") => {}
        }
        if commits {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        match (commits, second.await.unwrap()) {
            (false, Accept::Created { .. }) => {
                let mut superuser = ledger.superuser().await;
                let done = sqlx::query("DELETE FROM runs")
                    .execute(&mut superuser)
                    .await;
                done.unwrap();
            }
            (true, Accept::Refused(Refusal::TenantQueueFull { limit: 1 })) => {}
            (_, answer) => panic!("{answer:?}"),
        }
    }
}
