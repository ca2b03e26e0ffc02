//! The statements that accept one run, with an idempotency key or without one.
//!
//! Both set the acting tenant themselves, for the length of their transaction, so that each can be
//! a transaction of its own. The policies on the counted rows and on the new row need this setting.
//! Both depend on the row that the setting returns, and so are evaluated after it.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::errors::StoreError;
use crate::idempotency_keys::IdempotencyKey;
use crate::runs::accept::row::AcceptRow;

/// Inserts the run, and returns the time in its row; `None` if the tenant's queue is full.
pub(crate) async fn accept_alone(
    executor: impl PgExecutor<'_>,
    row: &AcceptRow,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let created_at = sqlx::query_scalar!(
        "
        -- runs.accept
        WITH acting AS MATERIALIZED (
            SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id
        )
        INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                          thread_id, api_key_id, metadata, cancel_on_disconnect, metered,
                          created_by, traceparent, stored, expires_at)
        SELECT acting.tenant_id, $2, $3::text, $4::text::json, $5, $6, $7, $8, $9,
               $10::text::json, $11, $13, $14, $15, $16,
               CASE WHEN $17 THEN clock_timestamp() + (SELECT make_interval(secs => responses_kept_s)
                                                       FROM tenants WHERE id = acting.tenant_id) END
        FROM acting
        WHERE has_queue_place(acting.tenant_id, $12)
        RETURNING created_at
        ",
        row.tenant.as_uuid(),
        row.id,
        row.lane,
        row.spec,
        row.model,
        row.agent_name,
        row.agent_version,
        row.thread_id,
        row.api_key_id,
        row.metadata.as_deref(),
        row.cancel_on_disconnect,
        row.tenant_limit,
        row.metered,
        row.created_by.as_deref(),
        row.traceparent.as_deref(),
        row.stored,
        row.expires,
    )
    .fetch_optional(executor)
    .await?;
    Ok(created_at)
}

/// Inserts the run and its key, and returns the time in the run's row; `None` if the tenant's queue
/// is full or the key was used before.
pub(super) async fn accept_keyed(
    executor: impl PgExecutor<'_>,
    row: &AcceptRow,
    key: &IdempotencyKey,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let created_at = sqlx::query_scalar!(
        "
        -- runs.accept_keyed
        WITH acting AS MATERIALIZED (
            SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id
        ), won AS (
            INSERT INTO idempotency_keys (tenant_id, key, fingerprint, run_id)
            SELECT acting.tenant_id, $13, $14, $2
            FROM acting
            WHERE has_queue_place(acting.tenant_id, $12)
            -- Waits for another transaction with this key, and yields no row if that commits.
            ON CONFLICT (tenant_id, key) DO NOTHING
            RETURNING tenant_id, run_id
        )
        INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                          thread_id, api_key_id, metadata, cancel_on_disconnect, metered,
                          created_by, traceparent, stored, expires_at)
        SELECT won.tenant_id, won.run_id, $3::text, $4::text::json, $5, $6, $7, $8, $9,
               $10::text::json, $11, $15, $16, $17, $18,
               CASE WHEN $19 THEN clock_timestamp() + (SELECT make_interval(secs => responses_kept_s)
                                                       FROM tenants WHERE id = won.tenant_id) END
        FROM won
        RETURNING created_at
        ",
        row.tenant.as_uuid(),
        row.id,
        row.lane,
        row.spec,
        row.model,
        row.agent_name,
        row.agent_version,
        row.thread_id,
        row.api_key_id,
        row.metadata.as_deref(),
        row.cancel_on_disconnect,
        row.tenant_limit,
        key.key,
        key.fingerprint.as_slice(),
        row.metered,
        row.created_by.as_deref(),
        row.traceparent.as_deref(),
        row.stored,
        row.expires,
    )
    .fetch_optional(executor)
    .await?;
    Ok(created_at)
}
