//! The table `sign_in_throttle`: how often passwords were tried.

use std::time::Duration;

use crate::errors::StoreError;
use crate::system::SystemTx;

/// How often something may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryRate {
    /// So many times at once,
    pub burst: u32,
    /// and then once in this time.
    pub every: Duration,
}

impl SystemTx<'_> {
    /// Counts a try, before it is made, so that tries at the same moment count too. `Some` is how
    /// long to wait instead.
    pub async fn count_try(
        &self,
        key: &[u8; 32],
        rate: TryRate,
    ) -> Result<Option<Duration>, StoreError> {
        let room = rate.every * rate.burst.saturating_sub(1);
        let row = sqlx::query!(
            r#"
            -- sign_in_throttle.count
            WITH counted AS (
                INSERT INTO sign_in_throttle AS t (key, ready_at)
                VALUES ($1, clock_timestamp() + $2::interval)
                ON CONFLICT (key) DO UPDATE
                    SET ready_at = greatest(t.ready_at, clock_timestamp()) + $2::interval
                    WHERE t.ready_at <= clock_timestamp() + $3::interval
                RETURNING true
            )
            SELECT extract(epoch FROM t.ready_at - clock_timestamp() - $3::interval)::float8
                       AS "seconds?"
            FROM (VALUES (1)) AS one (row)
            LEFT JOIN sign_in_throttle t ON t.key = $1
            WHERE NOT EXISTS (SELECT FROM counted)
            "#,
            key.as_slice(),
            rate.every as _,
            room as _,
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(|row| {
            let seconds = row.seconds.unwrap_or_default().max(0.0);
            Duration::try_from_secs_f64(seconds).unwrap_or(rate.every)
        }))
    }

    /// Forgets the tries of somebody who got in, and everybody's that no longer matter.
    pub async fn forget_tries(&self, key: &[u8; 32]) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- sign_in_throttle.forget
            DELETE FROM sign_in_throttle WHERE key = $1 OR ready_at < clock_timestamp()
            ",
            key.as_slice(),
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }
}
