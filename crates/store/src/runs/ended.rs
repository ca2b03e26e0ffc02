//! Recently ended runs, for the sweep that checks their terminal events.

use std::time::Duration;

use baton_protocol::{RunId, TenantId};

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
}
