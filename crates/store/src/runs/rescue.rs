//! Repairs after crashes: a `running` run with an expired lease goes back to `queued`, and a queued
//! run without a job gets a new one.

use std::time::Duration;

use baton_protocol::{Lane, RunId, RunStatus, TenantId, WorkerId};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns::{self, int8};
use crate::errors::StoreError;
use crate::system::SystemTx;

/// A queued run, with the data of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedJob {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The lane of its job.
    pub lane: Lane,
    /// The time at which a job became due, by the database's clock.
    pub queued_at: DateTime<Utc>,
    /// The time at which the scheduler last published one, by the database's clock.
    pub published_at: Option<DateTime<Utc>>,
}

impl QueuedJob {
    /// Returns the time at which a job was last due or published. A job that was stored before it
    /// may be gone.
    pub fn last_due_at(&self) -> DateTime<Utc> {
        self.published_at
            .map_or(self.queued_at, |published| published.max(self.queued_at))
    }
}

/// The version of a run's row when it was read, which shows later whether the row was written to
/// since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowState {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The id of the transaction that wrote the row.
    version: i64,
}

/// The number of runs in one state of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStat {
    /// The lane.
    pub lane: Lane,
    /// `queued`, `running` or `awaiting_approval`.
    pub status: RunStatus,
    /// The number.
    pub count: u64,
    /// The time for which the oldest has waited for a worker, or the time since its first claim.
    pub oldest: Duration,
}

/// A row of a queued run.
pub(crate) struct Row {
    pub(crate) tenant_id: Uuid,
    pub(crate) id: Uuid,
    pub(crate) lane: String,
    pub(crate) queued_at: DateTime<Utc>,
    pub(crate) published_at: Option<DateTime<Utc>>,
}

impl Row {
    pub(crate) fn read(self) -> Result<QueuedJob, StoreError> {
        Ok(QueuedJob {
            tenant: TenantId::from_uuid(self.tenant_id),
            run: RunId::from_uuid(self.id),
            lane: columns::lane(&self.lane)?,
            queued_at: self.queued_at,
            published_at: self.published_at,
        })
    }
}

impl SystemTx<'_> {
    /// Requeues at most `limit` runs with an expired lease; each keeps its failure. Their jobs must
    /// be published, then reported to [`SystemTx::mark_published`].
    pub async fn requeue_expired(&self, limit: u32) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- runs.requeue_expired
            WITH lost AS (
                SELECT tenant_id, id FROM runs
                WHERE status = 'running' AND lease_expires_at <= clock_timestamp()
                LIMIT $1
                -- What is locked is being claimed, renewed or ended at this moment.
                FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE runs SET
                status = 'queued',
                lease_expires_at = NULL,
                released_by = 'lease_expired',
                queued_at = clock_timestamp()
            FROM lost
            WHERE runs.tenant_id = lost.tenant_id AND runs.id = lost.id
              AND runs.status = 'running' AND runs.lease_expires_at <= clock_timestamp()
            RETURNING runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at,
                      runs.published_at
            "#,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }

    /// Returns the workers that hold runs.
    pub async fn holders(&self) -> Result<Vec<WorkerId>, StoreError> {
        let holders = sqlx::query_scalar!(
            r#"
            -- runs.holders
            SELECT DISTINCT worker_id AS "worker!" FROM runs
            WHERE status = 'running' AND worker_id IS NOT NULL
            "#,
        )
        .fetch_all(self.pool)
        .await?;
        Ok(holders.into_iter().map(WorkerId::from_uuid).collect())
    }

    /// Returns the runs that a worker holds, at most `limit`, each with the version of its row.
    pub async fn held_by(&self, worker: WorkerId, limit: u32) -> Result<Vec<RowState>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- runs.held_by
            SELECT tenant_id, id, xmin::text::bigint AS "version!" FROM runs
            WHERE status = 'running' AND worker_id = $1
            LIMIT $2
            "#,
            worker.as_uuid(),
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| RowState {
                tenant: TenantId::from_uuid(row.tenant_id),
                run: RunId::from_uuid(row.id),
                version: row.version,
            })
            .collect())
    }

    /// Requeues those of a worker's runs that were not written to since these versions were read,
    /// before their leases expire; each keeps its failure. Their jobs must be published, then
    /// reported to [`SystemTx::mark_published`].
    ///
    /// Every confirmation to a holder, be it a renewal or a commit, writes to the run's row. So a
    /// run that is requeued here was not confirmed to its holder since the versions were read.
    pub async fn requeue_silent(
        &self,
        worker: WorkerId,
        silent: &[RowState],
    ) -> Result<Vec<QueuedJob>, StoreError> {
        let tenants: Vec<Uuid> = silent.iter().map(|row| row.tenant.as_uuid()).collect();
        let runs: Vec<Uuid> = silent.iter().map(|row| row.run.as_uuid()).collect();
        let versions: Vec<i64> = silent.iter().map(|row| row.version).collect();
        sqlx::query_as!(
            Row,
            r#"
            -- runs.requeue_silent
            WITH lost AS (
                SELECT runs.tenant_id, runs.id
                FROM runs
                JOIN unnest($2::uuid[], $3::uuid[], $4::bigint[]) AS seen (tenant_id, id, version)
                  ON runs.tenant_id = seen.tenant_id AND runs.id = seen.id
                 AND runs.xmin::text::bigint = seen.version
                WHERE runs.status = 'running' AND runs.worker_id = $1
                -- What is locked is being renewed, committed or ended at this moment.
                FOR NO KEY UPDATE OF runs SKIP LOCKED
            )
            UPDATE runs SET
                status = 'queued',
                lease_expires_at = NULL,
                released_by = 'worker_lost',
                queued_at = clock_timestamp()
            FROM lost
            WHERE runs.tenant_id = lost.tenant_id AND runs.id = lost.id
              AND runs.status = 'running' AND runs.worker_id = $1
            RETURNING runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at,
                      runs.published_at
            "#,
            worker.as_uuid(),
            &tenants,
            &runs,
            &versions,
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }

    /// Returns queued runs for which no job was due or published for `older_than`, the oldest
    /// first, at most `limit`. Only the broker knows whether their job is gone. Runs that wait for
    /// their thread are left out.
    pub async fn unpublished(
        &self,
        older_than: Duration,
        limit: u32,
    ) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- runs.unpublished
            SELECT tenant_id, id, lane AS "lane!", queued_at, published_at
            FROM runs
            WHERE status = 'queued'
              AND greatest(queued_at, published_at) <= clock_timestamp() - $1::interval
              AND (thread_id IS NULL OR NOT EXISTS (
                  SELECT FROM runs AS active
                  WHERE active.tenant_id = runs.tenant_id AND active.thread_id = runs.thread_id
                    AND active.status IN ('running', 'awaiting_approval')))
            ORDER BY queued_at
            LIMIT $2
            "#,
            older_than as _,
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }

    /// Records that jobs for these runs were published just now. Returns the number of those runs
    /// that were still queued.
    pub async fn mark_published(&self, runs: &[(TenantId, RunId)]) -> Result<u64, StoreError> {
        let tenants: Vec<Uuid> = runs.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let ids: Vec<Uuid> = runs.iter().map(|(_, run)| run.as_uuid()).collect();
        let done = sqlx::query!(
            "
            -- runs.mark_published
            UPDATE runs SET published_at = clock_timestamp()
            FROM unnest($1::uuid[], $2::uuid[]) AS published (tenant_id, id)
            WHERE runs.tenant_id = published.tenant_id AND runs.id = published.id
              AND runs.status = 'queued'
            ",
            &tenants,
            &ids,
        )
        .execute(self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Counts the runs that have not ended, by lane and state; groups without a run are left out.
    pub async fn queue_stats(&self) -> Result<Vec<QueueStat>, StoreError> {
        sqlx::query!(
            r#"
            -- runs.queue_stats
            SELECT 'queued' AS "status!", lane AS "lane!", count(*) AS "count!",
                   extract(epoch FROM clock_timestamp() - min(queued_at))::float8 AS "oldest!"
            FROM runs WHERE status = 'queued' GROUP BY lane
            UNION ALL
            SELECT 'running', lane, count(*),
                   extract(epoch FROM clock_timestamp() - min(started_at))::float8
            FROM runs WHERE status = 'running' GROUP BY lane
            UNION ALL
            SELECT 'awaiting_approval', lane, count(*),
                   extract(epoch FROM clock_timestamp() - min(started_at))::float8
            FROM runs WHERE status = 'awaiting_approval' GROUP BY lane
            "#,
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(|row| {
            Ok(QueueStat {
                lane: columns::lane(&row.lane)?,
                status: columns::status(&row.status)?,
                count: columns::number(row.count),
                oldest: Duration::try_from_secs_f64(row.oldest).unwrap_or_default(),
            })
        })
        .collect()
    }
}
