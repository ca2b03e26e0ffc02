//! Lists of threads, and the search in them. A search by metadata reads an index, `thread_fields`; one by
//! title reads the titles from the newest on, until its page is full.

use std::collections::BTreeMap;

use baton_protocol::ThreadId;
use uuid::Uuid;

use super::{Row, ThreadRecord};
use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A filter of threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadFilter<'a> {
    /// Only threads with this text in their title, in upper or lower case.
    pub title: Option<&'a str>,
    /// Only threads that have all of these fields in their metadata.
    pub metadata: Option<&'a BTreeMap<String, String>>,
}

/// A page of the list of threads.
#[derive(Debug, Clone)]
pub struct ThreadPage {
    /// The threads, the newest first.
    pub data: Vec<ThreadRecord>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<ThreadId>,
}

impl TenantTx {
    /// Returns the tenant's threads, the newest first: at most `limit` of those before `cursor`.
    pub async fn list_threads(
        &mut self,
        filter: &ThreadFilter<'_>,
        cursor: Option<ThreadId>,
        limit: u32,
    ) -> Result<ThreadPage, StoreError> {
        let cursor = cursor.map_or(Uuid::max(), |cursor| cursor.as_uuid());
        let rows = match filter.metadata {
            Some(fields) => self.threads_with(fields, filter, cursor, limit).await?,
            None => self.threads_before(filter, cursor, limit).await?,
        };
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked_for;
        let rows = rows.into_iter().take(asked_for);
        let data = rows.map(Row::read).collect::<Result<Vec<_>, _>>()?;
        Ok(ThreadPage {
            next_cursor: data.last().filter(|_| more).map(|thread| thread.id),
            data,
        })
    }

    async fn threads_before(
        &mut self,
        filter: &ThreadFilter<'_>,
        cursor: Uuid,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let tenant = self.tenant;
        let title = filter.title.map(columns::text);
        let rows = sqlx::query_as!(
            Row,
            "
            -- threads.list
            SELECT id, title, metadata::text AS metadata, title_model, created_at
            FROM threads
            WHERE tenant_id = $1 AND id < $2 AND deleted_at IS NULL
              AND ($3::text IS NULL OR strpos(lower(title), lower($3)) > 0)
            ORDER BY id DESC
            LIMIT $4
            ",
            tenant.as_uuid(),
            cursor,
            title.as_deref(),
            i64::from(limit) + 1,
        )
        .fetch_all(self.connection())
        .await?;
        Ok(rows)
    }

    /// Reads the threads with the rarest of these fields, by its index, and leaves out those without the
    /// others.
    async fn threads_with(
        &mut self,
        fields: &BTreeMap<String, String>,
        filter: &ThreadFilter<'_>,
        cursor: Uuid,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let Some((name, value)) = self.rarest_field(fields).await? else {
            return self.threads_before(filter, cursor, limit).await;
        };
        let tenant = self.tenant;
        let title = filter.title.map(columns::text);
        let fields = serde_json::to_string(fields).map_err(StoreError::Encode)?;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- threads.with_fields
            SELECT t.id, t.title, t.metadata::text AS metadata, t.title_model, t.created_at
            FROM thread_fields AS field
            JOIN threads AS t ON t.tenant_id = field.tenant_id AND t.id = field.thread_id
            WHERE field.tenant_id = $1 AND field.name = $2 AND field.value = $3
              AND field.thread_id < $4 AND t.deleted_at IS NULL
              AND ($5::text IS NULL OR strpos(lower(t.title), lower($5)) > 0)
              AND t.metadata::jsonb @> $6::text::jsonb
            ORDER BY field.thread_id DESC
            LIMIT $7
            "#,
            tenant.as_uuid(),
            name,
            value,
            cursor,
            title.as_deref(),
            fields,
            i64::from(limit) + 1,
        )
        .fetch_all(self.connection())
        .await?;
        Ok(rows)
    }

    /// Returns the field that the fewest threads have, as far as few are counted; `None` if there is no
    /// field.
    async fn rarest_field<'f>(
        &mut self,
        fields: &'f BTreeMap<String, String>,
    ) -> Result<Option<(&'f str, &'f str)>, StoreError> {
        let mut all: Vec<(&str, &str)> = Vec::with_capacity(fields.len());
        all.extend(fields.iter().map(|(name, value)| (&**name, &**value)));
        if all.len() < 2 {
            return Ok(all.pop());
        }
        let (names, values): (Vec<String>, Vec<String>) = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .unzip();
        let tenant = self.tenant;
        let place = sqlx::query_scalar!(
            r#"
            -- threads.rarest_field
            SELECT asked.place AS "place!"
            FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS asked (name, value, place)
            CROSS JOIN LATERAL (
                SELECT count(*) AS threads
                FROM (
                    SELECT FROM thread_fields AS field
                    WHERE field.tenant_id = $1 AND field.name = asked.name
                      AND field.value = asked.value
                    LIMIT 500
                ) AS few
            ) AS counted
            ORDER BY counted.threads, asked.place
            LIMIT 1
            "#,
            tenant.as_uuid(),
            &names,
            &values,
        )
        .fetch_one(self.connection())
        .await?;
        let at = usize::try_from(place - 1).unwrap_or(0);
        Ok(all.get(at).copied())
    }
}
