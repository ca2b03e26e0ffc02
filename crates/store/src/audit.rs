//! The table `audit_log`: the actor, action, target, origin and result of each entry. Rows are only
//! ever added.

use baton_protocol::{AuditId, TenantId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The kind of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorKind {
    /// A person.
    User,
    /// A program with an API key.
    ApiKey,
    /// A person or program with another issuer's token.
    Issuer,
    /// A user of the command line.
    Operator,
    /// A client without a credential, or with a bad one.
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

    /// Returns the word in the column.
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

/// The result of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditResult {
    /// The action was done.
    Done,
    /// The action was refused.
    Refused,
}

impl AuditResult {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Done, Self::Refused];

    /// Returns the word in the column.
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
    /// Its id, which also gives the order of the log.
    pub id: AuditId,
    /// The tenant in which it happened; `None` for an action outside of all tenants.
    pub tenant: Option<TenantId>,
    /// The kind of the actor.
    pub actor_kind: ActorKind,
    /// The actor.
    pub actor: Option<String>,
    /// The action, a stable word such as `key.created`.
    pub action: &'static str,
    /// The target of the action.
    pub target: Option<String>,
    /// The result.
    pub result: AuditResult,
    /// More about it; never a secret.
    pub detail: Option<String>,
    /// The address of the client.
    pub ip: Option<String>,
    /// The `User-Agent` that the client sent.
    pub user_agent: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// A stored entry, its columns as text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in AuditEntry")]
pub struct AuditRecord {
    pub id: AuditId,
    pub tenant: Option<TenantId>,
    /// The time of the entry.
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

/// A filter of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only entries in this tenant.
    pub tenant: Option<TenantId>,
    /// Only entries of this actor.
    pub actor: Option<String>,
    /// Only this action, or all with this prefix, for instance `key.`.
    pub action: Option<String>,
    /// Only entries with this result.
    pub result: Option<String>,
    /// Only entries from this time on.
    pub since: Option<DateTime<Utc>>,
    /// The number of entries; the newest are returned.
    pub limit: u32,
}

/// A macro, because both roles add entries, each under its own policy.
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
    /// Adds an entry in the transaction of the action that it records. The entry's tenant must be
    /// this one.
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

    /// Returns the newest entries that match the filter, in the order of time.
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
