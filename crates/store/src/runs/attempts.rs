//! The newest attempts of runs, for followers that meet an attempt for the first time.

use baton_protocol::{RunId, TenantId};
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// A run with the number of its newest attempt; 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestAttempt {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
}

impl SystemTx<'_> {
    /// Returns the newest attempts of these runs, in no order. Runs that do not exist are left out.
    pub async fn newest_attempts(
        &self,
        runs: &[(TenantId, RunId)],
    ) -> Result<Vec<NewestAttempt>, StoreError> {
        let tenants: Vec<Uuid> = runs.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let ids: Vec<Uuid> = runs.iter().map(|(_, run)| run.as_uuid()).collect();
        let rows = sqlx::query!(
            r#"
            -- runs.newest_attempts
            SELECT runs.tenant_id, runs.id, runs.attempt
            FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (tenant_id, id, place)
            JOIN runs ON runs.tenant_id = asked.tenant_id AND runs.id = asked.id
            -- Always true; see runs.finish_group.
            WHERE asked.place % 1 = 0
            "#,
            &tenants,
            &ids,
        )
        .fetch_all(self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| NewestAttempt {
            tenant: TenantId::from_uuid(row.tenant_id),
            run: RunId::from_uuid(row.id),
            attempt: columns::count(row.attempt),
        });
        Ok(rows.collect())
    }
}
