//! The statement that ends several runs, of any tenants, in one commit.

use std::sync::Arc;

use sqlx::PgExecutor;

use crate::columns::{int4, int8};
use crate::errors::StoreError;
use crate::groups::{column, in_places};
use crate::runs::finish::row::{EndedRow, FinishRow, TurnRow};

/// Ends the runs that their fences still hold, and returns an answer for each row that it wrote. It
/// passes over runs that are not held, are locked, must first take a message, or are metered and so
/// need another lock: the statement for one run gives these their exact answer.
pub(crate) async fn finish_group(
    executor: impl PgExecutor<'_>,
    rows: &[Arc<FinishRow>],
) -> Result<Vec<Option<EndedRow>>, StoreError> {
    let ended = sqlx::query!(
        r#"
        -- runs.finish_group
        WITH held AS MATERIALIZED (
            SELECT asked.*, found.at
            FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::text[], $6::text[],
                        $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[],
                        $12::bigint[], $13::bigint[], $14::integer[], $15::text[], $16::text[],
                        $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::boolean[],
                        $22::boolean[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[],
                        $27::text[], $28::text[], $29::text[], $30::bigint[], $31::bigint[],
                        $32::boolean[])
                 WITH ORDINALITY AS asked (
                     tenant_id, run_id, attempt, token, status, finish_reason,
                     error_code, error_message, cancel_reason, last_event_id, prompt_tokens,
                     completion_tokens, total_tokens, step, message, turn_reason,
                     turn_prompt, turn_completion, turn_total, turn_event, estimated,
                     turn_estimated, input_tokens, cached_tokens, output_tokens, cost_nanos,
                     error_upstream, answer_fields, charged_model, duration_ms, first_token_ms,
                     unless_inputs_wait, place)
            CROSS JOIN LATERAL (
                SELECT runs.ctid AS at FROM runs
                WHERE runs.tenant_id = asked.tenant_id AND runs.id = asked.run_id
                  AND runs.attempt = asked.attempt AND runs.claim_token = asked.token
                  AND runs.status = 'running' AND NOT runs.metered
                  AND NOT (asked.unless_inputs_wait AND runs.waiting_inputs > 0)
                  -- An end that a message prevented may arrive again after the commit that took it.
                  AND runs.last_event_id < asked.last_event_id
                -- A locked row delays no other.
                FOR UPDATE SKIP LOCKED
            ) AS found
            -- Always true. The planner expects that it leaves one row, and so plans to look up each
            -- row by itself; it would otherwise scan a table that is still small.
            WHERE asked.place % 1 = 0
        ), ended AS (
            UPDATE runs SET
                status = held.status,
                finish_reason = held.finish_reason,
                error_code = held.error_code,
                error_message = held.error_message,
                error_upstream = held.error_upstream::json,
                -- The words of the first cancel request are kept.
                cancel_reason = coalesce(runs.cancel_reason, held.cancel_reason),
                last_event_id = held.last_event_id,
                prompt_tokens = held.prompt_tokens,
                completion_tokens = held.completion_tokens,
                total_tokens = held.total_tokens,
                usage_estimated = held.estimated,
                failures = CASE WHEN held.step IS NULL THEN runs.failures ELSE 0 END,
                lease_expires_at = NULL,
                finished_at = clock_timestamp()
            FROM held
            -- The row is locked, so that it has not moved since.
            WHERE runs.ctid = held.at
            RETURNING held.place, held.tenant_id, held.run_id, held.attempt, held.step,
                      held.message, held.turn_reason, held.turn_prompt, held.turn_completion,
                      held.turn_total, held.turn_event, held.turn_estimated, held.input_tokens,
                      held.cached_tokens, held.output_tokens, held.cost_nanos, held.answer_fields,
                      held.duration_ms, held.first_token_ms,
                      coalesce(held.charged_model, runs.model) AS charged_model,
                      runs.thread_id, runs.api_key_id, runs.created_at,
                      CASE runs.status WHEN 'cancelled' THEN
                          extract(epoch FROM runs.finished_at - runs.cancel_requested_at)::float8
                      END AS cancel_seconds
        ), recorded AS (
            INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                               prompt_tokens, completion_tokens, total_tokens, last_event_id,
                               finished_at, usage_estimated, cut_message, answer_fields,
                               started_at, duration_ms, first_token_ms)
            SELECT tenant_id, run_id, step, attempt, 'turn', 'finished', turn_reason,
                   turn_prompt, turn_completion, turn_total, turn_event, clock_timestamp(),
                   turn_estimated, CASE WHEN turn_reason IS NULL THEN message::json END,
                   answer_fields::json, clock_timestamp() - duration_ms * interval '1 ms',
                   duration_ms, first_token_ms
            FROM ended WHERE step IS NOT NULL
            ON CONFLICT DO NOTHING
        ), entered AS (
            INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                       input_tokens, cached_tokens, output_tokens, cost_nanos,
                                       estimated)
            SELECT tenant_id, (created_at AT TIME ZONE 'UTC')::date, run_id, step, api_key_id,
                   charged_model, input_tokens, cached_tokens, output_tokens, cost_nanos,
                   turn_estimated
            FROM ended WHERE step IS NOT NULL
            ON CONFLICT DO NOTHING
        ), said AS (
            INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
            SELECT tenant_id, run_id, step, thread_id, message::json
            FROM ended WHERE step IS NOT NULL AND turn_reason IS NOT NULL
            ON CONFLICT DO NOTHING
        )
        SELECT place AS "place!", thread_id, cancel_seconds FROM ended
        "#,
        &column(rows, |row| row.fence.tenant.as_uuid()),
        &column(rows, |row| row.fence.run.as_uuid()),
        &column(rows, |row| int4(row.fence.attempt)),
        &column(rows, |row| row.fence.token.as_uuid()),
        &column(rows, |row| row.status) as &[&str],
        &column(rows, |row| row.finish_reason) as &[Option<&str>],
        &column(rows, |row| row.error_code.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.error_message.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.cancel_reason.as_deref()) as &[Option<&str>],
        &column(rows, |row| int8(row.last_event_id)),
        &column(rows, |row| int8(row.usage_total.prompt_tokens)),
        &column(rows, |row| int8(row.usage_total.completion_tokens)),
        &column(rows, |row| int8(row.usage_total.total_tokens)),
        &turn_column(rows, |turn| Some(int4(turn.step))) as &[Option<i32>],
        &turn_column(rows, |turn| Some(turn.message.as_str())) as &[Option<&str>],
        &turn_column(rows, |turn| turn.finish_reason) as &[Option<&str>],
        &turn_column(rows, |turn| Some(int8(turn.usage.prompt_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| Some(int8(turn.usage.completion_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| Some(int8(turn.usage.total_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| Some(int8(turn.last_event_id))) as &[Option<i64>],
        &column(rows, |row| row.usage_total.estimated),
        &column(rows, |row| row
            .turn
            .as_ref()
            .is_some_and(|turn| turn.usage.estimated)),
        &turn_column(rows, |turn| Some(int8(turn.charge.input_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| Some(int8(turn.charge.cached_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| Some(int8(turn.charge.output_tokens))) as &[Option<i64>],
        &turn_column(rows, |turn| turn.charge.cost.map(|cost| int8(cost.0))) as &[Option<i64>],
        &column(rows, |row| row.error_upstream.as_deref()) as &[Option<&str>],
        &turn_column(rows, |turn| turn.answer_fields.as_deref()) as &[Option<&str>],
        &turn_column(rows, |turn| turn.charged_model.as_deref()) as &[Option<&str>],
        &turn_column(rows, |turn| turn.times.duration_ms()) as &[Option<i64>],
        &turn_column(rows, |turn| turn.times.first_token_ms()) as &[Option<i64>],
        &column(rows, |row| row.unless_inputs_wait),
    )
    .fetch_all(executor)
    .await?;
    let ended = ended.into_iter().map(|row| {
        let columns = EndedRow {
            thread_id: row.thread_id,
            cancel_seconds: row.cancel_seconds,
        };
        (row.place, columns)
    });
    Ok(in_places(rows.len(), ended))
}

/// Collects one parameter of all last turns; NULL for a row without one.
fn turn_column<'r, T>(
    rows: &'r [Arc<FinishRow>],
    of: impl Fn(&'r TurnRow) -> Option<T>,
) -> Vec<Option<T>> {
    column(rows, |row| row.turn.as_ref().and_then(&of))
}
