//! The statement that records the result of one call.

use crate::columns::{int4, int8};
use crate::errors::FenceError;
use crate::steps::calls::row::CallCommitRow;
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// Returns whether the commit took messages that waited for the run.
    pub(crate) async fn commit_call_alone(&self, call: &CallCommitRow) -> Result<bool, FenceError> {
        let fence = &call.fence;
        sqlx::query_scalar!(
            r#"
            -- steps.commit_call
            WITH held AS (
                UPDATE runs SET
                    failures = 0,
                    last_event_id = greatest(last_event_id, $5),
                    -- Another value makes the trigger take what waits.
                    inputs_shown_step = CASE WHEN waiting_inputs > 0
                                             THEN coalesce($12, inputs_shown_step)
                                             ELSE inputs_shown_step END
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING thread_id, coalesce(inputs_shown_step = $12::integer, false) AS took
            ), recorded AS (
                UPDATE steps SET
                    state = 'finished', attempt = $3, ok = $7, duration_ms = $8,
                    last_event_id = $5, finished_at = clock_timestamp(), started_event_id = $10,
                    failure = $11::text, paused = NULL,
                    poll_at = NULL
                FROM held
                WHERE tenant_id = $1 AND run_id = $2 AND step = $6 AND kind = 'call'
                  AND state IN ('pending', 'started')
            ), said AS (
                INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
                SELECT $1, $2, $6, held.thread_id, $9::text::json
                FROM held
                ON CONFLICT DO NOTHING
            )
            SELECT took AS "took!" FROM held
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(call.last_event_id),
            int4(call.step),
            call.ok,
            int8(call.duration_ms),
            call.message,
            int8(call.started_event_id),
            call.failure,
            call.inputs_step.map(int4),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)
    }
}
