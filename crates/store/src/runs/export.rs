//! Reads runs one after the other, for an export of any length.

use baton_protocol::{RunId, RunStatus};
use chrono::{DateTime, Utc};

use crate::columns::int8;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A filter of the runs of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportFilter {
    /// Only runs in this state.
    pub status: Option<RunStatus>,
    /// Only runs that were accepted at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only runs that were accepted before this time.
    pub to: Option<DateTime<Utc>>,
}

impl TenantTx {
    /// Returns the ids of at most `limit` runs after this one, the oldest first.
    pub async fn runs_to_export(
        &mut self,
        filter: &ExportFilter,
        after: RunId,
        limit: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        let tenant = self.tenant;
        let ids = sqlx::query_scalar!(
            r#"
            -- runs.to_export
            SELECT id
            FROM runs
            WHERE tenant_id = $1 AND id > $2
              AND ($3::text IS NULL OR status = $3)
              AND ($4::timestamptz IS NULL OR created_at >= $4)
              AND ($5::timestamptz IS NULL OR created_at < $5)
            ORDER BY id
            LIMIT $6
            "#,
            tenant.as_uuid(),
            after.as_uuid(),
            filter.status.map(RunStatus::as_str),
            filter.from,
            filter.to,
            int8(u64::from(limit)),
        )
        .fetch_all(self.connection())
        .await?;
        Ok(ids.into_iter().map(RunId::from_uuid).collect())
    }
}
