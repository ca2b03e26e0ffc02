//! The table `reservations`: what runs take of the limits of the key that they were submitted with.
//!
//! Only keys that have such a limit come here. The row of the key is locked while one of its runs is
//! accepted, so that what is counted stays true until the run is among what is counted.

use baton_protocol::ApiKeyId;
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::runs::accept::{Accept, NewRun};
use crate::tenant_tx::TenantTx;

/// A key's limits, locked, with what is taken of them.
pub(crate) struct Standing {
    /// The key whose row is locked.
    limits_of: Uuid,
}

impl TenantTx {
    /// Locks the limits of the run's key and looks whether the run stays within them; the refusal if
    /// it does not.
    pub(crate) async fn stand(
        &mut self,
        key: ApiKeyId,
    ) -> Result<Result<Standing, Accept>, StoreError> {
        let tenant = self.tenant;
        let limits = sqlx::query!(
            "
            -- reservations.lock
            SELECT root.id AS limits_of, asked.concurrent_runs
            FROM api_keys AS asked
            JOIN api_keys AS root
              ON root.tenant_id = asked.tenant_id AND root.id = coalesce(asked.limits_of, asked.id)
            WHERE asked.tenant_id = $1 AND asked.id = $2
            FOR NO KEY UPDATE OF root
            ",
            tenant.as_uuid(),
            key.as_uuid(),
        )
        .fetch_one(self.connection())
        .await?;
        // A statement of its own: it sees what was committed while the lock was waited for.
        if let Some(limit) = limits.concurrent_runs {
            let running = sqlx::query_scalar!(
                r#"
                -- reservations.running
                SELECT count(*) AS "running!" FROM (
                    SELECT FROM reservations
                    WHERE tenant_id = $1 AND limits_of = $2 AND running LIMIT $3
                ) AS counted
                "#,
                tenant.as_uuid(),
                limits.limits_of,
                i64::from(limit),
            )
            .fetch_one(self.connection())
            .await?;
            if running >= i64::from(limit) {
                let limit = columns::count(limit);
                return Ok(Err(Accept::TooManyRuns { limit }));
            }
        }
        Ok(Ok(Standing {
            limits_of: limits.limits_of,
        }))
    }

    /// The run, which has just been inserted, takes its part.
    pub(crate) async fn reserve(
        &mut self,
        run: &NewRun<'_>,
        standing: &Standing,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant;
        sqlx::query!(
            "
            -- reservations.make
            INSERT INTO reservations (tenant_id, run_id, limits_of) VALUES ($1, $2, $3)
            ",
            tenant.as_uuid(),
            run.id.as_uuid(),
            standing.limits_of,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
