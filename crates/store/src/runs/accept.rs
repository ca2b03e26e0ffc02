//! → `queued`: a run is accepted. Its row, its idempotency key and the check of the queue limits
//! are one commit; once that stands, the run is never lost.

use baton_protocol::TenantId;
use serde_json::value::RawValue;
use sqlx::PgExecutor;

use crate::columns::{self, int4, int8};
use crate::connect::Store;
use crate::errors::StoreError;
use crate::idempotency_keys::IdempotencyKey;
use crate::runs::new_run::{Accept, NewRun, QueueLimits};
use crate::tenant_tx::TenantTx;

impl Store {
    /// Accepts a run within the limits, in a transaction of its own and one round trip, or several if
    /// the run is metered. When it returns [`Accept::Created`], the run is committed. A try whose answer was lost, for instance
    /// on a connection that a restarted server has forgotten, is repeated once: the run's id tells
    /// whether it was committed.
    ///
    /// Of several calls with one key the first wins; the others wait for its commit and then see
    /// [`Accept::Replay`].
    pub async fn accept_run(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        match self.try_accept_run(tenant, run, limits).await {
            Err(error) if error.is_transient() => {
                match self.try_accept_run(tenant, run, limits).await {
                    // A keyed run is found by its key before its id is tried.
                    Err(error) if is_known_run(&error) && run.idempotency.is_none() => {
                        Ok(Accept::Created)
                    }
                    Err(error) if is_known_run(&error) => Ok(Accept::IdTaken),
                    Ok(Accept::Replay { run: known }) if known == run.id => Ok(Accept::Created),
                    answer => answer,
                }
            }
            Err(error) if is_known_run(&error) => Ok(Accept::IdTaken),
            answer => answer,
        }
    }

    async fn try_accept_run(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        if run.metered.is_some() {
            let mut tx = self.tenant(tenant).await?;
            let answer = tx.accept_run(run, limits).await?;
            tx.commit().await?;
            return Ok(answer);
        }
        let refusal = if self.depth.reaches(limits.system).await? {
            Accept::SystemQueueFull {
                limit: limits.system,
            }
        } else if insert_run(&self.tenant_statements, tenant, run, limits).await? {
            return Ok(Accept::Created);
        } else {
            Accept::TenantQueueFull {
                limit: limits.tenant,
            }
        };
        match run.idempotency {
            None => Ok(refusal),
            Some(key) => Ok(self
                .tenant(tenant)
                .await?
                .repetition(key)
                .await?
                .unwrap_or(refusal)),
        }
    }
}

/// Whether an insert failed because the run is there already.
fn is_known_run(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(refused) => refused
            .as_database_error()
            .is_some_and(|refused| matches!(refused.constraint(), Some("runs_pkey" | "runs_id"))),
        _ => false,
    }
}

impl TenantTx {
    /// [`Store::accept_run`] as a part of a transaction that does more: it is accepted when
    /// [`TenantTx::commit`] has returned.
    pub async fn accept_run(
        &mut self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        let refusal = if self.depth.reaches(limits.system).await? {
            Accept::SystemQueueFull {
                limit: limits.system,
            }
        } else {
            match self.insert_within_limits(run, limits).await? {
                Accept::Created => return Ok(Accept::Created),
                refusal => refusal,
            }
        };
        match run.idempotency {
            None => Ok(refusal),
            Some(key) => Ok(self.repetition(key).await?.unwrap_or(refusal)),
        }
    }

    /// Inserts the run if its key and the queue have room for it. What refuses it has written
    /// nothing.
    async fn insert_within_limits(
        &mut self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        let tenant = self.tenant;
        let standing = match run.api_key_id.zip(run.metered) {
            None => None,
            Some((key, first_turn)) => match self.stand(key, &first_turn).await? {
                Ok(standing) => Some(standing),
                Err(refusal) => return Ok(refusal),
            },
        };
        if !insert_run(self.connection(), tenant, run, limits).await? {
            return Ok(Accept::TenantQueueFull {
                limit: limits.tenant,
            });
        }
        if let Some(standing) = standing {
            self.reserve(run, &standing).await?;
        }
        Ok(Accept::Created)
    }

    /// What became of the key before. A repetition of what was accepted is answered however full
    /// the queue is; and this statement, begun later, sees what the transaction that won the key
    /// has committed meanwhile.
    async fn repetition(&mut self, key: &IdempotencyKey) -> Result<Option<Accept>, StoreError> {
        Ok(self.used_key(&key.key).await?.map(|used| {
            if used.fingerprint == key.fingerprint {
                Accept::Replay { run: used.run }
            } else {
                Accept::KeyReused
            }
        }))
    }
}

/// Inserts the run, and its key if it has one: whether it did. Both statements set the tenant that
/// they act for themselves, for as long as their transaction lasts, so that they can be a
/// transaction of their own. What needs it (the policy on the counted rows, the one on the new row)
/// depends on the row that setting it yields, and so comes after it.
async fn insert_run(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: &NewRun<'_>,
    limits: &QueueLimits,
) -> Result<bool, StoreError> {
    let spec = serde_json::to_string(run.spec).map_err(StoreError::Encode)?;
    match run.idempotency {
        None => insert_unkeyed(executor, tenant, run, &spec, limits.tenant).await,
        Some(key) => insert_keyed(executor, tenant, run, key, &spec, limits.tenant).await,
    }
}

async fn insert_unkeyed(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: &NewRun<'_>,
    spec: &str,
    tenant_limit: u32,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "
        -- runs.accept
        WITH acting AS MATERIALIZED (
            SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id
        )
        INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                          thread_id, api_key_id, metadata, cancel_on_disconnect, metered)
        SELECT acting.tenant_id, $2, $3::text, $4::text::json, $5, $6, $7, $8, $9,
               $10::text::json, $11, $13
        FROM acting
        WHERE (SELECT count(*) FROM (
                   SELECT FROM runs
                   WHERE runs.tenant_id = acting.tenant_id AND status = 'queued' LIMIT $12
               ) AS waiting) < $12
        ",
        tenant.as_uuid(),
        run.id.as_uuid(),
        run.lane.as_str(),
        spec,
        &*columns::text(&run.spec.model),
        &*columns::text(&run.spec.agent.name),
        int4(run.spec.agent.version),
        run.thread_id.map(|thread| thread.as_uuid()),
        run.api_key_id.map(|key| key.as_uuid()),
        run.metadata.map(RawValue::get),
        run.cancel_on_disconnect,
        int8(u64::from(tenant_limit)),
        run.api_key_id.is_some() && run.metered.is_some(),
    )
    .execute(executor)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn insert_keyed(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: &NewRun<'_>,
    key: &IdempotencyKey,
    spec: &str,
    tenant_limit: u32,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "
        -- runs.accept_keyed
        WITH acting AS MATERIALIZED (
            SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id
        ), won AS (
            INSERT INTO idempotency_keys (tenant_id, key, fingerprint, run_id)
            SELECT acting.tenant_id, $13, $14, $2
            FROM acting
            WHERE (SELECT count(*) FROM (
                       SELECT FROM runs
                       WHERE runs.tenant_id = acting.tenant_id AND status = 'queued' LIMIT $12
                   ) AS waiting) < $12
            -- Waits for another transaction with this key, and yields no row if that commits.
            ON CONFLICT (tenant_id, key) DO NOTHING
            RETURNING tenant_id, run_id
        )
        INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                          thread_id, api_key_id, metadata, cancel_on_disconnect, metered)
        SELECT won.tenant_id, won.run_id, $3::text, $4::text::json, $5, $6, $7, $8, $9,
               $10::text::json, $11, $15
        FROM won
        ",
        tenant.as_uuid(),
        run.id.as_uuid(),
        run.lane.as_str(),
        spec,
        &*columns::text(&run.spec.model),
        &*columns::text(&run.spec.agent.name),
        int4(run.spec.agent.version),
        run.thread_id.map(|thread| thread.as_uuid()),
        run.api_key_id.map(|key| key.as_uuid()),
        run.metadata.map(RawValue::get),
        run.cancel_on_disconnect,
        int8(u64::from(tenant_limit)),
        key.key,
        key.fingerprint.as_slice(),
        run.api_key_id.is_some() && run.metered.is_some(),
    )
    .execute(executor)
    .await?;
    Ok(done.rows_affected() == 1)
}
