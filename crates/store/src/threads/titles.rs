//! Titles of threads by a model: the wish for one, the run that a wish becomes, and the title that its
//! answer yields. A title that a person gave is never replaced.

use baton_protocol::{FinishReason, RunId, TenantId, ThreadId};
use serde_json::value::RawValue;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// A run that was to title a thread and has ended.
#[derive(Debug)]
pub struct EndedTitleRun {
    /// The owner.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The thread.
    pub thread: ThreadId,
    /// The reason for which it completed; `None` if it failed or was cancelled.
    pub finish_reason: Option<FinishReason>,
    /// The message of its model, if there is one.
    pub message: Option<Box<RawValue>>,
}

impl TenantTx {
    /// Locks a thread that wants a title. Returns `false` if it wants none, or does not exist.
    pub(crate) async fn lock_untitled(&mut self, thread: ThreadId) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let locked = sqlx::query_scalar!(
            "
            -- threads.lock_untitled
            SELECT id FROM threads
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
              AND title IS NULL AND title_model IS NOT NULL
            FOR NO KEY UPDATE
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(locked.is_some())
    }

    /// Notes that a run is to title a thread, which [`TenantTx::lock_untitled`] has locked.
    pub(crate) async fn take_title_wish(
        &mut self,
        thread: ThreadId,
        run: RunId,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant;
        let noted = sqlx::query!(
            "
            -- threads.take_title_wish
            WITH taken AS (
                UPDATE threads SET title_model = NULL WHERE tenant_id = $1 AND id = $2
                RETURNING id
            )
            UPDATE runs SET titles = taken.id
            FROM taken
            WHERE tenant_id = $1 AND runs.id = $3
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
            run.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        if noted.rows_affected() == 1 {
            return Ok(());
        }
        Err(StoreError::unreadable("runs.titles", &run.to_string()))
    }
}

impl SystemTx<'_> {
    /// Returns at most `limit` runs that were to title threads and have ended.
    pub async fn ended_title_runs(&self, limit: u32) -> Result<Vec<EndedTitleRun>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- threads.ended_title_runs
            SELECT runs.tenant_id, runs.id, runs.titles AS "titles!",
                   runs.finish_reason::text AS finish_reason, said.message AS "message?"
            FROM runs
            LEFT JOIN LATERAL (
                SELECT message::text AS message FROM messages
                WHERE messages.tenant_id = runs.tenant_id AND messages.run_id = runs.id
                ORDER BY step DESC LIMIT 1
            ) AS said ON true
            WHERE runs.titles IS NOT NULL AND runs.finished_at IS NOT NULL
            ORDER BY runs.tenant_id, runs.id LIMIT $1
            "#,
            i64::from(limit),
        )
        .fetch_all(self.pool)
        .await?;
        let read = rows.into_iter().map(|row| {
            let reason = row.finish_reason;
            let reason = reason.map(|reason| columns::finish_reason("runs.finish_reason", &reason));
            let message = row.message;
            let message = message.map(|message| columns::json("messages.message", message));
            Ok(EndedTitleRun {
                tenant: TenantId::from_uuid(row.tenant_id),
                run: RunId::from_uuid(row.id),
                thread: ThreadId::from_uuid(row.titles),
                finish_reason: reason.transpose()?,
                message: message.transpose()?,
            })
        });
        read.collect()
    }

    /// Uses the answer of an ended run: gives its thread this title, unless the thread has one by now.
    /// Returns whether it did.
    pub async fn give_title(
        &self,
        ended: &EndedTitleRun,
        title: Option<&str>,
    ) -> Result<bool, StoreError> {
        let title = title.map(columns::text);
        let given = sqlx::query_scalar!(
            r#"
            -- threads.give_title
            WITH used AS (
                UPDATE runs SET titles = NULL
                WHERE tenant_id = $1 AND id = $2 AND titles = $3 AND finished_at IS NOT NULL
                RETURNING id
            ), given AS (
                UPDATE threads SET title = $4
                FROM used
                WHERE tenant_id = $1 AND threads.id = $3 AND deleted_at IS NULL
                  AND title IS NULL AND $4::text IS NOT NULL
                RETURNING threads.id
            )
            SELECT count(*) AS "given!" FROM given
            "#,
            ended.tenant.as_uuid(),
            ended.run.as_uuid(),
            ended.thread.as_uuid(),
            title.as_deref(),
        )
        .fetch_one(self.pool)
        .await?;
        Ok(given == 1)
    }
}
