//! Ended runs with logs that may lack their terminal events, for the sweep that appends them.

use std::time::Duration;

use baton_protocol::{RunId, TenantId};
use uuid::Uuid;

use crate::columns::int8;
use crate::errors::StoreError;
use crate::runs::{EndedColumns, EndedRun, ended_columns};
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// Returns the runs that ended within the last `within`, the newest first, at most `limit`.
    pub async fn recently_ended(
        &self,
        within: Duration,
        limit: u32,
    ) -> Result<Vec<(TenantId, RunId, EndedRun)>, StoreError> {
        sqlx::query!(
            r#"
            -- runs.recently_ended
            SELECT tenant_id, id, status AS "status!", attempt, last_event_id, prompt_tokens,
                   completion_tokens, total_tokens, finish_reason, error_code, error_message,
                   error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds
            FROM runs
            WHERE finished_at > statement_timestamp() - $1::interval
            ORDER BY finished_at DESC
            LIMIT $2
            "#,
            within as _,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(|row| {
            let columns = ended_columns!(row);
            Ok((
                TenantId::from_uuid(row.tenant_id),
                RunId::from_uuid(row.id),
                columns.read(false)?,
            ))
        })
        .collect()
    }

    /// Returns runs that a process without a job of theirs ended at least `before` ago, the oldest first, at most
    /// `limit`. A run is reported to [`SystemTx::mark_ends_logged`] when its log has its end.
    pub async fn unlogged_ends(
        &self,
        before: Duration,
        limit: u32,
    ) -> Result<Vec<(TenantId, RunId, EndedRun)>, StoreError> {
        sqlx::query!(
            r#"
            -- runs.unlogged_ends
            SELECT tenant_id, id, status AS "status!", attempt, last_event_id, prompt_tokens,
                   completion_tokens, total_tokens, finish_reason, error_code, error_message,
                   error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds
            FROM runs
            WHERE end_unlogged AND finished_at <= statement_timestamp() - $1::interval
            ORDER BY finished_at
            LIMIT $2
            "#,
            before as _,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(|row| {
            let columns = ended_columns!(row);
            Ok((
                TenantId::from_uuid(row.tenant_id),
                RunId::from_uuid(row.id),
                columns.read(false)?,
            ))
        })
        .collect()
    }

    /// Records that the logs of these runs have their ends.
    pub async fn mark_ends_logged(&self, runs: &[(TenantId, RunId)]) -> Result<(), StoreError> {
        let tenants: Vec<Uuid> = runs.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let ids: Vec<Uuid> = runs.iter().map(|(_, run)| run.as_uuid()).collect();
        // A run that was removed since is not there, so the number of rows does not matter.
        sqlx::query!(
            "
            -- runs.mark_ends_logged
            UPDATE runs SET end_unlogged = false
            FROM unnest($1::uuid[], $2::uuid[]) AS logged (tenant_id, id)
            WHERE runs.tenant_id = logged.tenant_id AND runs.id = logged.id AND end_unlogged
            ",
            &tenants,
            &ids,
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }
}
