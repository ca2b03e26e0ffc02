//! The statements that are executed for several rows at once, and their answers row by row.
//!
//! A group answers only the rows that its statement wrote. A row that it passed over goes through
//! the statement for one row, which knows all other answers; so do all rows of a group that failed,
//! because one of them may hold a value that the database refuses. If the answer to the group was
//! lost, the statement that claims or ends one run, or records one step, finds out what was committed;
//! an accepted run is looked up.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::errors::{FenceError, StoreError};
use crate::grouper::{Grouper, Submitted};
use crate::runs::accept::{AcceptRow, accept_alone, accept_group};
use crate::runs::claim::{Claim, ClaimRow, claim_group};
use crate::runs::finish::{EndedRow, FinishRow, finish_group};
use crate::statement_pool::StatementPool;
use crate::steps::{CallCommitRow, TurnCommitRow, commit_call_group, commit_turn_group};
use crate::system::SystemTx;

/// The groups of a store.
#[derive(Debug)]
pub(crate) struct Groups {
    accepts: Grouper<Arc<AcceptRow>, Result<Option<DateTime<Utc>>, StoreError>>,
    claims: Grouper<Claim, Result<Option<ClaimRow>, StoreError>>,
    turns: Grouper<Arc<TurnCommitRow>, Result<bool, FenceError>>,
    calls: Grouper<Arc<CallCommitRow>, Result<bool, FenceError>>,
    finishes: Grouper<Arc<FinishRow>, Result<EndedRow, FenceError>>,
}

impl Groups {
    pub(crate) fn new(tenant: &StatementPool, system: &StatementPool, slow: Duration) -> Self {
        let (accepts, claims, pool) = (tenant.clone(), system.clone(), system.clone());
        let (turns, calls) = (system.clone(), system.clone());
        Self {
            accepts: Grouper::new(slow, move |rows: Vec<Arc<AcceptRow>>| {
                let pool = accepts.clone();
                async move {
                    match rows.as_slice() {
                        [row] => vec![Submitted::Answered(accept_alone(&pool, row).await)],
                        rows => accepted(rows.len(), accept_group(&pool, rows).await),
                    }
                }
            }),
            claims: Grouper::new(slow, move |claims_of_group: Vec<Claim>| {
                let pool = claims.clone();
                async move {
                    match claims_of_group.as_slice() {
                        [claim] => {
                            let claimed = SystemTx::alone(&pool).claim_alone(claim).await;
                            vec![Submitted::Answered(claimed)]
                        }
                        claims => {
                            let claimed = claim_group(&pool, claims).await;
                            let claimed =
                                claimed.map(|rows| rows.into_iter().map(|row| row.map(Some)));
                            answers(claims.len(), claimed.map(Iterator::collect))
                        }
                    }
                }
            }),
            turns: Grouper::new(slow, move |rows: Vec<Arc<TurnCommitRow>>| {
                let pool = turns.clone();
                async move {
                    match rows.as_slice() {
                        [row] => {
                            let took = SystemTx::alone(&pool).commit_turn_alone(row).await;
                            vec![Submitted::Answered(took)]
                        }
                        rows => answers(rows.len(), commit_turn_group(&pool, rows).await),
                    }
                }
            }),
            calls: Grouper::new(slow, move |rows: Vec<Arc<CallCommitRow>>| {
                let pool = calls.clone();
                async move {
                    match rows.as_slice() {
                        [row] => {
                            let took = SystemTx::alone(&pool).commit_call_alone(row).await;
                            vec![Submitted::Answered(took)]
                        }
                        rows => answers(rows.len(), commit_call_group(&pool, rows).await),
                    }
                }
            }),
            finishes: Grouper::new(slow, move |rows: Vec<Arc<FinishRow>>| {
                let pool = pool.clone();
                async move {
                    match rows.as_slice() {
                        [row] => {
                            let ended = SystemTx::alone(&pool).finish_alone(row).await;
                            vec![Submitted::Answered(ended)]
                        }
                        rows => answers(rows.len(), finish_group(&pool, rows).await),
                    }
                }
            }),
        }
    }

    /// Accepts a run together with others of its tenant. It has no idempotency key, no thread and no
    /// budget.
    pub(crate) async fn accept(
        &self,
        row: &Arc<AcceptRow>,
    ) -> Submitted<Result<Option<DateTime<Utc>>, StoreError>> {
        let (tenant, bytes) = (row.tenant(), row.bytes());
        let row = Arc::clone(row);
        self.accepts.submit(Some(tenant), tenant, bytes, row).await
    }

    /// Claims a run together with others; `None` if the caller is to claim it by itself.
    pub(crate) async fn claim(
        &self,
        claim: &Claim,
    ) -> Option<Result<Option<ClaimRow>, StoreError>> {
        let bytes = size_of::<Claim>();
        self.claims
            .submit(None, claim.tenant, bytes, claim.clone())
            .await
            .answer()
    }

    /// Records a turn together with others, and returns whether it took messages; `None` if the
    /// caller is to record it by itself.
    pub(crate) async fn commit_turn(
        &self,
        row: &Arc<TurnCommitRow>,
    ) -> Option<Result<bool, FenceError>> {
        let (tenant, bytes) = (row.tenant(), row.bytes());
        let row = Arc::clone(row);
        self.turns.submit(None, tenant, bytes, row).await.answer()
    }

    /// Records the result of a call together with others, and returns whether it took messages;
    /// `None` if the caller is to record it by itself.
    pub(crate) async fn commit_call(
        &self,
        row: &Arc<CallCommitRow>,
    ) -> Option<Result<bool, FenceError>> {
        let (tenant, bytes) = (row.tenant(), row.bytes());
        let row = Arc::clone(row);
        self.calls.submit(None, tenant, bytes, row).await.answer()
    }

    /// Ends a run together with others; `None` if the caller is to end it by itself.
    pub(crate) async fn finish(
        &self,
        row: &Arc<FinishRow>,
    ) -> Option<Result<EndedRow, FenceError>> {
        let tenant = row.tenant();
        let row = Arc::clone(row);
        let bytes = row.bytes();
        self.finishes
            .submit(None, tenant, bytes, row)
            .await
            .answer()
    }

    /// Waits for the groups under way; later rows go by themselves.
    pub(crate) async fn drain(&self) {
        self.accepts.drain().await;
        self.claims.drain().await;
        self.turns.drain().await;
        self.calls.drain().await;
        self.finishes.drain().await;
    }
}

impl<A> Submitted<A> {
    /// Returns the answer; `None` if the caller is to execute a row by itself that can be repeated.
    fn answer(self) -> Option<A> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Left | Self::Lost => None,
        }
    }
}

/// Returns the answers to the rows of a group; none if its statement failed.
fn answers<A, E>(
    rows: usize,
    written: Result<Vec<Option<A>>, StoreError>,
) -> Vec<Submitted<Result<A, E>>> {
    match written {
        Ok(written) => written
            .into_iter()
            .map(|row| row.map_or(Submitted::Left, |row| Submitted::Answered(Ok(row))))
            .collect(),
        Err(error) => {
            tracing::debug!(%error, rows, "a group of statements failed; each goes by itself");
            // Repeated, the statement for one row tells a lost answer from a failure.
            (0..rows).map(|_| Submitted::Left).collect()
        }
    }
}

/// As [`answers`], for runs to be accepted. The insert of one run cannot tell its own earlier
/// commit from another run with its id.
fn accepted<A, E>(
    rows: usize,
    written: Result<Vec<Option<A>>, StoreError>,
) -> Vec<Submitted<Result<Option<A>, E>>> {
    if written.as_ref().is_err_and(StoreError::may_have_committed) {
        tracing::debug!(rows, "the answer to a group of accepted runs was lost");
        return (0..rows).map(|_| Submitted::Lost).collect();
    }
    let written = written.map(|rows| rows.into_iter().map(|row| row.map(Some)).collect());
    answers(rows, written)
}

/// Collects one parameter of all rows.
pub(crate) fn column<'r, R, T>(rows: &'r [R], of: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// Brings the answers of a statement into the order of its rows. Their places count from 1.
pub(crate) fn in_places<A>(rows: usize, answers: impl Iterator<Item = (i64, A)>) -> Vec<Option<A>> {
    let mut places: Vec<Option<A>> = (0..rows).map(|_| None).collect();
    for (place, answer) in answers {
        let place = usize::try_from(place - 1).ok();
        if let Some(slot) = place.and_then(|place| places.get_mut(place)) {
            *slot = Some(answer);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::accepted;
    use crate::errors::StoreError;
    use crate::grouper::Submitted;

    #[test]
    fn only_an_answer_that_may_hide_a_commit_is_lost() {
        let failed = |error| {
            let failed = Err::<Vec<Option<()>>, _>(StoreError::Unavailable(error));
            accepted::<_, StoreError>(2, failed)
        };
        let lost = failed(sqlx::Error::Protocol("cut off".into()));
        assert!(matches!(lost[..], [Submitted::Lost, Submitted::Lost]));
        let left = failed(sqlx::Error::PoolTimedOut);
        assert!(matches!(left[..], [Submitted::Left, Submitted::Left]));
    }
}
