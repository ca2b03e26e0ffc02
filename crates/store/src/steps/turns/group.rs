//! The statement that records several turns, of runs of any tenants, in one commit.

use std::sync::Arc;

use sqlx::PgExecutor;

use crate::columns::{int4, int8};
use crate::errors::StoreError;
use crate::groups::{column, in_places};
use crate::steps::NewCall;
use crate::steps::turns::row::TurnCommitRow;

/// Records the turns of runs that their fences still hold, and answers `false` for each that it
/// recorded: it took no message. It passes over runs that are not held, are locked, or have messages
/// to take, or took some by this same commit: the statement for one turn gives these their exact
/// answer.
pub(crate) async fn commit_turn_group(
    executor: impl PgExecutor<'_>,
    rows: &[Arc<TurnCommitRow>],
) -> Result<Vec<Option<bool>>, StoreError> {
    let calls: Vec<_> = (1_i64..)
        .zip(rows)
        .flat_map(|(place, row)| row.calls.iter().map(move |call| (place, call)))
        .collect();
    let recorded = sqlx::query_scalar!(
        r#"
        -- steps.commit_turn_group
        WITH held AS MATERIALIZED (
            SELECT asked.*, found.at
            FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::bigint[],
                        $6::bigint[], $7::bigint[], $8::bigint[], $9::integer[], $10::text[],
                        $11::text[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
                        $16::bigint[], $17::bigint[], $18::bigint[], $19::boolean[], $20::text[],
                        $21::text[], $22::bigint[], $23::bigint[], $24::integer[])
                 WITH ORDINALITY AS asked (
                     tenant_id, run_id, attempt, token, last_event_id,
                     prompt_total, completion_total, total_total, step, message,
                     finish_reason, prompt_tokens, completion_tokens, total_tokens, input_tokens,
                     cached_tokens, output_tokens, cost_nanos, estimated, answer_fields,
                     charged_model, duration_ms, first_token_ms, inputs_step, place)
            CROSS JOIN LATERAL (
                SELECT runs.ctid AS at FROM runs
                WHERE runs.tenant_id = asked.tenant_id AND runs.id = asked.run_id
                  AND runs.attempt = asked.attempt AND runs.claim_token = asked.token
                  AND runs.status = 'running'
                  AND (asked.inputs_step IS NULL OR runs.waiting_inputs = 0
                       AND runs.inputs_shown_step IS DISTINCT FROM asked.inputs_step)
                -- A locked row delays no other.
                FOR NO KEY UPDATE SKIP LOCKED
            ) AS found
            -- Always true; see runs.finish_group.
            WHERE asked.place % 1 = 0
        ), progressed AS (
            UPDATE runs SET
                failures = 0,
                -- A group whose answer was lost may commit after later commits: nothing goes back.
                last_event_id = greatest(runs.last_event_id, held.last_event_id),
                prompt_tokens = greatest(runs.prompt_tokens, held.prompt_total),
                completion_tokens = greatest(runs.completion_tokens, held.completion_total),
                total_tokens = greatest(runs.total_tokens, held.total_total),
                usage_estimated = runs.usage_estimated OR held.estimated
            FROM held
            -- The row is locked, so that it has not moved since.
            WHERE runs.ctid = held.at
            RETURNING held.place, held.tenant_id, held.run_id, held.attempt, held.step,
                      held.message, held.finish_reason, held.prompt_tokens, held.completion_tokens,
                      held.total_tokens, held.last_event_id, held.estimated, held.input_tokens,
                      held.cached_tokens, held.output_tokens, held.cost_nanos, held.answer_fields,
                      held.duration_ms, held.first_token_ms,
                      coalesce(held.charged_model, runs.model) AS charged_model,
                      runs.thread_id, runs.api_key_id, runs.created_at
        ), recorded AS (
            INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                               prompt_tokens, completion_tokens, total_tokens, last_event_id,
                               finished_at, usage_estimated, answer_fields,
                               started_at, duration_ms, first_token_ms)
            SELECT tenant_id, run_id, step, attempt, 'turn', 'finished', finish_reason,
                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                   clock_timestamp(), estimated, answer_fields::json,
                   clock_timestamp() - duration_ms * interval '1 ms', duration_ms, first_token_ms
            FROM progressed
            ON CONFLICT DO NOTHING
        ), said AS (
            INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
            SELECT tenant_id, run_id, step, thread_id, message::json
            FROM progressed
            ON CONFLICT DO NOTHING
        ), entered AS (
            INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                       input_tokens, cached_tokens, output_tokens, cost_nanos,
                                       estimated)
            SELECT tenant_id, (created_at AT TIME ZONE 'UTC')::date, run_id, step, api_key_id,
                   charged_model, input_tokens, cached_tokens, output_tokens, cost_nanos, estimated
            FROM progressed
            ON CONFLICT DO NOTHING
        ), asked_for AS (
            INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, call_id, name,
                               arguments, effect)
            SELECT progressed.tenant_id, progressed.run_id, call.step, progressed.attempt, 'call',
                   'pending', call.call_id, call.name, call.arguments, call.effect
            FROM progressed
            JOIN unnest($25::bigint[], $26::integer[], $27::text[], $28::text[], $29::text[],
                        $30::text[]) AS call (place, step, call_id, name, arguments, effect)
              ON call.place = progressed.place
            ON CONFLICT DO NOTHING
        )
        SELECT place AS "place!" FROM progressed
        "#,
        &column(rows, |row| row.fence.tenant.as_uuid()),
        &column(rows, |row| row.fence.run.as_uuid()),
        &column(rows, |row| int4(row.fence.attempt)),
        &column(rows, |row| row.fence.token.as_uuid()),
        &column(rows, |row| int8(row.last_event_id)),
        &column(rows, |row| int8(row.usage_total.prompt_tokens)),
        &column(rows, |row| int8(row.usage_total.completion_tokens)),
        &column(rows, |row| int8(row.usage_total.total_tokens)),
        &column(rows, |row| int4(row.step)),
        &column(rows, |row| row.message.as_str()) as &[&str],
        &column(rows, |row| row.finish_reason) as &[&str],
        &column(rows, |row| int8(row.usage.prompt_tokens)),
        &column(rows, |row| int8(row.usage.completion_tokens)),
        &column(rows, |row| int8(row.usage.total_tokens)),
        &column(rows, |row| int8(row.charge.input_tokens)),
        &column(rows, |row| int8(row.charge.cached_tokens)),
        &column(rows, |row| int8(row.charge.output_tokens)),
        &column(rows, |row| row.charge.cost.map(|cost| int8(cost.0))) as &[Option<i64>],
        &column(rows, |row| row.usage.estimated),
        &column(rows, |row| row.answer_fields.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.charged_model.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.times.duration_ms()) as &[Option<i64>],
        &column(rows, |row| row.times.first_token_ms()) as &[Option<i64>],
        &column(rows, |row| row.inputs_step.map(int4)) as &[Option<i32>],
        &column(&calls, |(place, _)| *place),
        &column(&calls, |(_, call)| int4(call.step)),
        &call_column(&calls, |call| &call.call_id) as &[&str],
        &call_column(&calls, |call| &call.name) as &[&str],
        &call_column(&calls, |call| &call.arguments) as &[&str],
        &call_column(&calls, |call| call.effect.as_str()) as &[&str],
    )
    .fetch_all(executor)
    .await?;
    let recorded = recorded.into_iter().map(|place| (place, false));
    Ok(in_places(rows.len(), recorded))
}

/// Collects one text of all calls.
fn call_column<'c>(calls: &[(i64, &'c NewCall)], of: fn(&'c NewCall) -> &'c str) -> Vec<&'c str> {
    calls.iter().map(|(_, call)| of(call)).collect()
}
