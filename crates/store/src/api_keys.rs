//! The table `api_keys`.

use std::time::Duration;

use baton_protocol::{ApiKeyId, TenantId};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The limits of a key; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests in any 60 seconds.
    pub per_minute: Option<u32>,
    /// Requests in any 24 hours.
    pub per_day: Option<u32>,
    /// Runs at a time.
    pub concurrent_runs: Option<u32>,
    /// Tokens in a calendar month, UTC.
    pub monthly_tokens: Option<u64>,
    /// Cost in a calendar month, UTC, in millionths of the currency of the prices.
    pub monthly_cost_micros: Option<u64>,
}

impl KeyLimits {
    /// Returns whether runs with this key are counted. Limits of requests alone need no count of
    /// runs.
    pub const fn meter(&self) -> bool {
        self.concurrent_runs.is_some()
            || self.monthly_tokens.is_some()
            || self.monthly_cost_micros.is_some()
    }

    /// Returns whether the key has a monthly budget of tokens or of money.
    pub const fn have_budget(&self) -> bool {
        self.monthly_tokens.is_some() || self.monthly_cost_micros.is_some()
    }
}

/// A key to be stored. The store never sees the secret itself.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The SHA-256 of the whole key as clients send it.
    pub hash: [u8; 32],
    /// The name that its owner gave it, 1 to 200 characters.
    pub name: String,
    /// The key's first characters, to recognise it by.
    pub prefix: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The models it may ask for; `None` for all.
    pub allowed_models: Option<Vec<String>>,
    /// The server-side tools it may use; `None` for all.
    pub allowed_tools: Option<Vec<String>>,
    /// The time of its expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// Its limits.
    pub limits: KeyLimits,
    /// The actor that made it, named as in the audit log.
    pub created_by: Option<String>,
}

/// The current rights of the key that a run was submitted with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct KeyStanding {
    /// Whether it was revoked. Expiry does not matter, because the run was accepted before it.
    pub revoked: bool,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The models it may ask for; `None` for all.
    pub models: Option<Vec<String>>,
    /// The server-side tools it may use; `None` for all.
    pub tools: Option<Vec<String>>,
    /// Whether the run takes from a monthly budget of tokens.
    pub token_budget: bool,
    /// Whether the run takes from a monthly budget of money.
    pub cost_budget: bool,
}

/// The new parts of a key that replaces another.
#[derive(Debug, Clone)]
pub struct FreshKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The SHA-256 of the whole key as clients send it.
    pub hash: [u8; 32],
    /// The key's first characters.
    pub prefix: String,
    /// The time of its expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The actor that made it, named as in the audit log.
    pub created_by: Option<String>,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// The tenant that its bearer acts for.
    pub tenant: TenantId,
    /// Its id.
    pub id: ApiKeyId,
    /// The name that its owner gave it.
    pub name: String,
    /// The key's first characters.
    pub prefix: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The models it may ask for; `None` for all.
    pub allowed_models: Option<Vec<String>>,
    /// The server-side tools it may use; `None` for all.
    pub allowed_tools: Option<Vec<String>>,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
    /// The time of its expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time at which it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The time of its last use, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Its limits.
    pub limits: KeyLimits,
    /// The actor that made it.
    pub created_by: Option<String>,
    /// The actor that answers for it since its maker left.
    pub vouched_by: Option<String>,
    /// The key that it replaces.
    pub rotated_from: Option<ApiKeyId>,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) tenant_id: uuid::Uuid,
    pub(crate) id: uuid::Uuid,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) allowed_models: Option<Vec<String>>,
    pub(crate) allowed_tools: Option<Vec<String>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    pub(crate) created_by: Option<String>,
    pub(crate) vouched_by: Option<String>,
    pub(crate) rotated_from: Option<uuid::Uuid>,
    pub(crate) per_minute: Option<i32>,
    pub(crate) per_day: Option<i32>,
    pub(crate) concurrent_runs: Option<i32>,
    pub(crate) monthly_tokens: Option<i64>,
    pub(crate) monthly_cost_micros: Option<i64>,
}

impl From<Row> for ApiKeyRecord {
    fn from(row: Row) -> Self {
        Self {
            tenant: TenantId::from_uuid(row.tenant_id),
            id: ApiKeyId::from_uuid(row.id),
            name: row.name,
            prefix: row.prefix,
            scopes: row.scopes,
            allowed_models: row.allowed_models,
            allowed_tools: row.allowed_tools,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
            limits: KeyLimits {
                per_minute: row.per_minute.map(columns::count),
                per_day: row.per_day.map(columns::count),
                concurrent_runs: row.concurrent_runs.map(columns::count),
                monthly_tokens: row.monthly_tokens.map(columns::number),
                monthly_cost_micros: row.monthly_cost_micros.map(columns::number),
            },
            created_by: row.created_by,
            vouched_by: row.vouched_by,
            rotated_from: row.rotated_from.map(ApiKeyId::from_uuid),
        }
    }
}

impl TenantTx {
    /// Stores a key of this tenant.
    pub async fn create_api_key(&mut self, key: &NewApiKey) -> Result<(), StoreError> {
        let tenant = self.tenant;
        sqlx::query!(
            "
            -- api_keys.create
            INSERT INTO api_keys (tenant_id, id, hash, name, prefix, scopes, allowed_models,
                                  allowed_tools, expires_at, created_by, per_minute, per_day,
                                  concurrent_runs, monthly_tokens, monthly_cost_micros)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            ",
            tenant.as_uuid(),
            key.id.as_uuid(),
            key.hash.as_slice(),
            &*columns::text(&key.name),
            key.prefix,
            &key.scopes,
            key.allowed_models.as_deref(),
            key.allowed_tools.as_deref(),
            key.expires_at,
            key.created_by,
            key.limits.per_minute.map(columns::int4),
            key.limits.per_day.map(columns::int4),
            key.limits.concurrent_runs.map(columns::int4),
            key.limits.monthly_tokens.map(columns::int8),
            key.limits.monthly_cost_micros.map(columns::int8),
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Returns this tenant's keys, the oldest first, with those that are revoked or expired.
    pub async fn list_api_keys(&mut self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            "
            -- api_keys.list
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at, last_used_at, created_by, vouched_by, rotated_from,
                   per_minute, per_day, concurrent_runs, monthly_tokens, monthly_cost_micros
            FROM api_keys WHERE tenant_id = $1 ORDER BY id
            ",
            tenant.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(ApiKeyRecord::from).collect())
    }

    /// Returns a key of this tenant, even if it is revoked or expired.
    pub async fn api_key(&mut self, id: ApiKeyId) -> Result<Option<ApiKeyRecord>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            "
            -- api_keys.by_id
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at, last_used_at, created_by, vouched_by, rotated_from,
                   per_minute, per_day, concurrent_runs, monthly_tokens, monthly_cost_micros
            FROM api_keys WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(ApiKeyRecord::from))
    }

    /// Makes a key with the rights of `old`, and lets `old` work for `overlap` at most. The two
    /// keys share the limits of runs and the budgets. Returns whether the key was made: an `old`
    /// that is revoked, expired or missing has no successor.
    pub async fn rotate_api_key(
        &mut self,
        old: ApiKeyId,
        fresh: &FreshKey,
        overlap: Duration,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- api_keys.rotate
            WITH old AS (
                UPDATE api_keys
                SET expires_at = least(expires_at, clock_timestamp() + $6::interval)
                WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > clock_timestamp())
                RETURNING *
            )
            INSERT INTO api_keys (tenant_id, id, hash, name, prefix, scopes, allowed_models,
                                  allowed_tools, expires_at, created_by, rotated_from, limits_of,
                                  per_minute, per_day, concurrent_runs, monthly_tokens,
                                  monthly_cost_micros)
            SELECT old.tenant_id, $3, $4, old.name, $5, old.scopes, old.allowed_models,
                   old.allowed_tools, $8, $7, old.id, coalesce(old.limits_of, old.id),
                   old.per_minute, old.per_day, old.concurrent_runs, old.monthly_tokens,
                   old.monthly_cost_micros
            FROM old
            ",
            tenant.as_uuid(),
            old.as_uuid(),
            fresh.id.as_uuid(),
            fresh.hash.as_slice(),
            fresh.prefix,
            overlap as _,
            fresh.created_by,
            fresh.expires_at,
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes a key of this tenant and returns whether this call did it. Repeating it changes
    /// nothing.
    pub async fn revoke_api_key(&mut self, id: ApiKeyId) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- api_keys.revoke
            UPDATE api_keys SET revoked_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

impl SystemTx<'_> {
    /// Finds the key with this SHA-256 in any tenant, even if it is revoked or expired; the caller
    /// judges that. Records the use of the key, to the minute. Asks a second time on a new
    /// connection if the first connection did not survive a restart of the server.
    pub async fn find_api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        match self.try_find_api_key(hash).await {
            Err(error) if error.is_transient() => self.try_find_api_key(hash).await,
            answer => answer,
        }
    }

    /// Finds a key by its id, as [`SystemTx::find_api_key`] does by its hash. The caller must have
    /// authenticated it already.
    pub async fn find_api_key_by_id(
        &self,
        tenant: TenantId,
        id: ApiKeyId,
    ) -> Result<Option<ApiKeyRecord>, StoreError> {
        match self.try_find_api_key_by_id(tenant, id).await {
            Err(error) if error.is_transient() => self.try_find_api_key_by_id(tenant, id).await,
            answer => answer,
        }
    }

    async fn try_find_api_key_by_id(
        &self,
        tenant: TenantId,
        id: ApiKeyId,
    ) -> Result<Option<ApiKeyRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "
            -- api_keys.use_by_id
            WITH used AS (
                UPDATE api_keys SET last_used_at = clock_timestamp()
                WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
                  AND (last_used_at IS NULL
                       OR last_used_at < clock_timestamp() - interval '1 minute')
            )
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at, last_used_at, created_by, vouched_by, rotated_from,
                   per_minute, per_day, concurrent_runs, monthly_tokens, monthly_cost_micros
            FROM api_keys WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(ApiKeyRecord::from))
    }

    /// Returns the keys of all tenants that were revoked or expired within this time, each with the
    /// seconds since then by the database's clock.
    pub async fn keys_ended_within(
        &self,
        time: Duration,
    ) -> Result<Vec<(ApiKeyId, f64)>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- api_keys.ended_within
            SELECT id AS "id!", max(extract(epoch FROM clock_timestamp() - at))::float8 AS "ago!"
            FROM (
                SELECT id, revoked_at AS at FROM api_keys
                WHERE revoked_at > clock_timestamp() - $1::interval
                UNION ALL
                SELECT id, expires_at FROM api_keys
                WHERE expires_at > clock_timestamp() - $1::interval
                  AND expires_at <= clock_timestamp()
            ) ended
            GROUP BY id
            "#,
            time as _,
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (ApiKeyId::from_uuid(row.id), row.ago))
            .collect())
    }

    async fn try_find_api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "
            -- api_keys.by_hash
            WITH used AS (
                UPDATE api_keys SET last_used_at = clock_timestamp()
                WHERE hash = $1 AND revoked_at IS NULL
                  AND (last_used_at IS NULL
                       OR last_used_at < clock_timestamp() - interval '1 minute')
            )
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at, last_used_at, created_by, vouched_by, rotated_from,
                   per_minute, per_day, concurrent_runs, monthly_tokens, monthly_cost_micros
            FROM api_keys WHERE hash = $1
            ",
            hash.as_slice(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(ApiKeyRecord::from))
    }
}
