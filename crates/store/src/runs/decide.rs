//! `awaiting_approval` → `queued`: a person decides the last open question, or the question
//! expires.

use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, ApprovalScope, Decision, RunId, RunStatus,
};

use crate::columns::{self, int8};
use crate::errors::StoreError;
use crate::runs::rescue::{QueuedJob, Row};
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The outcome of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecideOutcome {
    /// The tenant has no such run, or the run no such question.
    NotFound,
    /// The question is decided so: by this call once it is committed, or by an earlier equal one.
    Decided {
        /// Whether this call decided it.
        newly: bool,
        /// The run, if this call left no question open; its job must be published.
        queued: Option<QueuedJob>,
    },
    /// The decision answers another kind of question. This is the reason of this one.
    NotAnOption(ApprovalReason),
    /// It was decided differently before.
    AlreadyDecided(Decision),
    /// The question has expired; it will be, or is being, decided as `fail`, `reject`, `stop` or `cancel`.
    Expired,
    /// The run has ended, so that nothing is left to decide.
    Ended(RunStatus),
    /// The approval shall hold for a thread, and the run has none.
    NoThread,
}

/// The text for the model if nobody decided in time about a call of unknown outcome.
const OUTCOME_EXPIRED: &str = "whether this call took effect is not known, and nobody decided in \
                               time what is to become of it";

/// The reason for the model if nobody decided in time about a call that requires approval.
const APPROVAL_EXPIRED: &str = "nobody approved it in time";

impl TenantTx {
    /// Decides a question, once. Of several calls at the same time, the row lock of the run lets
    /// one through at a time, and the first decides.
    pub async fn decide(
        &mut self,
        run: RunId,
        approval: ApprovalId,
        decision: &Decision,
        by: Option<ApiKeyId>,
    ) -> Result<DecideOutcome, StoreError> {
        let tenant = self.tenant;
        let locked = sqlx::query!(
            r#"
            -- runs.lock_to_decide
            SELECT status AS "status!", thread_id FROM runs WHERE tenant_id = $1 AND id = $2
            FOR NO KEY UPDATE
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(locked) = locked else {
            return Ok(DecideOutcome::NotFound);
        };
        let asked = sqlx::query!(
            r#"
            -- approvals.to_decide
            SELECT a.reason AS "reason!", a.decision, a.answer, a.arguments::text AS arguments,
                   a.expires_at <= clock_timestamp() AS "expired!",
                   g.approval_id IS NOT NULL AS "granted!", g.thread_id AS "granted_thread?"
            FROM approvals AS a
            LEFT JOIN approval_grants AS g ON g.tenant_id = a.tenant_id AND g.approval_id = a.id
            WHERE a.tenant_id = $1 AND a.id = $2 AND a.run_id = $3
            "#,
            tenant.as_uuid(),
            approval.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(asked) = asked else {
            return Ok(DecideOutcome::NotFound);
        };
        let reason = columns::approval_reason(&asked.reason)?;
        if !reason.options().contains(&decision.as_str()) {
            return Ok(DecideOutcome::NotAnOption(reason));
        }
        let arguments = asked.arguments.as_deref();
        let scope = columns::scope(asked.granted, asked.granted_thread);
        if let Some(earlier) = columns::decision(asked.decision, asked.answer, arguments, scope)? {
            return Ok(if earlier == *decision {
                DecideOutcome::Decided {
                    newly: false,
                    queued: None,
                }
            } else {
                DecideOutcome::AlreadyDecided(earlier)
            });
        }
        let status = columns::status(&locked.status)?;
        if status.is_terminal() {
            return Ok(DecideOutcome::Ended(status));
        }
        if asked.expired {
            return Ok(DecideOutcome::Expired);
        }
        let thread = match decision.scope() {
            ApprovalScope::Once | ApprovalScope::Run => None,
            ApprovalScope::Thread if locked.thread_id.is_none() => {
                return Ok(DecideOutcome::NoThread);
            }
            ApprovalScope::Thread => locked.thread_id,
        };
        let limits = decision.raised_limits().map(serde_json::to_string);
        let limits = limits
            .transpose()
            .map_err(|error| StoreError::unreadable("approvals.answer", &error.to_string()))?;
        let content = decision.content().map(serde_json::to_string);
        let content = content
            .transpose()
            .map_err(|error| StoreError::unreadable("approvals.answer", &error.to_string()))?;
        let answer = decision.text().map(columns::text);
        let answer = answer.or_else(|| limits.or(content).map(Into::into));
        let arguments = decision.edited_arguments().map(serde_json::to_string);
        let arguments = arguments
            .transpose()
            .map_err(|error| StoreError::unreadable("approvals.arguments", &error.to_string()))?;
        sqlx::query!(
            "
            -- approvals.decide
            UPDATE approvals SET decision = $3::text, answer = $4, decided_by = $5,
                                 decided_at = clock_timestamp(), arguments = $6::text::json
            WHERE tenant_id = $1 AND id = $2 AND decision IS NULL
            ",
            tenant.as_uuid(),
            approval.as_uuid(),
            decision.as_str(),
            answer.as_deref(),
            by.map(|key| key.as_uuid()),
            arguments,
        )
        .execute(self.connection())
        .await?;
        if decision.scope() != ApprovalScope::Once {
            self.grant_tool(run, approval, thread).await?;
        }
        let queued = sqlx::query_as!(
            Row,
            r#"
            -- runs.queue_decided
            UPDATE runs SET status = 'queued', queued_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2 AND status = 'awaiting_approval'
              AND NOT EXISTS (
                  SELECT FROM approvals AS open
                  WHERE open.tenant_id = $1 AND open.run_id = $2 AND open.decision IS NULL)
            RETURNING tenant_id, id, lane AS "lane!", queued_at, published_at
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(DecideOutcome::Decided {
            newly: true,
            queued: queued.map(Row::read).transpose()?,
        })
    }
}

impl SystemTx<'_> {
    /// Decides expired questions as `fail`, `reject`, `stop` or `cancel`, those of at most `limit` runs. Returns the runs that
    /// wait for no other question. Their jobs must be published, then reported to
    /// [`SystemTx::mark_published`].
    pub async fn expire_approvals(&self, limit: u32) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- approvals.expire
            -- One moment for all of it: what is not yet due keeps its run parked.
            WITH due AS (
                SELECT DISTINCT tenant_id, run_id FROM approvals
                WHERE decision IS NULL AND expires_at <= statement_timestamp()
                LIMIT $1
            ), locked AS (
                SELECT runs.tenant_id, runs.id
                FROM runs JOIN due ON due.tenant_id = runs.tenant_id AND due.run_id = runs.id
                -- What is locked is being decided or ended at this moment.
                FOR NO KEY UPDATE OF runs SKIP LOCKED
            ), expired AS (
                UPDATE approvals SET
                    decision = CASE reason WHEN 'approval required' THEN 'reject'
                                           WHEN 'budget' THEN 'stop'
                                           WHEN 'input' THEN 'cancel' ELSE 'fail' END,
                    answer = CASE reason WHEN 'approval required' THEN $3
                                         WHEN 'outcome unknown' THEN $2 END,
                    decided_at = clock_timestamp()
                FROM locked
                WHERE approvals.tenant_id = locked.tenant_id AND approvals.run_id = locked.id
                  AND decision IS NULL AND expires_at <= statement_timestamp()
            )
            UPDATE runs SET status = 'queued', queued_at = clock_timestamp()
            FROM locked
            WHERE runs.tenant_id = locked.tenant_id AND runs.id = locked.id
              AND runs.status = 'awaiting_approval'
              AND NOT EXISTS (
                  SELECT FROM approvals AS open
                  WHERE open.tenant_id = runs.tenant_id AND open.run_id = runs.id
                    AND open.decision IS NULL AND open.expires_at > statement_timestamp())
            RETURNING runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at,
                      runs.published_at
            "#,
            int8(u64::from(limit)),
            OUTCOME_EXPIRED,
            APPROVAL_EXPIRED,
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }
}
