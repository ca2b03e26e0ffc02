//! The table `audit_log`: who did what, from where, with what result. Rows are only ever added.

use baton_protocol::{AuditId, TenantId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// What kind of somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorKind {
    /// A person.
    User,
    /// A machine.
    ApiKey,
    /// Somebody whom another issuer vouches for.
    Issuer,
    /// Whoever has the command line.
    Operator,
    /// No credential, or a bad one.
    Nobody,
}

impl ActorKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::User,
        Self::ApiKey,
        Self::Issuer,
        Self::Operator,
        Self::Nobody,
    ];

    /// The kind's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Issuer => "issuer",
            Self::Operator => "operator",
            Self::Nobody => "nobody",
        }
    }
}

/// Whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditResult {
    /// It happened.
    Done,
    /// It was asked for and did not happen.
    Refused,
}

impl AuditResult {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Done, Self::Refused];

    /// The result's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its id: the log is sorted by it.
    pub id: AuditId,
    /// Where it happened, if in a tenant.
    pub tenant: Option<TenantId>,
    /// What kind of somebody acted.
    pub actor_kind: ActorKind,
    /// Who.
    pub actor: Option<String>,
    /// What, as a stable word such as `key.created`.
    pub action: &'static str,
    /// To what.
    pub target: Option<String>,
    /// Whether it happened.
    pub result: AuditResult,
    /// More of it; never a secret.
    pub detail: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// A stored entry, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in AuditEntry")]
pub struct AuditRecord {
    pub id: AuditId,
    pub tenant: Option<TenantId>,
    /// When.
    pub at: DateTime<Utc>,
    pub actor_kind: String,
    pub actor: Option<String>,
    pub action: String,
    pub target: Option<String>,
    pub result: String,
    pub detail: Option<String>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// In this tenant.
    pub tenant: Option<TenantId>,
    /// By this actor.
    pub actor: Option<String>,
    /// This action, or all that begin so, for instance `key.`.
    pub action: Option<String>,
    /// With this result.
    pub result: Option<String>,
    /// Not before.
    pub since: Option<DateTime<Utc>>,
    /// So many, the newest.
    pub limit: u32,
}

/// Both roles may add, each through its own policy.
macro_rules! insert {
    ($entry:expr, $executor:expr) => {
        sqlx::query!(
            "
            -- audit_log.add
            INSERT INTO audit_log (id, tenant_id, actor_kind, actor, action, target, result, detail,
                                   ip, user_agent, request_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ",
            $entry.id.as_uuid(),
            $entry.tenant.map(|tenant| tenant.as_uuid()),
            $entry.actor_kind.as_str() as _,
            columns::optional_text($entry.actor.as_deref()),
            $entry.action,
            columns::optional_text($entry.target.as_deref()),
            $entry.result.as_str() as _,
            columns::optional_text($entry.detail.as_deref()),
            columns::optional_text($entry.ip.as_deref()),
            columns::optional_text($entry.user_agent.as_deref()),
            columns::optional_text($entry.request_id.as_deref()),
        )
        .execute($executor)
        .await
    };
}

impl TenantTx {
    /// Adds an entry together with what it tells of. Its tenant must be this one.
    pub async fn record_audit(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        insert!(entry, self.connection())?;
        Ok(())
    }
}

impl SystemTx<'_> {
    /// Adds an entry.
    pub async fn record_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        insert!(entry, self.pool)?;
        Ok(())
    }

    /// The newest entries that fit, the oldest of them first.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- audit_log.list
            SELECT id AS "id!", tenant_id, at AS "at!", actor_kind AS "actor_kind!", actor,
                   action AS "action!", target, result AS "result!", detail, ip, user_agent,
                   request_id
            FROM (
                SELECT * FROM audit_log
                WHERE ($1::uuid IS NULL OR tenant_id = $1)
                  AND ($2::text IS NULL OR actor = $2)
                  AND ($3::text IS NULL OR starts_with(action, $3))
                  AND ($4::text IS NULL OR result = $4)
                  AND ($5::timestamptz IS NULL OR at >= $5)
                ORDER BY id DESC LIMIT $6
            ) newest
            ORDER BY id
            "#,
            filter.tenant.map(|tenant| tenant.as_uuid()),
            filter.actor,
            filter.action,
            filter.result,
            filter.since,
            i64::from(filter.limit),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| AuditRecord {
                id: AuditId::from_uuid(row.id),
                tenant: row.tenant_id.map(TenantId::from_uuid),
                at: row.at,
                actor_kind: row.actor_kind,
                actor: row.actor,
                action: row.action,
                target: row.target,
                result: row.result,
                detail: row.detail,
                ip: row.ip,
                user_agent: row.user_agent,
                request_id: row.request_id,
            })
            .collect())
    }
}
