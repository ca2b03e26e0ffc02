//! The table `approvals`: questions to a person. The commit that parks a run asks them.

use std::time::Duration;

use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, Decision, Nanos, ReachedLimit, RequestedInput, RunId,
    TenantId,
};
use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// A question to a person, with the call or the limit that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRecord {
    /// Its id.
    pub id: ApprovalId,
    /// The run that waits for the answer.
    pub run: RunId,
    /// The call's place in the run's ledger; of a limit, the step that the run waits before.
    pub step: u32,
    /// The attempt that asked it.
    pub attempt: u32,
    /// The reason for the question.
    pub reason: ApprovalReason,
    /// The call's id, as the model gave it; empty for a limit.
    pub call_id: String,
    /// The name of the tool; empty for a limit.
    pub name: String,
    /// The arguments to decide about: those of the model, or those that a person approved in their place
    /// before the call began and its outcome became unknown.
    pub arguments: String,
    /// The JSON text of the schema that other arguments must match; `None` if none can be given.
    pub parameters: Option<String>,
    /// The limit that the run has reached; `None` for a call.
    pub reached: Option<ReachedLimit>,
    /// The input that the tool's server asks for; `None` for other reasons.
    pub input: Option<RequestedInput>,
    /// The time at which the run was parked.
    pub created_at: DateTime<Utc>,
    /// The time at which it is decided as `fail`, `reject`, `stop` or `cancel`, if nobody has decided it before.
    pub expires_at: DateTime<Utc>,
    /// The decision; `None` while the question is open.
    pub decided: Option<Decided>,
}

/// A decision with its time and its maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// Its time.
    pub at: DateTime<Utc>,
    /// The key that it was made with; `None` if the question expired or was decided over the bus.
    pub by: Option<ApiKeyId>,
    /// The time at which its grant was revoked; `None` if it holds, or if the decision granted nothing.
    pub grant_revoked_at: Option<DateTime<Utc>>,
}

/// A row of the table, with its step.
struct Row {
    id: Uuid,
    run_id: Uuid,
    step: i32,
    attempt: i32,
    reason: String,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    parameters: Option<String>,
    reached: Option<String>,
    input: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    decision: Option<String>,
    answer: Option<String>,
    edited: Option<String>,
    decided_at: Option<DateTime<Utc>>,
    decided_by: Option<Uuid>,
    granted: bool,
    granted_thread: Option<Uuid>,
    revoked_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<ApprovalRecord, StoreError> {
        let scope = columns::scope(self.granted, self.granted_thread);
        let edited = self.edited.as_deref();
        let decision = columns::decision(self.decision, self.answer, edited, scope)?;
        let reached = self.reached.as_deref().map(serde_json::from_str);
        let reached = reached
            .transpose()
            .map_err(|error| StoreError::unreadable("approvals.reached", &error.to_string()))?;
        let input = columns::requested_input(self.input.as_deref())?;
        Ok(ApprovalRecord {
            id: ApprovalId::from_uuid(self.id),
            run: RunId::from_uuid(self.run_id),
            step: columns::count(self.step),
            attempt: columns::count(self.attempt),
            reason: columns::approval_reason(&self.reason)?,
            call_id: self.call_id.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            arguments: self.arguments.unwrap_or_default(),
            parameters: self.parameters,
            reached,
            input,
            created_at: self.created_at,
            expires_at: self.expires_at,
            decided: decision.zip(self.decided_at).map(|(decision, at)| Decided {
                decision,
                at,
                by: self.decided_by.map(ApiKeyId::from_uuid),
                grant_revoked_at: self.revoked_at,
            }),
        })
    }
}

async fn approvals_of(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: RunId,
) -> Result<Vec<ApprovalRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"
        -- approvals.of_run
        SELECT a.id, a.run_id, a.step, a.attempt, a.reason AS "reason!", s.call_id AS "call_id?", s.name AS "name?",
               -- Edited arguments are those that the call began with.
               CASE a.reason WHEN 'outcome unknown'
                   THEN coalesce(approved.arguments::text, s.arguments) ELSE s.arguments
               END AS arguments,
               a.parameters::text AS parameters, a.reached::text AS reached,
               a.input::text AS input, a.created_at,
               a.expires_at, a.decision, a.answer,
               a.arguments::text AS edited, a.decided_at, a.decided_by,
               g.approval_id IS NOT NULL AS "granted!", g.thread_id AS "granted_thread?",
               g.revoked_at AS "revoked_at?"
        FROM approvals AS a
        -- A question about a limit has no call.
        LEFT JOIN steps AS s
               ON s.tenant_id = a.tenant_id AND s.run_id = a.run_id AND s.step = a.step
                  AND a.reason <> 'budget'
        LEFT JOIN approval_grants AS g ON g.tenant_id = a.tenant_id AND g.approval_id = a.id
        LEFT JOIN approvals AS approved
               ON approved.tenant_id = a.tenant_id AND approved.run_id = a.run_id
                  AND approved.step = a.step AND approved.arguments IS NOT NULL
        WHERE a.tenant_id = $1 AND a.run_id = $2
        ORDER BY a.attempt, a.step
        "#,
        tenant.as_uuid(),
        run.as_uuid(),
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(Row::read)
    .collect()
}

/// A page of open questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalPage {
    /// The questions, the newest first.
    pub data: Vec<ApprovalRecord>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<ApprovalId>,
}

impl TenantTx {
    /// Returns a page of the questions that runs of the tenant wait for.
    pub async fn open_approvals(
        &mut self,
        cursor: Option<ApprovalId>,
        limit: u32,
    ) -> Result<ApprovalPage, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- approvals.open
            SELECT a.id, a.run_id, a.step, a.attempt, a.reason AS "reason!", s.call_id AS "call_id?", s.name AS "name?",
                   CASE a.reason WHEN 'outcome unknown'
                       THEN coalesce(approved.arguments::text, s.arguments) ELSE s.arguments
                   END AS arguments,
                   a.parameters::text AS parameters, a.reached::text AS reached,
                   a.input::text AS input, a.created_at,
                   a.expires_at, a.decision, a.answer, a.arguments::text AS edited, a.decided_at, a.decided_by,
                   -- An open question has granted nothing.
                   false AS "granted!", NULL::uuid AS "granted_thread?",
                   NULL::timestamptz AS "revoked_at?"
            FROM approvals AS a
            -- A run that was cancelled leaves its questions undecided.
            JOIN runs AS r ON r.tenant_id = a.tenant_id AND r.id = a.run_id
                              AND r.status = 'awaiting_approval'
            LEFT JOIN steps AS s
                   ON s.tenant_id = a.tenant_id AND s.run_id = a.run_id AND s.step = a.step
                      AND a.reason <> 'budget'
            LEFT JOIN approvals AS approved
                   ON approved.tenant_id = a.tenant_id AND approved.run_id = a.run_id
                      AND approved.step = a.step AND approved.arguments IS NOT NULL
            WHERE a.tenant_id = $1 AND a.decision IS NULL AND a.id < $2
            ORDER BY a.id DESC
            LIMIT $3
            "#,
            tenant.as_uuid(),
            cursor.map_or(Uuid::max(), |cursor| cursor.as_uuid()),
            // One row more than the page holds, which shows whether there is a next page.
            columns::int8(u64::from(limit) + 1),
        )
        .fetch_all(self.connection())
        .await?;
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked_for;
        let rows = rows.into_iter().take(asked_for).map(Row::read);
        let data = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(ApprovalPage {
            next_cursor: more.then(|| data.last().map(|it| it.id)).flatten(),
            data,
        })
    }

    /// Returns all questions of a run in the order in which they were asked.
    pub async fn run_approvals(&mut self, run: RunId) -> Result<Vec<ApprovalRecord>, StoreError> {
        let tenant = self.tenant;
        approvals_of(self.connection(), tenant, run).await
    }
}

/// The bounds of raised limits of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RaiseBounds {
    /// The monthly tokens of the run's key; `None` without a budget of tokens.
    pub tokens: Option<u64>,
    /// The monthly cost of the run's key; `None` without a budget in money.
    pub cost: Option<Nanos>,
    /// The time since the run's first claim.
    pub lived: Duration,
}

impl TenantTx {
    /// Returns the bounds of raised limits; `None` if the tenant has no such run.
    pub async fn raise_bounds(&mut self, run: RunId) -> Result<Option<RaiseBounds>, StoreError> {
        let tenant = self.tenant;
        let bounds = sqlx::query!(
            r#"
            -- approvals.raise_bounds
            SELECT k.monthly_tokens AS "monthly_tokens?",
                   k.monthly_cost_micros AS "monthly_cost_micros?",
                   extract(epoch FROM clock_timestamp() - r.started_at)::float8 AS lived
            FROM runs AS r
            LEFT JOIN api_keys AS k ON k.tenant_id = r.tenant_id AND k.id = r.api_key_id
            WHERE r.tenant_id = $1 AND r.id = $2
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(bounds.map(|bounds| RaiseBounds {
            tokens: bounds.monthly_tokens.map(columns::number),
            cost: bounds
                .monthly_cost_micros
                .map(|micros| Nanos::from_micros(columns::number(micros))),
            lived: columns::latency(bounds.lived).unwrap_or_default(),
        }))
    }
}

impl SystemTx<'_> {
    /// Returns all questions of a run in the order in which they were asked.
    pub async fn run_approvals(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        approvals_of(self.pool, tenant, run).await
    }
}
