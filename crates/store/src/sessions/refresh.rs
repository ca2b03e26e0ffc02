//! The use of a refresh token: a successor replaces it, or it is answered once more, or it ends the
//! session.
//!
//! One UPDATE locks the session's row and decides between the three. Of several at once, one moves
//! the session on. The others wait for the lock, see the row as it then is, and find that theirs is
//! the token before the newest.

use std::time::Duration;

use baton_protocol::{Role, SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// A refresh token, with the token that would replace it.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// The SHA-256 of the presented token.
    pub presented: [u8; 32],
    /// The SHA-256 of its successor.
    pub successor: [u8; 32],
    /// The time after its use in which a token is answered once more.
    pub grace: Duration,
}

/// The outcome of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// The session continues, with the token of this hash as its newest.
    Goes {
        /// The session.
        session: SessionId,
        /// The person.
        user: UserId,
        /// The tenant that they act in.
        tenant: TenantId,
        /// Their current role there; `None` if they no longer belong to it.
        role: Option<Role>,
        /// The SHA-256 of the newest token: the successor's, unless another succession key
        /// made the newest.
        newest: [u8; 32],
        /// The time from which on it cannot be refreshed.
        expires_at: DateTime<Utc>,
    },
    /// An old token of the session was used again: the session is over, by this call if `newly`.
    Reused {
        /// The session.
        session: SessionId,
        /// The person.
        user: UserId,
        /// The tenant that they acted in.
        tenant: TenantId,
        /// Whether this call ended it.
        newly: bool,
    },
    /// The session is over, or its person is disabled.
    Over,
    /// Baton never issued this token.
    Unknown,
}

impl SystemTx<'_> {
    /// Presents a refresh token.
    pub async fn refresh_session(&self, refresh: &Refresh) -> Result<Refreshed, StoreError> {
        let row = sqlx::query!(
            r#"
            -- sessions.refresh
            WITH moved AS (
                UPDATE sessions s SET
                    generation = CASE WHEN s.generation = t.generation AND s.revoked_at IS NULL
                                           AND s.expires_at > n.at
                                      THEN s.generation + 1 ELSE s.generation END,
                    token_hash = CASE WHEN s.generation = t.generation AND s.revoked_at IS NULL
                                           AND s.expires_at > n.at
                                      THEN $2 ELSE s.token_hash END,
                    rotated_at = CASE WHEN s.generation = t.generation AND s.revoked_at IS NULL
                                           AND s.expires_at > n.at
                                      THEN n.at ELSE s.rotated_at END,
                    last_used_at = CASE WHEN s.generation = t.generation AND s.revoked_at IS NULL
                                             AND s.expires_at > n.at
                                        THEN n.at ELSE s.last_used_at END,
                    revoked_at = CASE WHEN s.generation = t.generation
                                           OR (s.generation = t.generation + 1
                                               AND s.rotated_at > n.at - $3::interval)
                                      THEN s.revoked_at ELSE coalesce(s.revoked_at, n.at) END,
                    end_reason = CASE WHEN s.generation = t.generation
                                           OR (s.generation = t.generation + 1
                                               AND s.rotated_at > n.at - $3::interval)
                                      THEN s.end_reason ELSE coalesce(s.end_reason, 'reuse') END
                FROM refresh_tokens t, (SELECT clock_timestamp() AS at) n
                WHERE t.hash = $1 AND s.id = t.session_id
                RETURNING s.id, s.user_id, s.tenant_id, s.generation, s.token_hash, s.expires_at,
                          s.revoked_at, t.generation AS presented, n.at
            ), kept AS (
                INSERT INTO refresh_tokens (hash, session_id, generation)
                SELECT $2, id, generation FROM moved
                WHERE token_hash = $2 AND revoked_at IS NULL
                ON CONFLICT DO NOTHING
            )
            SELECT moved.id, moved.user_id, moved.tenant_id, moved.generation, moved.token_hash,
                   moved.expires_at, moved.presented,
                   moved.revoked_at IS NOT NULL AS "revoked!",
                   coalesce(moved.revoked_at = moved.at, false) AS "newly!",
                   moved.expires_at <= moved.at OR u.disabled_at IS NOT NULL AS "over!",
                   m.role AS "role?"
            FROM moved
            JOIN users u ON u.id = moved.user_id
            LEFT JOIN memberships m ON m.tenant_id = moved.tenant_id AND m.user_id = moved.user_id
            "#,
            refresh.presented.as_slice(),
            refresh.successor.as_slice(),
            refresh.grace as _,
        )
        .fetch_optional(self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(Refreshed::Unknown);
        };
        let (session, user, tenant) = (
            SessionId::from_uuid(row.id),
            UserId::from_uuid(row.user_id),
            TenantId::from_uuid(row.tenant_id),
        );
        if row.revoked {
            // If the session was ended in another way, its newest token does not count as reused.
            return Ok(if row.newly || row.presented < row.generation {
                Refreshed::Reused {
                    session,
                    user,
                    tenant,
                    newly: row.newly,
                }
            } else {
                Refreshed::Over
            });
        }
        if row.over {
            return Ok(Refreshed::Over);
        }
        let newest = <[u8; 32]>::try_from(row.token_hash.as_slice())
            .map_err(|_| StoreError::unreadable("sessions.token_hash", "(a hash)"))?;
        Ok(Refreshed::Goes {
            session,
            user,
            tenant,
            role: row.role.as_deref().map(columns::role).transpose()?,
            newest,
            expires_at: row.expires_at,
        })
    }
}
