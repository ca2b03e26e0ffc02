//! The table `users`: people, across tenants.

use baton_protocol::{Role, SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// A person to be stored.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Their id.
    pub id: UserId,
    /// What they sign in with, in lower case.
    pub email: String,
    /// What they are called.
    pub name: Option<String>,
    /// argon2id in PHC form.
    pub password_hash: String,
}

/// A stored person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// What they sign in with.
    pub email: String,
    /// What they are called.
    pub name: Option<String>,
    /// argon2id in PHC form.
    pub password_hash: String,
    /// When they registered.
    pub created_at: DateTime<Utc>,
    /// Since when they are kept out.
    pub disabled_at: Option<DateTime<Utc>>,
}

struct Row {
    id: uuid::Uuid,
    email: String,
    name: Option<String>,
    password_hash: String,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
}

impl From<Row> for UserRecord {
    fn from(row: Row) -> Self {
        Self {
            id: UserId::from_uuid(row.id),
            email: row.email,
            name: row.name,
            password_hash: row.password_hash,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
        }
    }
}

/// What came of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The person is stored and a member.
    Joined(TenantId, Role),
    /// Somebody has registered with this address.
    EmailTaken,
    /// There is a tenant of this name.
    TenantTaken,
    /// The token is used, expired, revoked, meant for somebody else, or none.
    TokenRefused,
}

impl SystemTx<'_> {
    /// The person with this address, in lower case.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "
            -- users.by_email
            SELECT id, email, name, password_hash, created_at, disabled_at
            FROM users WHERE email = $1
            ",
            &*columns::text(email),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(UserRecord::from))
    }

    /// The person with this id.
    pub async fn user(&self, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "
            -- users.by_id
            SELECT id, email, name, password_hash, created_at, disabled_at
            FROM users WHERE id = $1
            ",
            id.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(UserRecord::from))
    }

    /// Everybody, in the order of their registration.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "
            -- users.all
            SELECT id, email, name, password_hash, created_at, disabled_at FROM users ORDER BY id
            ",
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows.into_iter().map(UserRecord::from).collect())
    }

    /// Stores a person together with a tenant of which they are the owner.
    pub async fn register_with_tenant(
        &self,
        user: &NewUser,
        tenant: TenantId,
        tenant_name: &str,
    ) -> Result<Registered, StoreError> {
        let done = sqlx::query!(
            "
            -- users.register_with_tenant
            WITH account AS (
                INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)
                RETURNING id
            ), home AS (
                INSERT INTO tenants (id, name) VALUES ($5, $6) RETURNING id
            )
            INSERT INTO memberships (tenant_id, user_id, role)
            SELECT home.id, account.id, 'owner' FROM home, account
            ",
            user.id.as_uuid(),
            &*columns::text(&user.email),
            columns::optional_text(user.name.as_deref()),
            user.password_hash,
            tenant.as_uuid(),
            &*columns::text(tenant_name),
        )
        .execute(self.pool)
        .await
        .map_err(StoreError::from);
        match done {
            Ok(_) => Ok(Registered::Joined(tenant, Role::Owner)),
            Err(error) => taken(error),
        }
    }

    /// Stores a person who joins a tenant by a one-time token, an invite or a bootstrap, which is
    /// used up by it.
    pub async fn register_by_token(
        &self,
        user: &NewUser,
        token_hash: &[u8; 32],
    ) -> Result<Registered, StoreError> {
        let joined = sqlx::query!(
            r#"
            -- users.register_by_token
            WITH token AS (
                UPDATE one_time_tokens t SET used_at = clock_timestamp(), used_by = $1
                WHERE hash = $5 AND kind IN ('invite', 'bootstrap') AND used_at IS NULL
                  AND revoked_at IS NULL AND expires_at > clock_timestamp()
                  AND (email IS NULL OR email = $2)
                  AND maker_may_give(t.tenant_id, t.maker_user, t.maker_key, t.role)
                  AND (kind = 'invite' OR NOT EXISTS (
                      SELECT FROM memberships m
                      WHERE m.tenant_id = t.tenant_id AND m.role = 'owner'))
                RETURNING tenant_id, role
            ), account AS (
                INSERT INTO users (id, email, name, password_hash)
                SELECT $1, $2, $3, $4 FROM token
                RETURNING id
            )
            INSERT INTO memberships (tenant_id, user_id, role)
            SELECT token.tenant_id, account.id, token.role FROM token, account
            RETURNING tenant_id, role AS "role!"
            "#,
            user.id.as_uuid(),
            &*columns::text(&user.email),
            columns::optional_text(user.name.as_deref()),
            user.password_hash,
            token_hash.as_slice(),
        )
        .fetch_optional(self.pool)
        .await
        .map_err(StoreError::from);
        match joined {
            Ok(Some(row)) => Ok(Registered::Joined(
                TenantId::from_uuid(row.tenant_id),
                columns::role(&row.role)?,
            )),
            Ok(None) => Ok(Registered::TokenRefused),
            // The statement left nothing behind: the token is still good.
            Err(error) => taken(error),
        }
    }

    /// Sets a password and ends the person's sessions but `keep`; those that it ended. `None` if
    /// there is no such person.
    pub async fn set_password(
        &self,
        user: UserId,
        password_hash: &str,
        keep: Option<SessionId>,
    ) -> Result<Option<Vec<SessionId>>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- users.set_password
            WITH account AS (
                UPDATE users SET password_hash = $2, password_changed_at = clock_timestamp()
                WHERE id = $1
                RETURNING id
            ), ended AS (
                UPDATE sessions SET revoked_at = clock_timestamp(), end_reason = 'password'
                FROM account
                WHERE user_id = account.id AND revoked_at IS NULL
                  AND sessions.id IS DISTINCT FROM $3
                RETURNING sessions.id
            )
            SELECT ended.id AS "session?" FROM account LEFT JOIN ended ON true
            "#,
            user.as_uuid(),
            password_hash,
            keep.map(|keep| keep.as_uuid()),
        )
        .fetch_all(self.pool)
        .await?;
        Ok((!rows.is_empty()).then(|| {
            rows.into_iter()
                .filter_map(|row| row.session.map(SessionId::from_uuid))
                .collect()
        }))
    }

    /// Sets a password by a one-time token, which is used up by it, and ends all sessions of its
    /// owner: who that is, and the sessions. `None` if the token is not good: one that a tenant made
    /// is good while its owner belongs to that tenant alone, with a role that its maker could reset
    /// now.
    pub async fn reset_password(
        &self,
        token_hash: &[u8; 32],
        password_hash: &str,
    ) -> Result<Option<(UserId, Vec<SessionId>)>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- users.reset_password
            WITH token AS (
                UPDATE one_time_tokens t SET used_at = clock_timestamp(), used_by = user_id
                WHERE hash = $1 AND kind = 'password_reset' AND used_at IS NULL
                  AND revoked_at IS NULL AND expires_at > clock_timestamp()
                  AND (created_by = 'operator' OR EXISTS (
                      SELECT FROM memberships m
                      WHERE m.tenant_id = t.tenant_id AND m.user_id = t.user_id
                        AND maker_may_give(t.tenant_id, t.maker_user, t.maker_key, m.role)
                        AND NOT EXISTS (SELECT FROM memberships other
                                        WHERE other.user_id = t.user_id
                                          AND other.tenant_id <> t.tenant_id)))
                RETURNING user_id
            ), account AS (
                UPDATE users SET password_hash = $2, password_changed_at = clock_timestamp()
                FROM token WHERE users.id = token.user_id
                RETURNING users.id
            ), ended AS (
                UPDATE sessions SET revoked_at = clock_timestamp(), end_reason = 'password'
                FROM account WHERE user_id = account.id AND revoked_at IS NULL
                RETURNING sessions.id
            )
            SELECT account.id AS user_id, ended.id AS "session?"
            FROM account LEFT JOIN ended ON true
            "#,
            token_hash.as_slice(),
            password_hash,
        )
        .fetch_all(self.pool)
        .await?;
        let Some(user) = rows.first().map(|row| UserId::from_uuid(row.user_id)) else {
            return Ok(None);
        };
        let sessions = rows
            .into_iter()
            .filter_map(|row| row.session.map(SessionId::from_uuid))
            .collect();
        Ok(Some((user, sessions)))
    }

    /// Keeps a person out, or lets them in again; keeping out ends their sessions. Whether there is
    /// such a person.
    pub async fn set_disabled(&self, user: UserId, disabled: bool) -> Result<bool, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- users.set_disabled
            WITH account AS (
                UPDATE users
                SET disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, clock_timestamp()) END
                WHERE id = $1
                RETURNING id
            ), ended AS (
                UPDATE sessions SET revoked_at = clock_timestamp(), end_reason = 'operator'
                FROM account
                WHERE $2 AND user_id = account.id AND revoked_at IS NULL
                RETURNING sessions.id
            )
            SELECT account.id AS "id!" FROM account
            "#,
            user.as_uuid(),
            disabled,
        )
        .fetch_all(self.pool)
        .await?;
        Ok(!rows.is_empty())
    }
}

/// Whether an address or a name is taken is for the constraints to say: they alone cannot be
/// overtaken.
fn taken(error: StoreError) -> Result<Registered, StoreError> {
    let constraint = match &error {
        StoreError::Refused(refused) => refused
            .as_database_error()
            .and_then(|refused| refused.constraint()),
        _ => None,
    };
    match constraint {
        Some("users_email_key") => Ok(Registered::EmailTaken),
        Some("tenants_name_key") => Ok(Registered::TenantTaken),
        _ => Err(error),
    }
}
