//! The table `tenants`. A name that begins with `~` is that of a tenant which a person made by
//! registering; operators cannot give such a name.

use std::time::Duration;

use baton_protocol::TenantId;
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique. It begins with `~` if the tenant was made by registering, and was given by
    /// an operator otherwise.
    pub name: String,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
    /// The time for which its responses are kept; `None` for ever.
    pub responses_kept: Option<Duration>,
}

fn kept(seconds: Option<i32>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs(columns::count(seconds).into()))
}

impl SystemTx<'_> {
    /// Returns the tenant with this name from an operator, or makes it under the id `fresh`.
    pub async fn ensure_tenant(
        &self,
        fresh: TenantId,
        name: &str,
    ) -> Result<TenantRecord, StoreError> {
        sqlx::query!(
            "
            -- tenants.ensure
            INSERT INTO tenants (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING
            ",
            fresh.as_uuid(),
            name,
        )
        .execute(self.pool)
        .await?;
        let row = sqlx::query!(
            "
            -- tenants.by_name
            SELECT id, name, created_at, responses_kept_s FROM tenants
            WHERE name = $1 AND NOT starts_with(name, '~')
            ",
            name,
        )
        .fetch_one(self.pool)
        .await?;
        Ok(TenantRecord {
            id: TenantId::from_uuid(row.id),
            name: row.name,
            created_at: row.created_at,
            responses_kept: kept(row.responses_kept_s),
        })
    }

    /// Returns the tenant with this name from an operator, never one that was made by registering.
    pub async fn tenant_by_name(&self, name: &str) -> Result<Option<TenantRecord>, StoreError> {
        let row = sqlx::query!(
            "
            -- tenants.by_name
            SELECT id, name, created_at, responses_kept_s FROM tenants
            WHERE name = $1 AND NOT starts_with(name, '~')
            ",
            &*columns::text(name),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(|row| TenantRecord {
            id: TenantId::from_uuid(row.id),
            name: row.name,
            created_at: row.created_at,
            responses_kept: kept(row.responses_kept_s),
        }))
    }

    /// Returns the names that operators gave, in order, at most `limit`.
    pub async fn tenant_names(&self, limit: u32) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar!(
            "
            -- tenants.names
            SELECT name FROM tenants WHERE NOT starts_with(name, '~') ORDER BY name LIMIT $1
            ",
            i64::from(limit),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(names)
    }

    /// Returns the tenant with this id.
    pub async fn tenant(&self, id: TenantId) -> Result<Option<TenantRecord>, StoreError> {
        let row = sqlx::query!(
            "
            -- tenants.by_id
            SELECT id, name, created_at, responses_kept_s FROM tenants WHERE id = $1
            ",
            id.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(|row| TenantRecord {
            id: TenantId::from_uuid(row.id),
            name: row.name,
            created_at: row.created_at,
            responses_kept: kept(row.responses_kept_s),
        }))
    }

    /// Sets the time for which responses of a tenant are kept that are accepted from now on; `None` is for
    /// ever. Returns `false` if there is no such tenant.
    pub async fn keep_responses(
        &self,
        tenant: TenantId,
        time: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let seconds = time.map(|time| i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
        let changed = sqlx::query!(
            "
            -- tenants.keep_responses
            UPDATE tenants SET responses_kept_s = $2 WHERE id = $1
            ",
            tenant.as_uuid(),
            seconds,
        )
        .execute(self.pool)
        .await?;
        Ok(changed.rows_affected() == 1)
    }
}
