//! Claims that wait for each other.

use std::pin::pin;

use baton_protocol::{RunId, RunStatus};
use baton_store::{Claim, ClaimOutcome};
use futures_util::future::join_all;

use super::begin;
use crate::fixture::{LONG, Ledger, MAX_FAILURES, OVER, run_id};
use crate::threads::new_thread;

impl Ledger {
    async fn claim(&self, claim: &Claim) -> ClaimOutcome {
        self.store.system().claim_run(claim).await.unwrap()
    }

    /// Marks a queued run as one that is to be cancelled, as a hand-over during a cancel leaves it.
    async fn flag_cancelled(&self, run: RunId) {
        let flag = "UPDATE runs SET cancel_requested_at = clock_timestamp() WHERE id = $1";
        let flag = sqlx::query(flag).bind(run.as_uuid());
        flag.execute(&mut self.superuser().await).await.unwrap();
    }

    async fn queued_runs(&self, count: usize) -> Vec<RunId> {
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(self.queued().await);
        }
        runs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_claims_answers_each_exactly() {
    let ledger = Ledger::new().await;
    let wish = |run| ledger.wish(run, LONG);
    let first = ledger.queued().await;
    let plain = ledger.queued_runs(4).await;
    let twice = ledger.queued().await;
    let locked = ledger.queued().await;
    let held = ledger.queued().await;
    ledger.claimed(held, LONG).await;
    let expired = ledger.queued().await;
    ledger.claimed(expired, OVER).await;
    let lost = ledger.queued().await;
    for _ in 0..MAX_FAILURES {
        ledger.claimed(lost, OVER).await;
    }
    let cancelled = ledger.queued().await;
    ledger.flag_cancelled(cancelled).await;
    let thread = new_thread(&ledger).await;
    let threaded = ledger.queued_in(Some(thread)).await;
    let behind = ledger.queued_in(Some(thread)).await;

    let row = ledger.locked(first).await;
    let neighbour = ledger.locked(locked).await;
    let first = wish(first);
    let mut first = pin!(ledger.claim(&first));
    begin(first.as_mut()).await;
    ledger.database.until_blocked("runs.claim").await;
    let locked = wish(locked);
    let mut locked = pin!(ledger.claim(&locked));
    begin(locked.as_mut()).await;
    let others = [
        &plain[..],
        &[
            twice,
            twice,
            held,
            expired,
            lost,
            cancelled,
            threaded,
            run_id(),
        ],
    ];
    let others: Vec<_> = others.concat().into_iter().map(wish).collect();
    let mut outcomes = pin!(join_all(others.iter().map(|claim| ledger.claim(claim))));
    begin(outcomes.as_mut()).await;
    drop(row);

    assert!(matches!(first.await, ClaimOutcome::Claimed(_)));
    let outcomes = outcomes.await;
    begin(locked.as_mut()).await;
    drop(neighbour);
    assert!(matches!(locked.await, ClaimOutcome::Claimed(_)));
    let mut fences = Vec::new();
    for (claim, outcome) in others.iter().zip(&outcomes).take(4) {
        let ClaimOutcome::Claimed(run) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((run.fence.run, run.fence.token), (claim.run, claim.token));
        assert_eq!((run.fence.attempt, run.failures), (1, 1));
        fences.push(run.fence);
    }
    assert_eq!(ledger.commits_of(&fences).await, 1);
    let claimed = |outcome: &&ClaimOutcome| matches!(outcome, ClaimOutcome::Claimed(_));
    assert_eq!(outcomes[4..6].iter().filter(claimed).count(), 1);
    assert!(
        matches!(outcomes[6], ClaimOutcome::Leased { .. }),
        "{outcomes:?}"
    );
    assert!(
        matches!(&outcomes[7], ClaimOutcome::Claimed(run) if run.fence.attempt == 2),
        "{outcomes:?}"
    );
    for (place, status) in [(8, RunStatus::Failed), (9, RunStatus::Cancelled)] {
        let ended = matches!(&outcomes[place], ClaimOutcome::Ended(run)
                             if run.outcome.status() == status && run.newly);
        assert!(ended, "{outcomes:?}");
    }
    assert!(claimed(&&outcomes[10]), "{outcomes:?}");
    assert!(matches!(outcomes[11], ClaimOutcome::Gone), "{outcomes:?}");
    assert!(matches!(
        ledger.claim(&wish(behind)).await,
        ClaimOutcome::Waiting
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_claims_at_once_are_a_few_commits_and_each_run_has_one_holder() {
    let ledger = Ledger::new().await;
    let runs = ledger.queued_runs(100).await;
    let claims: Vec<_> = runs
        .iter()
        .flat_map(|run| [ledger.wish(*run, LONG), ledger.wish(*run, LONG)])
        .collect();
    let outcomes = join_all(claims.iter().map(|claim| ledger.claim(claim))).await;
    let mut holders = Vec::new();
    for outcome in outcomes {
        match outcome {
            ClaimOutcome::Claimed(run) => {
                assert_eq!(run.fence.attempt, 1);
                holders.push(run.fence);
            }
            ClaimOutcome::Leased { same_job: true, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let mut held: Vec<_> = holders.iter().map(|fence| fence.run).collect();
    held.sort_unstable();
    assert_eq!(held, runs);
    let commits = ledger.commits_of(&holders).await;
    assert!(commits < 50, "{commits}");
}
