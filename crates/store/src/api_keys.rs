//! The table `api_keys`.

use baton_protocol::{ApiKeyId, TenantId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// A key to be stored. The secret itself never comes here.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// SHA-256 of the whole key as it is sent.
    pub hash: [u8; 32],
    /// What its owner calls it, 1 to 200 characters.
    pub name: String,
    /// The key's first characters, to recognise it by.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The models it may ask for; `None` for all.
    pub allowed_models: Option<Vec<String>>,
    /// The server-side tools it may use; `None` for all.
    pub allowed_tools: Option<Vec<String>>,
    /// From when on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// The tenant that its bearer acts for.
    pub tenant: TenantId,
    /// Its id.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// The key's first characters.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The models it may ask for; `None` for all.
    pub allowed_models: Option<Vec<String>>,
    /// The server-side tools it may use; `None` for all.
    pub allowed_tools: Option<Vec<String>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A row as it lies there.
struct Row {
    tenant_id: uuid::Uuid,
    id: uuid::Uuid,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    allowed_models: Option<Vec<String>>,
    allowed_tools: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
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
                                  allowed_tools, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
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
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// This tenant's keys, revoked and expired ones too, the oldest first.
    pub async fn list_api_keys(&mut self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            "
            -- api_keys.list
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at
            FROM api_keys WHERE tenant_id = $1 ORDER BY id
            ",
            tenant.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(ApiKeyRecord::from).collect())
    }

    /// Revokes a key of this tenant; whether there is such a key. Repeating it changes nothing.
    pub async fn revoke_api_key(&mut self, id: ApiKeyId) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- api_keys.revoke
            UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
            WHERE tenant_id = $1 AND id = $2
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
    /// The key with this SHA-256, of whatever tenant, revoked or expired or neither: that is for
    /// the caller to judge. Asked for a second time on a new connection if the first one turns out
    /// to be one that a restarted server has forgotten.
    pub async fn find_api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        match self.try_find_api_key(hash).await {
            Err(error) if error.is_transient() => self.try_find_api_key(hash).await,
            answer => answer,
        }
    }

    async fn try_find_api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "
            -- api_keys.by_hash
            SELECT tenant_id, id, name, prefix, scopes, allowed_models, allowed_tools, created_at,
                   expires_at, revoked_at
            FROM api_keys WHERE hash = $1
            ",
            hash.as_slice(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(ApiKeyRecord::from))
    }
}
