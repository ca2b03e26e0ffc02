//! The table `threads`.

use baton_protocol::ThreadId;
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A stored conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRecord {
    /// Its id.
    pub id: ThreadId,
    /// Its title, for people.
    pub title: Option<String>,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
}

impl TenantTx {
    /// Makes a thread.
    pub async fn create_thread(
        &mut self,
        id: ThreadId,
        title: Option<&str>,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant;
        let title = title.map(columns::text);
        sqlx::query!(
            "
            -- threads.create
            INSERT INTO threads (tenant_id, id, title) VALUES ($1, $2, $3)
            ",
            tenant.as_uuid(),
            id.as_uuid(),
            title.as_deref(),
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Returns the thread with this id.
    pub async fn thread(&mut self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query!(
            "
            -- threads.by_id
            SELECT id, title, created_at FROM threads WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(|row| ThreadRecord {
            id: ThreadId::from_uuid(row.id),
            title: row.title,
            created_at: row.created_at,
        }))
    }
}
