//! The validity of credentials: checked when one is presented, and repeatedly while a stream is
//! open that one opened.

use baton_protocol::{ApiKeyId, Role, SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// The state of a session in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStanding {
    /// The person.
    pub user: UserId,
    /// Their current role in the tenant; `None` if they do not belong to it.
    pub role: Option<Role>,
    /// Whether the session is over, or its person is disabled.
    pub over: bool,
    /// The time at which it ends.
    pub expires_at: DateTime<Utc>,
}

/// A credential that opened a stream or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watched {
    /// A key, of a tenant.
    ApiKey(TenantId, ApiKeyId),
    /// A session, in a tenant.
    Session(TenantId, SessionId),
}

/// A credential that is no longer valid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndedCredential {
    /// The credential.
    pub credential: Watched,
    /// The seconds since it ended, by the database's clock; `None` if that is not recorded.
    pub seconds_ago: Option<f64>,
}

impl SystemTx<'_> {
    /// Returns the state of a session in a tenant; `None` if there is no such session.
    pub async fn session_standing(
        &self,
        session: SessionId,
        tenant: TenantId,
    ) -> Result<Option<SessionStanding>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- sessions.standing
            SELECT s.user_id, s.expires_at, m.role AS "role?",
                   s.revoked_at IS NOT NULL OR s.expires_at <= clock_timestamp()
                       OR u.disabled_at IS NOT NULL AS "over!"
            FROM sessions s
            JOIN users u ON u.id = s.user_id
            LEFT JOIN memberships m ON m.tenant_id = $2 AND m.user_id = s.user_id
            WHERE s.id = $1
            "#,
            session.as_uuid(),
            tenant.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        row.map(|row| {
            Ok(SessionStanding {
                user: UserId::from_uuid(row.user_id),
                role: row.role.as_deref().map(columns::role).transpose()?,
                over: row.over,
                expires_at: row.expires_at,
            })
        })
        .transpose()
    }

    /// Returns those of these credentials that are no longer valid: they are revoked, expired or
    /// removed, or their person is disabled or no member.
    pub async fn ended_credentials(
        &self,
        watched: &[Watched],
    ) -> Result<Vec<EndedCredential>, StoreError> {
        let (mut keys, mut sessions) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for credential in watched {
            match credential {
                Watched::ApiKey(tenant, key) => {
                    keys.0.push(tenant.as_uuid());
                    keys.1.push(key.as_uuid());
                }
                Watched::Session(tenant, session) => {
                    sessions.0.push(tenant.as_uuid());
                    sessions.1.push(session.as_uuid());
                }
            }
        }
        let rows = sqlx::query!(
            r#"
            -- sessions.ended_credentials
            SELECT true AS "is_key!", w.tenant_id AS "tenant_id!", w.id AS "id!",
                   extract(epoch FROM clock_timestamp() - least(k.revoked_at, k.expires_at))::float8
                       AS seconds_ago
            FROM unnest($1::uuid[], $2::uuid[]) AS w (tenant_id, id)
            LEFT JOIN api_keys k ON k.tenant_id = w.tenant_id AND k.id = w.id
            WHERE k.id IS NULL OR k.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp()
            UNION ALL
            SELECT false, w.tenant_id, w.id,
                   extract(epoch FROM clock_timestamp()
                           - least(s.revoked_at, s.expires_at, u.disabled_at))::float8
            FROM unnest($3::uuid[], $4::uuid[]) AS w (tenant_id, id)
            LEFT JOIN sessions s ON s.id = w.id
            LEFT JOIN users u ON u.id = s.user_id
            LEFT JOIN memberships m ON m.tenant_id = w.tenant_id AND m.user_id = s.user_id
            WHERE s.id IS NULL OR s.revoked_at IS NOT NULL OR s.expires_at <= clock_timestamp()
               OR u.disabled_at IS NOT NULL OR m.user_id IS NULL
            "#,
            &keys.0,
            &keys.1,
            &sessions.0,
            &sessions.1,
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let tenant = TenantId::from_uuid(row.tenant_id);
                EndedCredential {
                    credential: if row.is_key {
                        Watched::ApiKey(tenant, ApiKeyId::from_uuid(row.id))
                    } else {
                        Watched::Session(tenant, SessionId::from_uuid(row.id))
                    },
                    seconds_ago: row.seconds_ago.filter(|seconds| *seconds >= 0.0),
                }
            })
            .collect())
    }
}
