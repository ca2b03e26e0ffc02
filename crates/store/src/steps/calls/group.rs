//! The statement that records the results of several calls, of runs of any tenants, in one commit.

use std::sync::Arc;

use sqlx::PgExecutor;

use crate::columns::{int4, int8};
use crate::errors::StoreError;
use crate::groups::{column, in_places};
use crate::steps::calls::row::CallCommitRow;

/// Records the results of runs that their fences still hold, and answers `false` for each that it
/// recorded: it took no message. It passes over runs that are not held, are locked, or have messages
/// to take, or took some by this same commit, and over all but one result of a run: the statement
/// for one result gives these their exact answer.
pub(crate) async fn commit_call_group(
    executor: impl PgExecutor<'_>,
    rows: &[Arc<CallCommitRow>],
) -> Result<Vec<Option<bool>>, StoreError> {
    let recorded = sqlx::query_scalar!(
        r#"
        -- steps.commit_call_group
        WITH held AS MATERIALIZED (
            SELECT asked.*, found.at
            FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::bigint[],
                        $6::integer[], $7::boolean[], $8::bigint[], $9::text[], $10::bigint[],
                        $11::text[], $12::integer[])
                 WITH ORDINALITY AS asked (
                     tenant_id, run_id, attempt, token, last_event_id,
                     step, ok, duration_ms, message, started_event_id,
                     failure, inputs_step, place)
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
                last_event_id = greatest(runs.last_event_id, held.last_event_id)
            FROM held
            -- The row is locked, so that it has not moved since.
            WHERE runs.ctid = held.at
            RETURNING held.place, held.tenant_id, held.run_id, held.attempt, held.step, held.ok,
                      held.duration_ms, held.message, held.last_event_id, held.started_event_id,
                      held.failure, runs.thread_id
        ), recorded AS (
            UPDATE steps SET
                state = 'finished', attempt = progressed.attempt, ok = progressed.ok,
                duration_ms = progressed.duration_ms, last_event_id = progressed.last_event_id,
                finished_at = clock_timestamp(), started_event_id = progressed.started_event_id,
                failure = progressed.failure, paused = NULL,
                    poll_at = NULL
            FROM progressed
            WHERE steps.tenant_id = progressed.tenant_id AND steps.run_id = progressed.run_id
              AND steps.step = progressed.step AND steps.kind = 'call'
              AND steps.state IN ('pending', 'started')
        ), said AS (
            INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
            SELECT tenant_id, run_id, step, thread_id, message::json
            FROM progressed
            ON CONFLICT DO NOTHING
        )
        SELECT place AS "place!" FROM progressed
        "#,
        &column(rows, |row| row.fence.tenant.as_uuid()),
        &column(rows, |row| row.fence.run.as_uuid()),
        &column(rows, |row| int4(row.fence.attempt)),
        &column(rows, |row| row.fence.token.as_uuid()),
        &column(rows, |row| int8(row.last_event_id)),
        &column(rows, |row| int4(row.step)),
        &column(rows, |row| row.ok),
        &column(rows, |row| int8(row.duration_ms)),
        &column(rows, |row| row.message.as_str()) as &[&str],
        &column(rows, |row| int8(row.started_event_id)),
        &column(rows, |row| row.failure) as &[Option<&str>],
        &column(rows, |row| row.inputs_step.map(int4)) as &[Option<i32>],
    )
    .fetch_all(executor)
    .await?;
    let recorded = recorded.into_iter().map(|place| (place, false));
    Ok(in_places(rows.len(), recorded))
}
