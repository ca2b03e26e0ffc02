//! The table `one_time_tokens`: invites, password resets, and the bootstrap token of a tenant's
//! first owner. The operations that they permit use them up: see `users` and `memberships`.

use std::time::Duration;

use baton_protocol::{InviteId, Role, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// An invite to be stored.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// Its id.
    pub id: InviteId,
    /// The SHA-256 of the token.
    pub hash: [u8; 32],
    /// The only address that may use it, in lower case; `None` for any.
    pub email: Option<String>,
    /// The role that it gives.
    pub role: Role,
    /// The actor that made it, named as in the audit log.
    pub created_by: String,
    /// Its lifetime.
    pub life: Duration,
}

/// A stored invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    /// Its id.
    pub id: InviteId,
    /// The only address that may use it; `None` for any.
    pub email: Option<String>,
    /// The role that it gives.
    pub role: Role,
    /// The actor that made it.
    pub created_by: String,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
    /// The time of its expiry.
    pub expires_at: DateTime<Utc>,
}

impl TenantTx {
    /// Stores an invite to this tenant and returns the time of its expiry.
    pub async fn create_invite(&mut self, invite: &NewInvite) -> Result<DateTime<Utc>, StoreError> {
        let tenant = self.tenant;
        Ok(sqlx::query_scalar!(
            "
            -- one_time_tokens.invite
            INSERT INTO one_time_tokens (id, kind, hash, tenant_id, email, role, created_by,
                                         expires_at)
            VALUES ($1, 'invite', $2, $3, $4, $5, $6, clock_timestamp() + $7::interval)
            RETURNING expires_at
            ",
            invite.id.as_uuid(),
            invite.hash.as_slice(),
            tenant.as_uuid(),
            columns::optional_text(invite.email.as_deref()),
            invite.role.as_str() as _,
            invite.created_by,
            invite.life as _,
        )
        .fetch_one(self.connection())
        .await?)
    }

    /// Returns this tenant's invites that are still valid, the oldest first.
    pub async fn invites(&mut self) -> Result<Vec<InviteRecord>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query!(
            r#"
            -- one_time_tokens.invites
            SELECT id, email, role AS "role!", created_by, created_at, expires_at
            FROM one_time_tokens
            WHERE tenant_id = $1 AND kind = 'invite' AND used_at IS NULL AND revoked_at IS NULL
              AND expires_at > clock_timestamp()
              AND (maker_key IS NULL OR EXISTS (
                  SELECT FROM api_keys k
                  WHERE k.tenant_id = $1 AND k.id = maker_key AND k.revoked_at IS NULL
                    AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())))
            ORDER BY id
            "#,
            tenant.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(InviteRecord {
                    id: InviteId::from_uuid(row.id),
                    email: row.email,
                    role: columns::role(&row.role)?,
                    created_by: row.created_by,
                    created_at: row.created_at,
                    expires_at: row.expires_at,
                })
            })
            .collect()
    }

    /// Revokes an unused invite of this tenant and returns whether this call did it. Repeating it
    /// changes nothing.
    pub async fn revoke_invite(&mut self, id: InviteId) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- one_time_tokens.revoke_invite
            UPDATE one_time_tokens SET revoked_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2 AND kind = 'invite' AND used_at IS NULL
              AND revoked_at IS NULL
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

impl TenantTx {
    /// Locks an unused invite of this tenant and returns the role that it gives.
    pub async fn lock_invite(&mut self, id: InviteId) -> Result<Option<Role>, StoreError> {
        let tenant = self.tenant;
        let role = sqlx::query_scalar!(
            r#"
            -- one_time_tokens.lock_invite
            SELECT role AS "role!" FROM one_time_tokens
            WHERE tenant_id = $1 AND id = $2 AND kind = 'invite' AND used_at IS NULL
            FOR NO KEY UPDATE
            "#,
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        role.as_deref().map(columns::role).transpose()
    }

    /// Stores a token that sets a new password of a member. It is valid only while the member
    /// belongs to this tenant alone. Older tokens that this tenant made for the member become
    /// invalid.
    pub async fn create_member_reset(
        &mut self,
        id: InviteId,
        hash: &[u8; 32],
        user: UserId,
        created_by: &str,
        life: Duration,
    ) -> Result<DateTime<Utc>, StoreError> {
        let tenant = self.tenant;
        Ok(sqlx::query_scalar!(
            "
            -- one_time_tokens.member_reset
            WITH older AS (
                UPDATE one_time_tokens SET revoked_at = clock_timestamp()
                WHERE tenant_id = $3 AND user_id = $4 AND kind = 'password_reset'
                  AND used_at IS NULL AND revoked_at IS NULL
            )
            INSERT INTO one_time_tokens (id, kind, hash, tenant_id, user_id, created_by, expires_at)
            VALUES ($1, 'password_reset', $2, $3, $4, $5, clock_timestamp() + $6::interval)
            RETURNING expires_at
            ",
            id.as_uuid(),
            hash.as_slice(),
            tenant.as_uuid(),
            user.as_uuid(),
            created_by,
            life as _,
        )
        .fetch_one(self.connection())
        .await?)
    }
}

impl SystemTx<'_> {
    /// Stores an operator's token that sets a new password of a person. Older resets of the same
    /// person become invalid.
    pub async fn create_password_reset(
        &self,
        id: InviteId,
        hash: &[u8; 32],
        user: UserId,
        created_by: &str,
        life: Duration,
    ) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar!(
            "
            -- one_time_tokens.password_reset
            WITH older AS (
                UPDATE one_time_tokens SET revoked_at = clock_timestamp()
                WHERE user_id = $3 AND kind = 'password_reset' AND used_at IS NULL
                  AND revoked_at IS NULL
            )
            INSERT INTO one_time_tokens (id, kind, hash, user_id, created_by, expires_at)
            VALUES ($1, 'password_reset', $2, $3, $4, clock_timestamp() + $5::interval)
            RETURNING expires_at
            ",
            id.as_uuid(),
            hash.as_slice(),
            user.as_uuid(),
            created_by,
            life as _,
        )
        .fetch_one(self.pool)
        .await?)
    }

    /// Stores the token with which the first owner of a tenant registers. Older tokens of this kind
    /// become invalid. Returns `None` if the tenant has an owner.
    pub async fn create_bootstrap(
        &self,
        id: InviteId,
        hash: &[u8; 32],
        tenant: TenantId,
        created_by: &str,
        life: Duration,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(sqlx::query_scalar!(
            "
            -- one_time_tokens.bootstrap
            WITH older AS (
                UPDATE one_time_tokens SET revoked_at = clock_timestamp()
                WHERE tenant_id = $3 AND kind = 'bootstrap' AND used_at IS NULL
                  AND revoked_at IS NULL
            )
            INSERT INTO one_time_tokens (id, kind, hash, tenant_id, role, created_by, expires_at)
            SELECT $1, 'bootstrap', $2, $3, 'owner', $4, clock_timestamp() + $5::interval
            WHERE NOT EXISTS (SELECT FROM memberships WHERE tenant_id = $3 AND role = 'owner')
            RETURNING expires_at
            ",
            id.as_uuid(),
            hash.as_slice(),
            tenant.as_uuid(),
            created_by,
            life as _,
        )
        .fetch_optional(self.pool)
        .await?)
    }
}
