//! The table `stream_tickets`: each opens the event stream of one run for a short time.

use std::time::Duration;

use baton_protocol::{ApiKeyId, Role, RunId, SessionId, TenantId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The credential that made a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketMaker {
    /// A key.
    ApiKey(ApiKeyId),
    /// A person's sign-in.
    Session(SessionId),
    /// A token of another issuer.
    Issuer {
        /// Its subject.
        subject: String,
        /// The subject's role.
        role: Role,
        /// The time of the token's expiry.
        until: DateTime<Utc>,
    },
}

/// A ticket that is still valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTicket {
    /// The tenant of the run.
    pub tenant: TenantId,
    /// The only run that it opens.
    pub run: RunId,
    /// The credential that made it.
    pub maker: TicketMaker,
}

impl TenantTx {
    /// Stores a ticket for a run of this tenant and returns its end; `None` if there is no such run.
    /// Removes up to a hundred of the tenant's tickets that have expired.
    pub async fn create_stream_ticket(
        &mut self,
        hash: [u8; 32],
        run: RunId,
        maker: &TicketMaker,
        life: Duration,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let tenant = self.tenant;
        let (mut key, mut session, mut issuer) = (None, None, None);
        match maker {
            TicketMaker::ApiKey(id) => key = Some(id.as_uuid()),
            TicketMaker::Session(id) => session = Some(id.as_uuid()),
            TicketMaker::Issuer {
                subject,
                role,
                until,
            } => issuer = Some((subject.as_str(), role.as_str(), *until)),
        }
        Ok(sqlx::query_scalar!(
            "
            -- stream_tickets.create
            WITH expired AS (
                DELETE FROM stream_tickets WHERE hash IN (
                    SELECT hash FROM stream_tickets
                    WHERE tenant_id = $2 AND expires_at < clock_timestamp()
                    LIMIT 100
                )
            )
            INSERT INTO stream_tickets (hash, tenant_id, run_id, api_key_id, session_id,
                                        issuer_subject, issuer_role, issued_until, expires_at)
            SELECT $1, r.tenant_id, r.id, $4, $5, $6, $7, $8, clock_timestamp() + $9::interval
            FROM runs r
            WHERE r.tenant_id = $2 AND r.id = $3
            RETURNING expires_at
            ",
            hash.as_slice(),
            tenant.as_uuid(),
            run.as_uuid(),
            key as _,
            session as _,
            issuer.map(|(subject, ..)| subject) as _,
            issuer.map(|(_, role, _)| role) as _,
            issuer.map(|(.., until)| until) as _,
            life as _,
        )
        .fetch_optional(self.connection())
        .await?)
    }
}

impl SystemTx<'_> {
    /// Finds a ticket by its hash; `None` if it does not exist or has expired.
    pub async fn find_stream_ticket(
        &self,
        hash: [u8; 32],
    ) -> Result<Option<StreamTicket>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- stream_tickets.find
            SELECT tenant_id, run_id, api_key_id, session_id, issuer_subject,
                   issuer_role AS "issuer_role?", issued_until
            FROM stream_tickets
            WHERE hash = $1 AND expires_at > clock_timestamp()
            "#,
            hash.as_slice(),
        )
        .fetch_optional(self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let maker = match (row.api_key_id, row.session_id) {
            (Some(key), _) => TicketMaker::ApiKey(ApiKeyId::from_uuid(key)),
            (None, Some(session)) => TicketMaker::Session(SessionId::from_uuid(session)),
            (None, None) => TicketMaker::Issuer {
                subject: row.issuer_subject.unwrap_or_default(),
                role: columns::role(row.issuer_role.as_deref().unwrap_or_default())?,
                until: row.issued_until.unwrap_or(DateTime::<Utc>::MIN_UTC),
            },
        };
        Ok(Some(StreamTicket {
            tenant: TenantId::from_uuid(row.tenant_id),
            run: RunId::from_uuid(row.run_id),
            maker,
        }))
    }
}
