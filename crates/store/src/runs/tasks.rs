//! `running` → `awaiting_approval` → `queued`: a run waits for tasks of its tools' servers, and a worker asks for
//! their results when it is time. An ended run's worker is woken to cancel them.

use baton_protocol::{EventId, Fence};

use crate::columns::{int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::runs::rescue::{QueuedJob, Row};
use crate::system::SystemTx;

/// The outcome of waiting for tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitOutcome {
    /// The run waits, and nobody holds it.
    Waits,
    /// A client asked for the cancel of the run, for this reason. The attempt still holds the run
    /// and must end it.
    CancelRequested(String),
}

impl SystemTx<'_> {
    /// Parks a run until one of its tasks is asked about; this is no failure of the run. Repeated after its answer
    /// was lost, it changes nothing.
    pub async fn await_tasks(
        &self,
        fence: &Fence,
        last_event: EventId,
    ) -> Result<AwaitOutcome, FenceError> {
        let waits = sqlx::query_scalar!(
            r#"
            -- runs.await_tasks
            UPDATE runs SET
                status = 'awaiting_approval',
                failures = 0,
                last_event_id = greatest(last_event_id, $5),
                lease_expires_at = NULL,
                released_by = 'parked'
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND status = 'running' AND cancel_requested_at IS NULL
            RETURNING true AS "waits!"
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(last_event.as_u64()),
        )
        .fetch_optional(self.pool)
        .await?;
        if waits.is_some() {
            return Ok(AwaitOutcome::Waits);
        }
        let row = sqlx::query!(
            r#"
            -- runs.why_not_awaiting
            SELECT status <> 'running' AS "waits!", coalesce(cancel_reason, '') AS "cancel_reason!"
            FROM runs
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND (status = 'running' AND cancel_requested_at IS NOT NULL
                   OR status = 'awaiting_approval')
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        Ok(if row.waits {
            AwaitOutcome::Waits
        } else {
            AwaitOutcome::CancelRequested(row.cancel_reason)
        })
    }

    /// Queues at most `limit` runs that wait for tasks of which one is to be asked about, and for nobody's decision.
    /// Their jobs must be published, then reported to [`SystemTx::mark_published`].
    pub async fn wake_for_tasks(&self, limit: u32) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- runs.wake_for_tasks
            WITH due AS (
                SELECT DISTINCT s.tenant_id, s.run_id
                FROM steps AS s
                JOIN runs AS r ON r.tenant_id = s.tenant_id AND r.id = s.run_id
                                  AND r.status = 'awaiting_approval'
                WHERE s.poll_at <= statement_timestamp()
                  AND NOT EXISTS (
                      SELECT FROM approvals AS open
                      WHERE open.tenant_id = s.tenant_id AND open.run_id = s.run_id
                        AND open.decision IS NULL)
                LIMIT $1
            ), locked AS (
                SELECT runs.tenant_id, runs.id
                FROM runs JOIN due ON due.tenant_id = runs.tenant_id AND due.run_id = runs.id
                WHERE runs.status = 'awaiting_approval'
                -- What is locked is being queued or ended at this moment.
                FOR NO KEY UPDATE OF runs SKIP LOCKED
            )
            UPDATE runs SET status = 'queued', queued_at = clock_timestamp()
            FROM locked
            WHERE runs.tenant_id = locked.tenant_id AND runs.id = locked.id
              AND runs.status = 'awaiting_approval'
            RETURNING runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at,
                      runs.published_at
            "#,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }

    /// Returns at most `limit` ended runs with tasks that their servers may still work on. Each is returned again
    /// after a while, a few times, until [`SystemTx::close_task`]. A worker that gets the job of one cancels them.
    pub async fn ended_with_tasks(&self, limit: u32) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- runs.ended_with_tasks
            WITH due AS (
                SELECT s.ctid AS at
                FROM steps AS s
                JOIN runs AS r ON r.tenant_id = s.tenant_id AND r.id = s.run_id
                                  AND r.finished_at IS NOT NULL
                WHERE s.poll_at IS NOT NULL
                  AND (s.cancel_tries = 0 OR s.poll_at <= statement_timestamp())
                LIMIT $1
                -- Another scheduler takes what is locked.
                FOR NO KEY UPDATE OF s SKIP LOCKED
            ), taken AS (
                UPDATE steps SET
                    cancel_tries = cancel_tries + 1,
                    poll_at = CASE WHEN cancel_tries < 6
                        THEN clock_timestamp() + interval '15 seconds' * (1 << cancel_tries) END
                FROM due
                WHERE steps.ctid = due.at
                RETURNING steps.tenant_id, steps.run_id, steps.poll_at
            )
            SELECT DISTINCT runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at,
                            runs.published_at
            FROM taken
            JOIN runs ON runs.tenant_id = taken.tenant_id AND runs.id = taken.run_id
            WHERE taken.poll_at IS NOT NULL
            "#,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }
}
