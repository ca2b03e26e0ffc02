//! The statement that claims several queued runs, of any tenants, in one commit.

use std::time::Duration;

use sqlx::PgExecutor;

use crate::columns::{int4, int8};
use crate::errors::StoreError;
use crate::groups::{column, in_places};
use crate::runs::claim::{Claim, ClaimRow};

/// Claims the runs that wait for a worker, and returns the row of each that it claimed. It passes
/// over a run that is not queued, is locked, is to be cancelled or was lost too often; also over one
/// of a thread or with limits, which needs another lock, and one with a long specification, which
/// would delay the answer to its neighbours. The statement for one run claims these.
pub(crate) async fn claim_group(
    executor: impl PgExecutor<'_>,
    claims: &[Claim],
) -> Result<Vec<Option<ClaimRow>>, StoreError> {
    let rows = sqlx::query!(
        r#"
        -- runs.claim_group
        WITH free AS MATERIALIZED (
            SELECT asked.*, found.at
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::interval[],
                        $6::bigint[], $7::integer[])
                 WITH ORDINALITY AS asked (
                     tenant_id, run_id, worker, token, lease, job_seq, max_failures, place)
            CROSS JOIN LATERAL (
                SELECT runs.ctid AS at FROM runs
                WHERE runs.tenant_id = asked.tenant_id AND runs.id = asked.run_id
                  AND runs.status = 'queued' AND runs.cancel_requested_at IS NULL
                  AND runs.failures < asked.max_failures
                  AND runs.thread_id IS NULL AND NOT runs.metered
                  AND pg_column_size(runs.spec) <= 65536
                -- A locked row delays no other.
                FOR UPDATE SKIP LOCKED
            ) AS found
            -- Always true; see runs.finish_group.
            WHERE asked.place % 1 = 0
        )
        UPDATE runs SET
            status = 'running',
            attempt = runs.attempt + 1,
            failures = runs.failures + 1,
            claim_token = free.token,
            worker_id = free.worker,
            job_seq = free.job_seq,
            lease_expires_at = clock_timestamp() + free.lease,
            started_at = coalesce(runs.started_at, clock_timestamp()),
            released_by = NULL
        FROM free
        -- The row is locked, so that it has not moved since.
        WHERE runs.ctid = free.at
        RETURNING free.place AS "place!", runs.attempt, runs.failures, runs.last_event_id,
                  runs.lane, runs.thread_id, runs.spec::text AS "spec!", runs.traceparent,
                  runs.prompt_tokens, runs.completion_tokens, runs.total_tokens, runs.created_at,
                  runs.queued_at, runs.started_at AS "started_at!",
                  (SELECT json_build_object(
                       'revoked', k.revoked_at IS NOT NULL, 'scopes', k.scopes,
                       'models', k.allowed_models, 'tools', k.allowed_tools,
                       'token_budget', false, 'cost_budget', false)::text
                   FROM api_keys k
                   WHERE k.tenant_id = runs.tenant_id AND k.id = runs.api_key_id) AS key
        "#,
        &column(claims, |claim| claim.tenant.as_uuid()),
        &column(claims, |claim| claim.run.as_uuid()),
        &column(claims, |claim| claim.worker.as_uuid()),
        &column(claims, |claim| claim.token.as_uuid()),
        &column(claims, |claim| claim.lease) as &[Duration],
        &column(claims, |claim| int8(claim.job_seq)),
        &column(claims, |claim| int4(claim.max_failures)),
    )
    .fetch_all(executor)
    .await?;
    let claimed = rows.into_iter().map(|row| {
        let columns = ClaimRow {
            attempt: row.attempt,
            failures: row.failures,
            last_event_id: row.last_event_id,
            lane: row.lane,
            thread_id: row.thread_id,
            spec: row.spec,
            traceparent: row.traceparent,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            total_tokens: row.total_tokens,
            created_at: row.created_at,
            queued_at: row.queued_at,
            started_at: row.started_at,
            key: row.key,
        };
        (row.place, columns)
    });
    Ok(in_places(claims.len(), claimed))
}
