//! The removal of one run that has ended. Usage entries and reservations stay, because they are
//! accounts, and so does its idempotency key, so that a repeated submission makes no second run.

use std::time::Duration;

use baton_protocol::{RunId, TenantId};

use crate::errors::StoreError;
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// Returns at most `limit` runs that are not to be kept and ended at least `ago` before.
    pub async fn unstored_runs(
        &self,
        ago: Duration,
        limit: u32,
    ) -> Result<Vec<(TenantId, RunId)>, StoreError> {
        let rows = sqlx::query!(
            "
            -- runs.unstored
            SELECT tenant_id, id FROM runs
            WHERE NOT stored AND finished_at <= clock_timestamp() - make_interval(secs => $1)
              -- Its answer is still to be used.
              AND titles IS NULL
            ORDER BY finished_at LIMIT $2
            ",
            ago.as_secs_f64(),
            i64::from(limit),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (TenantId::from_uuid(row.tenant_id), RunId::from_uuid(row.id)))
            .collect())
    }

    /// Returns at most `limit` runs that have ended and expired.
    pub async fn expired_runs(&self, limit: u32) -> Result<Vec<(TenantId, RunId)>, StoreError> {
        let rows = sqlx::query!(
            "
            -- runs.expired
            SELECT tenant_id, id FROM runs
            WHERE expires_at <= clock_timestamp() AND finished_at IS NOT NULL
            ORDER BY expires_at LIMIT $1
            ",
            i64::from(limit),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (TenantId::from_uuid(row.tenant_id), RunId::from_uuid(row.id)))
            .collect())
    }

    /// Deletes a run that has ended, with its steps, output, messages and feedback. Returns `false` if the tenant
    /// has no such run.
    pub async fn delete_run(&self, tenant: TenantId, run: RunId) -> Result<bool, StoreError> {
        let gone = sqlx::query_scalar!(
            r#"
            -- runs.delete
            WITH gone AS (
                DELETE FROM runs
                WHERE tenant_id = $1 AND id = $2 AND finished_at IS NOT NULL
                RETURNING id
            ), gone_steps AS (
                DELETE FROM steps WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_attempts AS (
                DELETE FROM attempts WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_messages AS (
                DELETE FROM messages WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_inputs AS (
                DELETE FROM run_inputs WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_approvals AS (
                DELETE FROM approvals WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_grants AS (
                DELETE FROM approval_grants WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_routes AS (
                DELETE FROM turn_routes WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            ), gone_feedback AS (
                DELETE FROM run_feedback WHERE tenant_id = $1 AND run_id IN (SELECT id FROM gone)
            )
            SELECT count(*) AS "gone!" FROM gone
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_one(self.pool)
        .await?;
        Ok(gone == 1)
    }
}
