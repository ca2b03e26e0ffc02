//! An estimate of the number of waiting runs in the whole system, for the limit on them.
//!
//! A tenant's transaction sees only its own rows, and an exact count over all tenants would repeat
//! the same work for every accepted run. So at most one transaction per [`FRESH`] counts, and the
//! others use its figure. The limit exists to bound the backlog; the arrivals of a few hundred
//! milliseconds do not matter.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::columns::int8;
use crate::errors::StoreError;
use crate::statement_pool::StatementPool;

const FRESH: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct QueueDepth {
    pool: StatementPool,
    born: Instant,
    /// The milliseconds after `born` from which on the runs are counted again.
    stale_at: AtomicU64,
    counted: AtomicU32,
    counting: AtomicBool,
}

impl QueueDepth {
    pub(crate) fn new(pool: StatementPool) -> Self {
        Self {
            pool,
            born: Instant::now(),
            stale_at: AtomicU64::new(0),
            counted: AtomicU32::new(0),
            counting: AtomicBool::new(false),
        }
    }

    /// Returns whether about `limit` runs or more are waiting.
    pub(crate) async fn reaches(&self, limit: u32) -> Result<bool, StoreError> {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.stale_at.load(Ordering::Acquire)
            && !self.counting.swap(true, Ordering::AcqRel)
        {
            let turn = CountingTurn(&self.counting);
            let counted = self.count(limit).await?;
            self.counted.store(counted, Ordering::Release);
            let fresh = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
            self.stale_at.store(now + fresh, Ordering::Release);
            drop(turn);
        }
        Ok(self.counted.load(Ordering::Acquire) >= limit)
    }

    /// Counts the waiting runs, up to `limit`.
    async fn count(&self, limit: u32) -> Result<u32, StoreError> {
        let counted = sqlx::query_scalar!(
            r#"
            -- runs.queue_depth
            SELECT count(*) AS "count!"
            FROM (SELECT FROM runs WHERE status = 'queued' LIMIT $1) AS waiting
            "#,
            int8(u64::from(limit)),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(counted).unwrap_or(u32::MAX))
    }
}

/// Clears the flag of the counting caller on drop, even if its future is dropped in the middle.
struct CountingTurn<'a>(&'a AtomicBool);

impl Drop for CountingTurn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
