//! The statements that are executed for several rows at once, and their answers row by row.
//!
//! A group answers only the rows that its statement wrote. A row that it passed over goes through
//! the statement for one row, which knows all other answers; so do all rows of a group that failed,
//! because one of them may hold a value that the database refuses. If the answer to the group was
//! lost, the statement for one row finds out what was committed.

use std::sync::Arc;

use crate::errors::{FenceError, StoreError};
use crate::grouper::Grouper;
use crate::runs::claim::{Claim, ClaimRow, claim_group};
use crate::runs::finish::{EndedRow, FinishRow, finish_group};
use crate::statement_pool::StatementPool;
use crate::system::SystemTx;

/// The groups of a store.
#[derive(Debug)]
pub(crate) struct Groups {
    claims: Grouper<Claim, Result<Option<ClaimRow>, StoreError>>,
    finishes: Grouper<Arc<FinishRow>, Result<EndedRow, FenceError>>,
}

impl Groups {
    pub(crate) fn new(system: &StatementPool) -> Self {
        let (pool, claims) = (system.clone(), system.clone());
        Self {
            claims: Grouper::new(move |claims_of_group: Vec<Claim>| {
                let pool = claims.clone();
                async move {
                    match claims_of_group.as_slice() {
                        [claim] => vec![Some(SystemTx::alone(&pool).claim_alone(claim).await)],
                        claims => {
                            let claimed = claim_group(&pool, claims).await;
                            let claimed =
                                claimed.map(|rows| rows.into_iter().map(|row| row.map(Some)));
                            answers(claims.len(), claimed.map(Iterator::collect))
                        }
                    }
                }
            }),
            finishes: Grouper::new(move |rows: Vec<Arc<FinishRow>>| {
                let pool = pool.clone();
                async move {
                    match rows.as_slice() {
                        [row] => vec![Some(SystemTx::alone(&pool).finish_alone(row).await)],
                        rows => answers(rows.len(), finish_group(&pool, rows).await),
                    }
                }
            }),
        }
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
    }

    /// Ends a run together with others; `None` if the caller is to end it by itself.
    pub(crate) async fn finish(
        &self,
        row: &Arc<FinishRow>,
    ) -> Option<Result<EndedRow, FenceError>> {
        let tenant = row.tenant();
        let row = Arc::clone(row);
        self.finishes.submit(None, tenant, row.bytes(), row).await
    }

    /// Waits for the groups under way; later rows go by themselves.
    pub(crate) async fn drain(&self) {
        self.claims.drain().await;
        self.finishes.drain().await;
    }
}

/// Returns the answers to the rows of a group; none if its statement failed.
fn answers<A, E>(
    rows: usize,
    written: Result<Vec<Option<A>>, StoreError>,
) -> Vec<Option<Result<A, E>>> {
    match written {
        Ok(written) => written.into_iter().map(|row| row.map(Ok)).collect(),
        Err(error) => {
            tracing::debug!(%error, rows, "a group of statements failed; each goes by itself");
            (0..rows).map(|_| None).collect()
        }
    }
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
