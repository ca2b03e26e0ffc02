//! `queued`, `awaiting_approval` → `cancelled`: a client asks for the cancel of a run that nobody
//! holds. A run with a holder is only flagged. Its holder sees the flag at the next renewal; if
//! another worker claims the run first, that claim ends it.

use baton_protocol::{RunId, RunStatus, WorkerId};

use crate::columns;
use crate::errors::StoreError;
use crate::runs::{EndedColumns, EndedRun};
use crate::tenant_tx::TenantTx;

/// The outcome of a cancel request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelRequest {
    /// The tenant has no such run.
    NotFound,
    /// The run has ended: by this request once it is committed, or earlier.
    Ended(EndedRun),
    /// A worker holds the run and will see the request.
    Requested {
        /// The holder.
        worker: Option<WorkerId>,
        /// Whether this is the first request.
        newly: bool,
    },
}

impl CancelRequest {
    /// Returns whether the request changed anything.
    pub const fn is_new(&self) -> bool {
        match self {
            Self::NotFound => false,
            Self::Ended(ended) => ended.newly,
            Self::Requested { newly, .. } => *newly,
        }
    }
}

impl TenantTx {
    /// Asks for the cancel of a run. A second request keeps the reason of the first.
    pub async fn request_cancel(
        &mut self,
        run: RunId,
        reason: &str,
    ) -> Result<CancelRequest, StoreError> {
        let tenant = self.tenant;
        let moved = sqlx::query!(
            r#"
            -- runs.request_cancel
            UPDATE runs SET
                cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
                cancel_reason = coalesce(cancel_reason, $3),
                status = CASE status WHEN 'running' THEN status ELSE 'cancelled' END,
                attempt = CASE status WHEN 'running' THEN attempt ELSE attempt + 1 END,
                last_event_id = CASE status WHEN 'running' THEN last_event_id
                    ELSE ((attempt + 1)::bigint << 32) | CASE attempt WHEN 0 THEN 1 ELSE 2 END END,
                finished_at = CASE status WHEN 'running' THEN NULL ELSE clock_timestamp() END,
                end_unlogged = status <> 'running'
            FROM (SELECT cancel_requested_at AS asked_before FROM runs
                  WHERE tenant_id = $1 AND id = $2 FOR UPDATE) before
            WHERE tenant_id = $1 AND id = $2
              AND status IN ('queued', 'running', 'awaiting_approval')
            RETURNING asked_before IS NULL AS "newly!", status AS "status!", worker_id, attempt,
                      last_event_id, prompt_tokens, completion_tokens, total_tokens, cancel_reason, usage_estimated,
                      extract(epoch FROM finished_at - cancel_requested_at)::float8
                          AS cancel_seconds
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            &*columns::text(reason),
        )
        .fetch_optional(self.connection())
        .await?;
        if let Some(row) = moved {
            if columns::status(&row.status)? == RunStatus::Running {
                return Ok(CancelRequest::Requested {
                    worker: row.worker_id.map(WorkerId::from_uuid),
                    newly: row.newly,
                });
            }
            let ended = EndedColumns {
                status: row.status,
                attempt: row.attempt,
                last_event_id: row.last_event_id,
                prompt_tokens: row.prompt_tokens,
                completion_tokens: row.completion_tokens,
                total_tokens: row.total_tokens,
                finish_reason: None,
                error_code: None,
                error_message: None,
                error_upstream: None,
                cancel_reason: row.cancel_reason,
                usage_estimated: row.usage_estimated,
                cancel_seconds: row.cancel_seconds,
            };
            return Ok(CancelRequest::Ended(ended.read(true)?));
        }
        // If no cancel can move the run, it has ended; an end is final.
        let ended = sqlx::query_as!(
            EndedColumns,
            r#"
            -- runs.ended
            SELECT status AS "status!", attempt, last_event_id, prompt_tokens, completion_tokens,
                   total_tokens, finish_reason, error_code, error_message,
                   error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds
            FROM runs WHERE tenant_id = $1 AND id = $2
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        match ended {
            None => Ok(CancelRequest::NotFound),
            Some(ended) => Ok(CancelRequest::Ended(ended.read(false)?)),
        }
    }
}
