//! The statement that accepts several runs of one tenant in one commit.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::errors::StoreError;
use crate::groups::{column, in_places};
use crate::runs::accept::row::AcceptRow;

/// Inserts as many of the runs as may wait, and returns the time in the row of each that it
/// inserted. All are of the first one's tenant, without a thread, a key of idempotency or a budget,
/// which need a lock or a row of their own. An id that is taken fails the whole statement.
pub(crate) async fn accept_group(
    executor: impl PgExecutor<'_>,
    rows: &[Arc<AcceptRow>],
) -> Result<Vec<Option<DateTime<Utc>>>, StoreError> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    // A row with a greater limit is passed over, and goes by itself.
    let limit = rows
        .iter()
        .fold(first.tenant_limit, |limit, row| limit.min(row.tenant_limit));
    let inserted = sqlx::query!(
        "
        -- runs.accept_group
        WITH acting AS MATERIALIZED (
            SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id
        ), room AS MATERIALIZED (
            SELECT tenant_id, queue_places(tenant_id, $2) AS places FROM acting
        )
        INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                          api_key_id, metadata, cancel_on_disconnect, metered,
                          created_by, traceparent, stored, expires_at)
        SELECT room.tenant_id, asked.id, asked.lane, asked.spec::json, asked.model, asked.agent_name,
               asked.agent_version, asked.api_key_id, asked.metadata::json,
               asked.cancel_on_disconnect, false, asked.created_by, asked.traceparent,
               asked.stored,
               CASE WHEN asked.expires
                    THEN clock_timestamp() + (SELECT make_interval(secs => responses_kept_s)
                                              FROM tenants WHERE id = room.tenant_id) END
        FROM room
        CROSS JOIN unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                          $8::integer[], $9::uuid[], $10::text[], $11::boolean[], $12::text[],
                          $13::text[], $14::boolean[], $15::boolean[])
             WITH ORDINALITY AS asked (
                 id, lane, spec, model, agent_name, agent_version, api_key_id, metadata,
                 cancel_on_disconnect, created_by, traceparent, stored, expires, place)
        WHERE asked.place <= room.places
        RETURNING id, created_at
        ",
        first.tenant.as_uuid(),
        limit,
        &column(rows, |row| row.id),
        &column(rows, |row| row.lane) as &[&str],
        &column(rows, |row| row.spec.as_str()) as &[&str],
        &column(rows, |row| row.model.as_str()) as &[&str],
        &column(rows, |row| row.agent_name.as_str()) as &[&str],
        &column(rows, |row| row.agent_version),
        &column(rows, |row| row.api_key_id) as &[Option<uuid::Uuid>],
        &column(rows, |row| row.metadata.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.cancel_on_disconnect),
        &column(rows, |row| row.created_by.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.traceparent.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.stored),
        &column(rows, |row| row.expires),
    )
    .fetch_all(executor)
    .await?;
    let place = |id| (1..).zip(rows).find(|(_, row)| row.id == id);
    let inserted = inserted
        .into_iter()
        .filter_map(|row| Some((place(row.id)?.0, row.created_at)));
    Ok(in_places(rows.len(), inserted))
}
