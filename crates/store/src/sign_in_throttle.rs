//! The table `sign_in_throttle`: counts of password attempts, and of audit entries that were left
//! out.

use std::time::Duration;

use crate::errors::StoreError;
use crate::system::SystemTx;

/// A rate of attempts, as a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryRate {
    /// The attempts that are allowed at once.
    pub burst: u32,
    /// The time after which one more is allowed.
    pub every: Duration,
}

impl SystemTx<'_> {
    /// Counts an attempt before it is made, so that simultaneous attempts count too. `Some` is the
    /// time to wait: the attempt is refused.
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

    /// Counts an event that is too frequent for an audit entry each time. `Some` if an entry must
    /// be written now: the number of events without an entry since the last one.
    pub async fn count_entry(
        &self,
        key: &[u8; 32],
        rate: TryRate,
    ) -> Result<Option<u64>, StoreError> {
        let room = rate.every * rate.burst.saturating_sub(1);
        let row = sqlx::query!(
            "
            -- sign_in_throttle.count_entry
            INSERT INTO sign_in_throttle AS t (key, ready_at)
            VALUES ($1, clock_timestamp() + $2::interval)
            ON CONFLICT (key) DO UPDATE
                SET (ready_at, left_out, reported) = (
                    SELECT CASE WHEN fits THEN greatest(t.ready_at, clock_timestamp()) + $2::interval
                                ELSE t.ready_at END,
                           CASE WHEN fits THEN 0 ELSE t.left_out + 1 END,
                           CASE WHEN fits THEN t.left_out ELSE 0 END
                    FROM (SELECT t.ready_at <= clock_timestamp() + $3::interval AS fits) bucket)
            RETURNING left_out, reported
            ",
            key.as_slice(),
            rate.every as _,
            room as _,
        )
        .fetch_one(self.pool)
        .await?;
        Ok((row.left_out == 0).then(|| u64::try_from(row.reported).unwrap_or_default()))
    }

    /// Deletes the attempts of a client that signed in, and everybody's old attempts. A count of
    /// entries that were left out is kept for a month, because the next entry reports it.
    pub async fn forget_tries(&self, key: &[u8; 32]) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- sign_in_throttle.forget
            DELETE FROM sign_in_throttle
            WHERE key = $1
               OR ready_at < clock_timestamp() AND left_out = 0
               OR ready_at < clock_timestamp() - interval '30 days'
            ",
            key.as_slice(),
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }
}
