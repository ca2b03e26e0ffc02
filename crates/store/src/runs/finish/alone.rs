//! The statement that ends one run, and the look at a run that it did not change.

use crate::columns::{int4, int8};
use crate::errors::FenceError;
use crate::runs::finish::row::{EndedRow, FinishRow};
use crate::system::SystemTx;

impl SystemTx<'_> {
    pub(crate) async fn finish_alone(&self, row: &FinishRow) -> Result<EndedRow, FenceError> {
        let (fence, turn) = (&row.fence, row.turn.as_ref());
        let ended = sqlx::query_as!(
            EndedRow,
            r#"
            -- runs.finish
            WITH ended AS (
                UPDATE runs SET
                    status = $5::text,
                    finish_reason = $6::text,
                    error_code = $7,
                    error_message = $8,
                    error_upstream = $27::text::json,
                    -- The words of whoever asked for the cancel stand.
                    cancel_reason = coalesce(cancel_reason, $9),
                    last_event_id = $10,
                    prompt_tokens = $11,
                    completion_tokens = $12,
                    total_tokens = $13,
                    usage_estimated = $21,
                    failures = CASE WHEN $14::integer IS NULL THEN failures ELSE 0 END,
                    lease_expires_at = NULL,
                    finished_at = clock_timestamp()
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running' AND NOT ($32::boolean AND waiting_inputs > 0)
                  -- An end that a message prevented may arrive again after the commit that took it.
                  AND last_event_id < $10
                RETURNING thread_id, api_key_id, model, created_at,
                          CASE status WHEN 'cancelled' THEN
                              extract(epoch FROM finished_at - cancel_requested_at)::float8
                          END AS cancel_seconds
            ), recorded AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                                   finished_at, usage_estimated, cut_message, answer_fields,
                                   started_at, duration_ms, first_token_ms)
                SELECT $1, $2, $14, $3, 'turn', 'finished', $16::text, $17, $18, $19, $20,
                       clock_timestamp(), $22,
                       CASE WHEN $16 IS NULL THEN $15::text::json END, $28::text::json,
                       clock_timestamp() - $30::bigint * interval '1 ms', $30::bigint, $31::bigint
                FROM ended WHERE $14 IS NOT NULL
                ON CONFLICT DO NOTHING
            ), entered AS (
                INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                           input_tokens, cached_tokens, output_tokens, cost_nanos,
                                           estimated)
                SELECT $1, (ended.created_at AT TIME ZONE 'UTC')::date, $2, $14, ended.api_key_id,
                       coalesce($29::text, ended.model), $23::bigint, $24::bigint, $25::bigint, $26::bigint, $22
                FROM ended WHERE $14 IS NOT NULL
                ON CONFLICT DO NOTHING
            ), said AS (
                INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
                SELECT $1, $2, $14, ended.thread_id, $15::text::json
                FROM ended WHERE $14 IS NOT NULL AND $16 IS NOT NULL
                ON CONFLICT DO NOTHING
            )
            SELECT thread_id, cancel_seconds FROM ended
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            row.status,
            row.finish_reason,
            row.error_code.as_deref(),
            row.error_message.as_deref(),
            row.cancel_reason.as_deref(),
            int8(row.last_event_id),
            int8(row.usage_total.prompt_tokens),
            int8(row.usage_total.completion_tokens),
            int8(row.usage_total.total_tokens),
            turn.map(|turn| int4(turn.step)),
            turn.map(|turn| turn.message.as_str()),
            turn.and_then(|turn| turn.finish_reason),
            turn.map(|turn| int8(turn.usage.prompt_tokens)),
            turn.map(|turn| int8(turn.usage.completion_tokens)),
            turn.map(|turn| int8(turn.usage.total_tokens)),
            turn.map(|turn| int8(turn.last_event_id)),
            row.usage_total.estimated,
            turn.is_some_and(|turn| turn.usage.estimated),
            turn.map(|turn| int8(turn.charge.input_tokens)),
            turn.map(|turn| int8(turn.charge.cached_tokens)),
            turn.map(|turn| int8(turn.charge.output_tokens)),
            turn.and_then(|turn| turn.charge.cost)
                .map(|cost| int8(cost.0)),
            row.error_upstream.as_deref(),
            turn.and_then(|turn| turn.answer_fields.as_deref()),
            turn.and_then(|turn| turn.charged_model.as_deref()),
            turn.and_then(|turn| turn.times.duration_ms()),
            turn.and_then(|turn| turn.times.first_token_ms()),
            row.unless_inputs_wait,
        )
        .fetch_optional(self.pool)
        .await?;
        match ended {
            Some(ended) => Ok(ended),
            None => self.why_not_finished(row).await,
        }
    }

    /// Returns the row of a run that this attempt has already ended in the same way; otherwise the
    /// reason why nothing was written.
    async fn why_not_finished(&self, row: &FinishRow) -> Result<EndedRow, FenceError> {
        let fence = &row.fence;
        let found = sqlx::query!(
            r#"
            -- runs.why_not_finished
            SELECT thread_id, status = 'running' AS "held!",
                   CASE status WHEN 'cancelled' THEN
                       extract(epoch FROM finished_at - cancel_requested_at)::float8
                   END AS cancel_seconds
            FROM runs
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND (status = $5 AND last_event_id = $6 OR status = 'running' AND $7)
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            row.status,
            int8(row.last_event_id),
            row.unless_inputs_wait,
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        // The message may have been withdrawn since.
        if found.held {
            return Err(FenceError::InputsWait);
        }
        Ok(EndedRow {
            thread_id: found.thread_id,
            cancel_seconds: found.cancel_seconds,
        })
    }
}
