//! The statement that records one turn.

use crate::columns::{int4, int8};
use crate::errors::FenceError;
use crate::groups::column;
use crate::steps::turns::row::TurnCommitRow;
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// Returns whether the commit took messages that waited for the run.
    pub(crate) async fn commit_turn_alone(&self, turn: &TurnCommitRow) -> Result<bool, FenceError> {
        let fence = &turn.fence;
        sqlx::query_scalar!(
            r#"
            -- steps.commit_turn
            WITH held AS (
                UPDATE runs SET
                    failures = 0,
                    -- A statement whose answer was lost may come through behind its own repetition,
                    -- and behind later commits: nothing goes back.
                    last_event_id = greatest(last_event_id, $5),
                    prompt_tokens = greatest(prompt_tokens, $6),
                    completion_tokens = greatest(completion_tokens, $7),
                    total_tokens = greatest(total_tokens, $8),
                    usage_estimated = usage_estimated OR $24,
                    -- Another value makes the trigger take what waits.
                    inputs_shown_step = CASE WHEN waiting_inputs > 0
                                             THEN coalesce($29, inputs_shown_step)
                                             ELSE inputs_shown_step END
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING thread_id, api_key_id, model, created_at,
                          coalesce(inputs_shown_step = $29::integer, false) AS took
            ), recorded AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                                   finished_at, usage_estimated, answer_fields,
                                   started_at, duration_ms, first_token_ms)
                SELECT $1, $2, $9::integer, $3, 'turn', 'finished', $11::text, $12::bigint,
                       $13::bigint, $14::bigint, $5, clock_timestamp(), $24, $25::text::json,
                       clock_timestamp() - $27::bigint * interval '1 ms', $27::bigint, $28::bigint
                FROM held
                ON CONFLICT DO NOTHING
            ), said AS (
                INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
                SELECT $1, $2, $9, held.thread_id, $10::text::json
                FROM held
                ON CONFLICT DO NOTHING
            ), entered AS (
                INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                           input_tokens, cached_tokens, output_tokens, cost_nanos,
                                           estimated)
                SELECT $1, (held.created_at AT TIME ZONE 'UTC')::date, $2, $9, held.api_key_id,
                       coalesce($26::text, held.model), $20::bigint, $21::bigint, $22::bigint,
                       $23::bigint, $24
                FROM held
                ON CONFLICT DO NOTHING
            ), asked_for AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, call_id, name,
                                   arguments, effect)
                SELECT $1, $2, call.step, $3, 'call', 'pending', call.call_id, call.name,
                       call.arguments, call.effect
                FROM held, unnest($15::integer[], $16::text[], $17::text[], $18::text[], $19::text[])
                     AS call (step, call_id, name, arguments, effect)
                ON CONFLICT DO NOTHING
            )
            SELECT took AS "took!" FROM held
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(turn.last_event_id),
            int8(turn.usage_total.prompt_tokens),
            int8(turn.usage_total.completion_tokens),
            int8(turn.usage_total.total_tokens),
            int4(turn.step),
            turn.message,
            turn.finish_reason,
            int8(turn.usage.prompt_tokens),
            int8(turn.usage.completion_tokens),
            int8(turn.usage.total_tokens),
            &column(&turn.calls, |call| int4(call.step)),
            &column(&turn.calls, |call| call.call_id.as_str()) as &[&str],
            &column(&turn.calls, |call| call.name.as_str()) as &[&str],
            &column(&turn.calls, |call| call.arguments.as_str()) as &[&str],
            &column(&turn.calls, |call| call.effect.as_str()) as &[&str],
            int8(turn.charge.input_tokens),
            int8(turn.charge.cached_tokens),
            int8(turn.charge.output_tokens),
            turn.charge.cost.map(|cost| int8(cost.0)),
            turn.usage.estimated,
            turn.answer_fields.as_deref(),
            turn.charged_model.as_deref(),
            turn.times.duration_ms(),
            turn.times.first_token_ms(),
            turn.inputs_step.map(int4),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)
    }
}
