//! Records the beginning and the result of a tool call.

use baton_protocol::{CallFailure, EventId, Fence};

use crate::columns::{int4, int8};
use crate::errors::FenceError;
use crate::steps::StepRecord;
use crate::system::SystemTx;

/// The result of a call.
#[derive(Debug, Clone)]
pub struct CallCommit<'a> {
    /// The call's place in the transcript.
    pub step: u32,
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The reason why it has no result, unless a person decided that.
    pub failure: Option<CallFailure>,
    /// The JSON text of the tool's message to the model.
    pub message: &'a str,
    /// Its duration in milliseconds.
    pub duration_ms: u64,
    /// The last event that the stream has confirmed; the call's own finished-event follows.
    pub last_event_id: EventId,
    /// The event that showed the call's beginning.
    pub started_event_id: EventId,
    /// The step from which on the commit records the messages that wait for the run; `None` while
    /// other calls of the turn have no result.
    pub inputs_step: Option<u32>,
}

impl SystemTx<'_> {
    /// Records that a call begins, of a tool that must not be called twice. The tool may be called
    /// only after this has returned. This locks the run's row, so that an attempt which takes over
    /// either sees the record or prevents it.
    pub async fn start_call(&self, fence: &Fence, step: u32) -> Result<(), FenceError> {
        sqlx::query!(
            r#"
            -- steps.start_call
            WITH held AS (
                SELECT FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                FOR NO KEY UPDATE
            )
            UPDATE steps SET
                state = 'started', attempt = $3,
                started_at = coalesce(started_at, clock_timestamp())
            FROM held
            WHERE tenant_id = $1 AND run_id = $2 AND step = $5 AND kind = 'call'
              AND state IN ('pending', 'started')
            RETURNING true AS "started!"
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(step),
        )
        .fetch_optional(self.pool)
        .await?
        .map(|_| ())
        .ok_or(FenceError::Lost)
    }

    /// Records a call's result and its message in one commit; this is progress of the run. Repeated
    /// after its answer was lost, it changes nothing. Returns the messages that it took.
    pub async fn commit_call(
        &self,
        fence: &Fence,
        call: &CallCommit<'_>,
    ) -> Result<Vec<StepRecord>, FenceError> {
        let took = sqlx::query_scalar!(
            r#"
            -- steps.commit_call
            WITH held AS (
                UPDATE runs SET
                    failures = 0,
                    last_event_id = greatest(last_event_id, $5),
                    -- Another value makes the trigger take what waits.
                    inputs_step = CASE WHEN waiting_inputs > 0
                                       THEN coalesce($12, inputs_step) ELSE inputs_step END
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING thread_id, coalesce(inputs_step = $12::integer, false) AS took
            ), recorded AS (
                UPDATE steps SET
                    state = 'finished', attempt = $3, ok = $7, duration_ms = $8,
                    last_event_id = $5, finished_at = clock_timestamp(), started_event_id = $10,
                    failure = $11::text
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
            int8(call.last_event_id.as_u64()),
            int4(call.step),
            call.ok,
            int8(call.duration_ms),
            call.message,
            int8(call.started_event_id.as_u64()),
            call.failure.map(CallFailure::as_str),
            call.inputs_step.map(int4),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        match call.inputs_step {
            Some(step) if took => Ok(self.taken_inputs(fence.tenant, fence.run, step).await?),
            _ => Ok(Vec::new()),
        }
    }
}
