//! The tables `sessions` and `refresh_tokens`: sign-ins of people.

mod refresh;
mod standing;

pub use refresh::{Refresh, Refreshed};
pub use standing::{EndedCredential, SessionStanding, Watched};

use std::time::Duration;

use baton_protocol::{Role, SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// The age after its end at which a session is deleted.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(7 * 24);

/// A sign-in to be stored.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// The person.
    pub user: UserId,
    /// The tenant that they act in.
    pub tenant: TenantId,
    /// The SHA-256 of the first refresh token.
    pub token_hash: [u8; 32],
    /// The time for which it can be refreshed.
    pub life: Duration,
    /// The address that they signed in from.
    pub ip: Option<String>,
    /// The `User-Agent` that the client sent.
    pub user_agent: Option<String>,
}

/// A stored sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// The tenant that its next access token names.
    pub tenant: TenantId,
    /// The time of the sign-in.
    pub created_at: DateTime<Utc>,
    /// The time of the last refresh.
    pub last_used_at: DateTime<Utc>,
    /// The time from which on it cannot be refreshed.
    pub expires_at: DateTime<Utc>,
    /// The address that they signed in from.
    pub ip: Option<String>,
    /// The `User-Agent` that the client sent.
    pub user_agent: Option<String>,
}

/// A person's reason to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The person signed out.
    Logout,
    /// The person ended it from another session.
    Revoked,
}

impl SessionEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Revoked => "revoked",
        }
    }
}

impl SystemTx<'_> {
    /// Stores a sign-in of a member and returns the member's role; `None` if they do not belong to
    /// the tenant or are disabled. Deletes the person's sessions that ended long ago.
    pub async fn open_session(&self, session: &NewSession) -> Result<Option<Role>, StoreError> {
        let role = sqlx::query_scalar!(
            r#"
            -- sessions.open
            WITH member AS (
                SELECT m.role FROM memberships m JOIN users u ON u.id = m.user_id
                WHERE m.tenant_id = $3 AND m.user_id = $2 AND u.disabled_at IS NULL
            ), forgotten AS (
                DELETE FROM sessions
                WHERE user_id = $2
                  AND least(expires_at, revoked_at) < clock_timestamp() - $8::interval
            ), opened AS (
                INSERT INTO sessions (id, user_id, tenant_id, token_hash, expires_at, ip, user_agent)
                SELECT $1, $2, $3, $4, clock_timestamp() + $5::interval, $6, $7 FROM member
                RETURNING id
            ), token AS (
                INSERT INTO refresh_tokens (hash, session_id, generation)
                SELECT $4, id, 1 FROM opened
            )
            SELECT role AS "role!" FROM member
            "#,
            session.id.as_uuid(),
            session.user.as_uuid(),
            session.tenant.as_uuid(),
            session.token_hash.as_slice(),
            session.life as _,
            session.ip,
            columns::optional_text(session.user_agent.as_deref()),
            FORGOTTEN_AFTER as _,
        )
        .fetch_optional(self.pool)
        .await?;
        role.map(|role| columns::role(&role)).transpose()
    }

    /// Returns a person's sessions that can still be refreshed, the newest first.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<SessionRecord>, StoreError> {
        let rows = sqlx::query!(
            "
            -- sessions.of_user
            SELECT id, tenant_id, created_at, last_used_at, expires_at, ip, user_agent
            FROM sessions
            WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
            ORDER BY id DESC
            ",
            user.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| SessionRecord {
                id: SessionId::from_uuid(row.id),
                tenant: TenantId::from_uuid(row.tenant_id),
                created_at: row.created_at,
                last_used_at: row.last_used_at,
                expires_at: row.expires_at,
                ip: row.ip,
                user_agent: row.user_agent,
            })
            .collect())
    }

    /// Returns the addresses of this person's sign-ins, ended sessions included. Every sign-in
    /// proved the password or was the registration itself.
    pub async fn addresses_of(&self, email: &str) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query_scalar!(
            r#"
            -- sessions.addresses
            SELECT DISTINCT s.ip AS "ip!"
            FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE u.email = $1 AND s.ip IS NOT NULL
            "#,
            &*columns::text(email),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows)
    }

    /// Ends one session of a person and returns whether this call did it; `None` if they have no
    /// such session. Repeating it changes nothing.
    pub async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        end: SessionEnd,
    ) -> Result<Option<bool>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"
            -- sessions.end
            WITH ended AS (
                UPDATE sessions SET revoked_at = clock_timestamp(), end_reason = $3
                WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL
                RETURNING id
            )
            SELECT EXISTS (SELECT FROM ended) AS "now!"
            FROM sessions WHERE id = $2 AND user_id = $1
            "#,
            user.as_uuid(),
            session.as_uuid(),
            end.as_str() as _,
        )
        .fetch_optional(self.pool)
        .await?)
    }

    /// Ends the session of a refresh token, be the token the newest or an older one, and returns
    /// its person, tenant and id. `None` if the session is over already.
    pub async fn end_session_of_token(
        &self,
        token_hash: &[u8; 32],
    ) -> Result<Option<(UserId, TenantId, SessionId)>, StoreError> {
        let row = sqlx::query!(
            "
            -- sessions.end_by_token
            UPDATE sessions s SET revoked_at = clock_timestamp(), end_reason = 'logout'
            FROM refresh_tokens t
            WHERE t.hash = $1 AND s.id = t.session_id AND s.revoked_at IS NULL
            RETURNING s.user_id, s.tenant_id, s.id
            ",
            token_hash.as_slice(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(|row| {
            (
                UserId::from_uuid(row.user_id),
                TenantId::from_uuid(row.tenant_id),
                SessionId::from_uuid(row.id),
            )
        }))
    }

    /// Ends all sessions of a person but one, and returns the ended ones.
    pub async fn end_other_sessions(
        &self,
        user: UserId,
        keep: SessionId,
    ) -> Result<Vec<SessionId>, StoreError> {
        let ended = sqlx::query_scalar!(
            "
            -- sessions.end_others
            UPDATE sessions SET revoked_at = clock_timestamp(), end_reason = 'revoked'
            WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL
            RETURNING id
            ",
            user.as_uuid(),
            keep.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(ended.into_iter().map(SessionId::from_uuid).collect())
    }

    /// Makes a session act for another tenant from its next access token on. Returns the person's
    /// role there and whether the session acted for another tenant before; `None` if the person
    /// does not belong to the tenant or the session is over.
    pub async fn switch_session(
        &self,
        user: UserId,
        session: SessionId,
        tenant: TenantId,
    ) -> Result<Option<(Role, bool)>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- sessions.switch
            WITH before AS (
                SELECT id, tenant_id FROM sessions
                WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL FOR UPDATE
            )
            UPDATE sessions s SET tenant_id = $3
            FROM before, memberships m
            WHERE s.id = before.id AND m.tenant_id = $3 AND m.user_id = $1
            RETURNING m.role AS "role!", before.tenant_id <> $3 AS "newly!"
            "#,
            user.as_uuid(),
            session.as_uuid(),
            tenant.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        row.map(|row| Ok((columns::role(&row.role)?, row.newly)))
            .transpose()
    }
}
