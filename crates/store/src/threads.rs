//! The table `threads`.

mod list;
mod titles;

use baton_protocol::{TenantId, ThreadId};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

pub use self::list::{ThreadFilter, ThreadPage};
pub use self::titles::EndedTitleRun;

/// A stored conversation.
#[derive(Debug, Clone)]
pub struct ThreadRecord {
    /// Its id.
    pub id: ThreadId,
    /// Its title, for people.
    pub title: Option<String>,
    /// The client's metadata, a JSON object.
    pub metadata: Option<Box<RawValue>>,
    /// The model to ask for a title when a run joins it.
    pub title_model: Option<String>,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
}

/// A change of a thread. A field that is `None` stays; `Some(None)` clears it. A change of the title ends the
/// wish for one, unless it names a model too.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::option_option,
    reason = "a field may be absent, cleared or set"
)]
pub struct ThreadChange<'a> {
    /// The title.
    pub title: Option<Option<&'a str>>,
    /// The metadata, a JSON object.
    pub metadata: Option<Option<&'a RawValue>>,
    /// The model to ask for a title.
    pub title_model: Option<Option<&'a str>>,
}

/// A thread that is locked.
#[derive(Debug)]
pub(crate) struct LockedThread {
    /// Whether a run of it has not ended.
    pub(crate) is_busy: bool,
    /// The model to ask for its title, if it wants one.
    pub(crate) title_model: Option<String>,
}

/// The outcome of [`TenantTx::delete_thread`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadDeletion {
    /// It is deleted, once the transaction is committed.
    Deleted,
    /// A run of it has not ended.
    Busy,
    /// The tenant has no such thread.
    NotFound,
}

struct Row {
    id: Uuid,
    title: Option<String>,
    metadata: Option<String>,
    title_model: Option<String>,
    created_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<ThreadRecord, StoreError> {
        Ok(ThreadRecord {
            id: ThreadId::from_uuid(self.id),
            title: self.title,
            metadata: self
                .metadata
                .map(|metadata| columns::json("threads.metadata", metadata))
                .transpose()?,
            title_model: self.title_model,
            created_at: self.created_at,
        })
    }
}

impl TenantTx {
    /// Makes a thread.
    pub async fn create_thread(
        &mut self,
        id: ThreadId,
        title: Option<&str>,
        metadata: Option<&RawValue>,
    ) -> Result<ThreadRecord, StoreError> {
        let tenant = self.tenant;
        let title = title.map(columns::text);
        let row = sqlx::query_as!(
            Row,
            "
            -- threads.create
            INSERT INTO threads (tenant_id, id, title, metadata)
            VALUES ($1, $2, $3, $4::text::json)
            RETURNING id, title, metadata::text AS metadata, title_model, created_at
            ",
            tenant.as_uuid(),
            id.as_uuid(),
            title.as_deref(),
            metadata.map(RawValue::get),
        )
        .fetch_one(self.connection())
        .await?;
        row.read()
    }

    /// Returns the thread with this id, unless it is deleted.
    pub async fn thread(&mut self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            "
            -- threads.by_id
            SELECT id, title, metadata::text AS metadata, title_model, created_at
            FROM threads WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Changes a thread and returns it; `None` if the tenant has no such thread.
    pub async fn change_thread(
        &mut self,
        id: ThreadId,
        change: &ThreadChange<'_>,
    ) -> Result<Option<ThreadRecord>, StoreError> {
        let tenant = self.tenant;
        let title = change.title.flatten().map(columns::text);
        let title_model = change.title_model.flatten().map(columns::text);
        let row = sqlx::query_as!(
            Row,
            "
            -- threads.change
            UPDATE threads SET
                title = CASE WHEN $3 THEN $4 ELSE title END,
                metadata = CASE WHEN $5 THEN $6::text::json ELSE metadata END,
                title_model = CASE WHEN $7 THEN $8 WHEN $3 THEN NULL ELSE title_model END
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            RETURNING id, title, metadata::text AS metadata, title_model, created_at
            ",
            tenant.as_uuid(),
            id.as_uuid(),
            change.title.is_some(),
            title.as_deref(),
            change.metadata.is_some(),
            change.metadata.flatten().map(RawValue::get),
            change.title_model.is_some(),
            title_model.as_deref(),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Locks a thread until the end of the transaction: no run joins it and no client appends to it
    /// meanwhile. Returns whether a run of it has not ended; `None` if there is no such thread.
    pub async fn lock_thread(&mut self, id: ThreadId) -> Result<Option<bool>, StoreError> {
        let locked = self.locked_thread(id).await?;
        Ok(locked.map(|thread| thread.is_busy))
    }

    /// As [`TenantTx::lock_thread`], with the model that is to title the thread.
    pub(crate) async fn locked_thread(
        &mut self,
        id: ThreadId,
    ) -> Result<Option<LockedThread>, StoreError> {
        let tenant = self.tenant;
        let locked = sqlx::query_scalar!(
            "
            -- threads.lock
            SELECT CASE WHEN title IS NULL THEN title_model END AS title_model FROM threads
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            FOR NO KEY UPDATE
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(title_model) = locked else {
            return Ok(None);
        };
        // This is a separate statement, because only a new snapshot shows a run that was committed
        // while the lock was waited for.
        let busy = sqlx::query_scalar!(
            r#"
            -- threads.is_busy
            SELECT EXISTS (
                SELECT FROM runs
                WHERE tenant_id = $1 AND thread_id = $2 AND finished_at IS NULL
            ) AS "busy!"
            "#,
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_one(self.connection())
        .await?;
        Ok(Some(LockedThread {
            is_busy: busy,
            title_model,
        }))
    }

    /// Deletes a thread, unless one of its runs has not ended. From the commit on no request finds
    /// it; [`SystemTx::purge_thread`] removes its rows.
    pub async fn delete_thread(&mut self, id: ThreadId) -> Result<ThreadDeletion, StoreError> {
        match self.lock_thread(id).await? {
            None => return Ok(ThreadDeletion::NotFound),
            Some(true) => return Ok(ThreadDeletion::Busy),
            Some(false) => {}
        }
        let tenant = self.tenant;
        sqlx::query!(
            "
            -- threads.delete
            UPDATE threads SET deleted_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(ThreadDeletion::Deleted)
    }
}

/// The number of rows that a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Runs, each with its steps, messages and approvals.
    pub runs: u64,
    /// Messages of threads.
    pub messages: u64,
    /// Threads.
    pub threads: u64,
}

impl SystemTx<'_> {
    /// Returns at most `limit` deleted threads that still have rows.
    pub async fn deleted_threads(
        &self,
        limit: u32,
    ) -> Result<Vec<(TenantId, ThreadId)>, StoreError> {
        let rows = sqlx::query!(
            "
            -- threads.deleted
            SELECT tenant_id, id FROM threads WHERE deleted_at IS NOT NULL LIMIT $1
            ",
            i64::from(limit),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                (
                    TenantId::from_uuid(row.tenant_id),
                    ThreadId::from_uuid(row.id),
                )
            })
            .collect())
    }

    /// Removes at most `limit` runs and `limit` messages of a deleted thread, and the thread itself
    /// once it has neither. Usage entries stay.
    pub async fn purge_thread(
        &self,
        tenant: TenantId,
        thread: ThreadId,
        limit: u32,
    ) -> Result<Purged, StoreError> {
        let row = sqlx::query!(
            r#"
            -- threads.purge_content
            WITH doomed AS MATERIALIZED (
                SELECT id FROM runs
                WHERE tenant_id = $1 AND thread_id = $2
                  AND EXISTS (SELECT FROM threads
                              WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NOT NULL)
                ORDER BY id LIMIT $3
            ), gone_steps AS (
                DELETE FROM steps WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_attempts AS (
                DELETE FROM attempts WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_messages AS (
                DELETE FROM messages WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_inputs AS (
                DELETE FROM run_inputs WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_approvals AS (
                DELETE FROM approvals WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_grants AS (
                DELETE FROM approval_grants WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_routes AS (
                DELETE FROM turn_routes WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_feedback AS (
                DELETE FROM run_feedback WHERE tenant_id = $1 AND run_id IN (SELECT id FROM doomed)
            ), gone_runs AS (
                DELETE FROM runs WHERE tenant_id = $1 AND id IN (SELECT id FROM doomed)
                RETURNING id
            ), gone AS (
                DELETE FROM thread_messages
                WHERE tenant_id = $1 AND thread_id = $2
                  AND position IN (
                      SELECT position FROM thread_messages
                      WHERE tenant_id = $1 AND thread_id = $2
                        AND EXISTS (SELECT FROM threads
                                    WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NOT NULL)
                      ORDER BY position LIMIT $3)
                RETURNING position
            )
            SELECT (SELECT count(*) FROM gone_runs) AS "runs!",
                   (SELECT count(*) FROM gone) AS "messages!"
            "#,
            tenant.as_uuid(),
            thread.as_uuid(),
            i64::from(limit),
        )
        .fetch_one(self.pool)
        .await?;
        let mut purged = Purged {
            runs: columns::number(row.runs),
            messages: columns::number(row.messages),
            threads: 0,
        };
        if purged == Purged::default() {
            let done = sqlx::query!(
                "
                -- threads.purge
                DELETE FROM threads WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NOT NULL
                ",
                tenant.as_uuid(),
                thread.as_uuid(),
            )
            .execute(self.pool)
            .await?;
            purged.threads = done.rows_affected();
        }
        Ok(purged)
    }
}
