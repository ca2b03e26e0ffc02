//! → `queued`: a run is accepted. Its row, its idempotency key and the check of the queue limits
//! are one commit; once that stands, the run is never lost.

use baton_protocol::{ApiKeyId, Lane, RunId, RunSpec, ThreadId};
use serde_json::value::RawValue;

use crate::columns::{self, int4, int8};
use crate::errors::StoreError;
use crate::idempotency_keys::IdempotencyKey;
use crate::tenant_tx::TenantTx;

/// A run to be accepted.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// Its id, a UUIDv7 of now: lists are sorted by it.
    pub id: RunId,
    /// Which queue it waits in.
    pub lane: Lane,
    /// What is to be done.
    pub spec: &'a RunSpec,
    /// The thread it continues.
    pub thread_id: Option<ThreadId>,
    /// The key it was submitted with.
    pub api_key_id: Option<ApiKeyId>,
    /// The client's own words about it, a JSON object.
    pub metadata: Option<&'a RawValue>,
    /// Whether the caller's going away cancels it.
    pub cancel_on_disconnect: bool,
    /// What makes the submission repeatable.
    pub idempotency: Option<&'a IdempotencyKey>,
}

/// How many runs may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of one tenant: counted in the accepting transaction.
    pub tenant: u32,
    /// Of all: held to an estimate that is at most half a second old.
    pub system: u32,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It is accepted, once the transaction is committed.
    Created,
    /// The same key has made this run before, of the same body.
    Replay {
        /// The run.
        run: RunId,
    },
    /// The same key has made a run before, of another body.
    KeyReused,
    /// Too many runs of this tenant are waiting. Nothing was written.
    TenantQueueFull {
        /// The limit that was met.
        limit: u32,
    },
    /// Too many runs are waiting. Nothing was written.
    SystemQueueFull {
        /// The limit that was met.
        limit: u32,
    },
}

impl TenantTx {
    /// Accepts a run within the limits. It is accepted when [`TenantTx::commit`] has returned; a
    /// commit whose answer was lost is repeated safely under an idempotency key.
    ///
    /// Of several transactions with one key the first wins; the others wait for its commit and then
    /// see [`Accept::Replay`].
    pub async fn accept_run(
        &mut self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        let system_full = self.depth.reaches(limits.system).await?;
        let refusal = if system_full {
            Accept::SystemQueueFull {
                limit: limits.system,
            }
        } else {
            let spec = serde_json::to_string(run.spec).map_err(StoreError::Encode)?;
            let created = match run.idempotency {
                None => self.insert_run(run, &spec, limits.tenant).await?,
                Some(key) => {
                    self.insert_keyed_run(run, key, &spec, limits.tenant)
                        .await?
                }
            };
            if created {
                return Ok(Accept::Created);
            }
            Accept::TenantQueueFull {
                limit: limits.tenant,
            }
        };
        // A repetition of what was accepted is answered however full the queue is. This statement
        // sees what the transaction that won the key has committed meanwhile.
        if let Some(key) = run.idempotency
            && let Some(used) = self.used_key(&key.key).await?
        {
            return Ok(if used.fingerprint == key.fingerprint {
                Accept::Replay { run: used.run }
            } else {
                Accept::KeyReused
            });
        }
        Ok(refusal)
    }

    async fn insert_run(
        &mut self,
        run: &NewRun<'_>,
        spec: &str,
        tenant_limit: u32,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- runs.accept
            INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                              thread_id, api_key_id, metadata, cancel_on_disconnect)
            SELECT $1, $2, $3::text, $4::text::json, $5, $6, $7, $8, $9, $10::text::json, $11
            WHERE (SELECT count(*) FROM (
                       SELECT FROM runs WHERE tenant_id = $1 AND status = 'queued' LIMIT $12
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
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn insert_keyed_run(
        &mut self,
        run: &NewRun<'_>,
        key: &IdempotencyKey,
        spec: &str,
        tenant_limit: u32,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- runs.accept_keyed
            WITH won AS (
                INSERT INTO idempotency_keys (tenant_id, key, fingerprint, run_id)
                SELECT $1, $13, $14, $2
                WHERE (SELECT count(*) FROM (
                           SELECT FROM runs WHERE tenant_id = $1 AND status = 'queued' LIMIT $12
                       ) AS waiting) < $12
                -- Waits for another transaction with this key, and yields no row if that commits.
                ON CONFLICT (tenant_id, key) DO NOTHING
                RETURNING run_id
            )
            INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                              thread_id, api_key_id, metadata, cancel_on_disconnect)
            SELECT $1, won.run_id, $3::text, $4::text::json, $5, $6, $7, $8, $9, $10::text::json,
                   $11
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
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
