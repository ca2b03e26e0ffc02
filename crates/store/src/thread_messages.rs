//! The table `thread_messages`.

use baton_protocol::{MessageId, RunId, ThreadId};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A message of a thread.
#[derive(Debug, Clone)]
pub struct ThreadMessage {
    /// Its id.
    pub id: MessageId,
    /// Its place in the thread, rising from 1.
    pub position: u64,
    /// The run that it was sent to, or that wrote it; `None` if a client appended it.
    pub run_id: Option<RunId>,
    /// The message, an OpenAI chat message.
    pub message: Box<RawValue>,
    /// The time at which it was added.
    pub created_at: DateTime<Utc>,
}

/// The order of a list of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOrder {
    /// The first message first.
    Ascending,
    /// The last message first.
    Descending,
}

/// A page of the messages of a thread.
#[derive(Debug, Clone)]
pub struct ThreadMessagePage {
    /// The messages.
    pub data: Vec<ThreadMessage>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<u64>,
}

/// The outcome of [`TenantTx::append_messages`].
#[derive(Debug, Clone)]
pub enum Append {
    /// The messages as they are stored.
    Appended(Vec<ThreadMessage>),
    /// A run of the thread has not ended.
    Busy,
    /// The tenant has no such thread.
    NotFound,
}

struct Row {
    id: Uuid,
    position: i64,
    run_id: Option<Uuid>,
    message: String,
    created_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<ThreadMessage, StoreError> {
        Ok(ThreadMessage {
            id: MessageId::from_uuid(self.id),
            position: columns::number(self.position),
            run_id: self.run_id.map(RunId::from_uuid),
            message: columns::json("thread_messages.message", self.message)?,
            created_at: self.created_at,
        })
    }
}

impl TenantTx {
    /// Appends messages to a thread, unless one of its runs has not ended: that run would not see
    /// them.
    pub async fn append_messages(
        &mut self,
        thread: ThreadId,
        messages: &[(MessageId, &RawValue)],
    ) -> Result<Append, StoreError> {
        match self.lock_thread(thread).await? {
            None => return Ok(Append::NotFound),
            Some(true) => return Ok(Append::Busy),
            Some(false) => {}
        }
        let tenant = self.tenant;
        let ids: Vec<Uuid> = messages.iter().map(|(id, _)| id.as_uuid()).collect();
        let texts: Vec<String> = messages
            .iter()
            .map(|(_, message)| message.get().to_owned())
            .collect();
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- thread_messages.append
            INSERT INTO thread_messages (tenant_id, thread_id, position, id, message)
            SELECT $1, $2, last.position + given.place, given.id, given.message::json
            FROM unnest($3::uuid[], $4::text[]) WITH ORDINALITY AS given (id, message, place),
                 (SELECT last_thread_position($1, $2) AS position) AS last
            RETURNING id, position, run_id, message::text AS "message!", created_at
            "#,
            tenant.as_uuid(),
            thread.as_uuid(),
            &ids,
            &texts,
        )
        .fetch_all(self.connection())
        .await?;
        let mut stored = rows
            .into_iter()
            .map(Row::read)
            .collect::<Result<Vec<_>, _>>()?;
        stored.sort_by_key(|message| message.position);
        Ok(Append::Appended(stored))
    }

    /// Returns a message of a thread.
    pub async fn thread_message(
        &mut self,
        thread: ThreadId,
        id: MessageId,
    ) -> Result<Option<ThreadMessage>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            r#"
            -- thread_messages.by_id
            SELECT id, position, run_id, message::text AS "message!", created_at
            FROM thread_messages WHERE tenant_id = $1 AND thread_id = $2 AND id = $3
            "#,
            tenant.as_uuid(),
            thread.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Replaces a message of a thread that [`TenantTx::lock_thread`] has locked. Returns `false` if
    /// the thread has no such message.
    pub async fn replace_thread_message(
        &mut self,
        thread: ThreadId,
        id: MessageId,
        message: &RawValue,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let replaced = sqlx::query!(
            "
            -- thread_messages.replace
            UPDATE thread_messages SET message = $4::text::json
            WHERE tenant_id = $1 AND thread_id = $2 AND id = $3
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
            id.as_uuid(),
            message.get(),
        )
        .execute(self.connection())
        .await?;
        Ok(replaced.rows_affected() == 1)
    }

    /// Deletes a message of a thread that [`TenantTx::lock_thread`] has locked. No later message gets
    /// its position. Returns `false` if the thread has no such message.
    pub async fn delete_thread_message(
        &mut self,
        thread: ThreadId,
        id: MessageId,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let deleted = sqlx::query!(
            "
            -- thread_messages.delete
            WITH gone AS (
                DELETE FROM thread_messages WHERE tenant_id = $1 AND thread_id = $2 AND id = $3
                RETURNING position
            )
            UPDATE threads SET deleted_position = greatest(deleted_position, gone.position)
            FROM gone WHERE tenant_id = $1 AND threads.id = $2
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Returns messages of a thread: at most `limit` of those after `cursor`, in this order.
    pub async fn thread_messages(
        &mut self,
        thread: ThreadId,
        order: MessageOrder,
        cursor: Option<u64>,
        limit: u32,
    ) -> Result<ThreadMessagePage, StoreError> {
        let tenant = self.tenant;
        let cursor = cursor.map(columns::int8);
        let limit_and_one = i64::from(limit) + 1;
        let rows = if order == MessageOrder::Ascending {
            sqlx::query_as!(
                Row,
                r#"
                -- thread_messages.list
                SELECT id, position, run_id, message::text AS "message!", created_at
                FROM thread_messages
                WHERE tenant_id = $1 AND thread_id = $2 AND position > $3
                ORDER BY position LIMIT $4
                "#,
                tenant.as_uuid(),
                thread.as_uuid(),
                cursor.unwrap_or(0),
                limit_and_one,
            )
            .fetch_all(self.connection())
            .await?
        } else {
            sqlx::query_as!(
                Row,
                r#"
                -- thread_messages.list_backwards
                SELECT id, position, run_id, message::text AS "message!", created_at
                FROM thread_messages
                WHERE tenant_id = $1 AND thread_id = $2 AND position < $3
                ORDER BY position DESC LIMIT $4
                "#,
                tenant.as_uuid(),
                thread.as_uuid(),
                cursor.unwrap_or(i64::MAX),
                limit_and_one,
            )
            .fetch_all(self.connection())
            .await?
        };
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked_for;
        let rows = rows.into_iter().take(asked_for);
        let data = rows.map(Row::read).collect::<Result<Vec<_>, _>>()?;
        Ok(ThreadMessagePage {
            next_cursor: data.last().filter(|_| more).map(|message| message.position),
            data,
        })
    }
}
