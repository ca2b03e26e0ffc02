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
    /// The address that they sign in with, in lower case.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// The password's argon2id hash in PHC form.
    pub password_hash: String,
}

/// A stored person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// The address that they sign in with.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// The password's argon2id hash in PHC form.
    pub password_hash: String,
    /// The time at which they registered.
    pub created_at: DateTime<Utc>,
    /// The time since which they are disabled.
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

/// The outcome of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The person is stored and a member.
    Joined(TenantId, Role),
    /// The address is registered already.
    EmailTaken,
    /// The name of the tenant is taken.
    TenantTaken,
    /// The token is unknown, used, expired, revoked, or meant for another address.
    TokenRefused,
}

impl SystemTx<'_> {
    /// Returns the person with this address, which must be in lower case.
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

    /// Returns the person with this id.
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

    /// Returns all people in the order of their registration.
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

    /// Stores a person together with a tenant that they own.
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

    /// Stores a person who joins a tenant by a one-time token, an invite or a bootstrap, and uses
    /// the token up.
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
            // The failed statement was rolled back, so that the token is still valid.
            Err(error) => taken(error),
        }
    }

    /// Sets a password, ends the person's sessions except `keep`, and returns the ended ones.
    /// `None` if there is no such person.
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

    /// Sets a password by a one-time token, uses the token up, and ends all sessions of its owner.
    /// Returns the owner and the sessions; `None` if the token is not valid. A tenant's token is
    /// valid while its owner belongs to that tenant alone, with a role that its maker could reset
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

    /// Disables a person, which ends their sessions, or enables them again. Returns whether the
    /// person exists.
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

/// Reads from the error that an address or a name is taken. The constraints decide this, because a
/// check before the insert could be overtaken.
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
