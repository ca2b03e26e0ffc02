//! The monthly partitions of the audit log. The scheduler makes them ahead of need; the owner drops
//! them.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};

use crate::audit::AuditEntry;
use crate::errors::StoreError;
use crate::system::SystemTx;

/// The number of future months that have a partition.
const AHEAD: i32 = 3;

/// A partition that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedPart {
    /// The table's name.
    pub name: String,
    /// Its size on disk, indexes included, in bytes.
    pub bytes: u64,
}

/// A reason why no partition was dropped.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The owner's address cannot be parsed.
    #[error("the database's address cannot be read")]
    Address(#[source] sqlx::Error),
    /// The day is in the future, so that the current month would be dropped too.
    #[error("{0} is in the future: only months that have ended can be dropped")]
    Future(NaiveDate),
    /// The database cannot be reached, or refused.
    #[error("the database is not available, or refused; if it was a lock, try again")]
    Database(#[from] sqlx::Error),
}

impl SystemTx<'_> {
    /// Makes the partitions of the audit log for the month of `at` and for the months after it.
    /// Returns the names of those that were missing.
    pub async fn extend_audit_log(&self, at: DateTime<Utc>) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"
            -- audit_log.extend
            SELECT make_audit_parts($1, $2) AS "name!"
            "#,
            at,
            AHEAD,
        )
        .fetch_all(self.pool)
        .await?)
    }
}

/// Drops the partitions of the audit log for months that ended by `before`, as the owner. The audit
/// entry about it is part of the same commit and has the names in its detail. If nothing is
/// dropped, no entry is written.
pub async fn prune_audit_log(
    owner_url: &str,
    before: NaiveDate,
    today: NaiveDate,
    entry: &AuditEntry,
) -> Result<Vec<DroppedPart>, PruneError> {
    if before > today {
        return Err(PruneError::Future(before));
    }
    let options: PgConnectOptions = owner_url.parse().map_err(PruneError::Address)?;
    let mut connection = PgConnection::connect_with(&options).await?;
    let dropped = prune(&mut connection, before, entry).await;
    // Closing the connection rolls back a transaction that is still open.
    let _ = connection.close().await;
    dropped
}

async fn prune(
    connection: &mut PgConnection,
    before: NaiveDate,
    entry: &AuditEntry,
) -> Result<Vec<DroppedPart>, PruneError> {
    raw_sql("BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL TIME ZONE 'UTC'")
        .execute(&mut *connection)
        .await?;
    let parts: Vec<(String, i64)> = sqlx::query_as(
        r"
        -- audit_log.parts_before
        SELECT c.oid::regclass::text, pg_total_relation_size(c.oid)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'audit_log'::regclass
          AND substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz
              <= $1::date
        ORDER BY 1
        ",
    )
    .bind(before)
    .fetch_all(&mut *connection)
    .await?;
    for (name, _) in &parts {
        // The name comes from the catalogue, which has quoted it.
        raw_sql(AssertSqlSafe(format!("DROP TABLE {name}")))
            .execute(&mut *connection)
            .await?;
    }
    let mut dropped: Vec<_> = parts.into_iter().map(DroppedPart::from).collect();
    dropped.extend(prune_default(connection, before).await?);
    if !dropped.is_empty() {
        record(connection, &dropped, entry).await?;
    }
    raw_sql("COMMIT").execute(connection).await?;
    Ok(dropped)
}

/// Drops the default partition if all its entries are old enough, and makes a new one.
async fn prune_default(
    connection: &mut PgConnection,
    before: NaiveDate,
) -> Result<Option<DroppedPart>, sqlx::Error> {
    // Forced row-level security would hide the rows from the owner. Nobody else sees the change
    // before the commit.
    raw_sql("ALTER TABLE audit_log_default NO FORCE ROW LEVEL SECURITY")
        .execute(&mut *connection)
        .await?;
    let (is_old, bytes): (Option<bool>, i64) = sqlx::query_as(
        "SELECT max(at) < $1::date, pg_total_relation_size('audit_log_default')
         FROM audit_log_default",
    )
    .bind(before)
    .fetch_one(&mut *connection)
    .await?;
    if is_old != Some(true) {
        raw_sql("ALTER TABLE audit_log_default FORCE ROW LEVEL SECURITY")
            .execute(connection)
            .await?;
        return Ok(None);
    }
    raw_sql("DROP TABLE audit_log_default; SELECT make_default_audit_part()")
        .execute(connection)
        .await?;
    Ok(Some(DroppedPart::from((
        "audit_log_default".to_owned(),
        bytes,
    ))))
}

async fn record(
    connection: &mut PgConnection,
    dropped: &[DroppedPart],
    entry: &AuditEntry,
) -> Result<(), sqlx::Error> {
    let names: Vec<_> = dropped.iter().map(|part| part.name.as_str()).collect();
    // Forced row-level security would keep the owner from adding a row.
    raw_sql("ALTER TABLE audit_log NO FORCE ROW LEVEL SECURITY")
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "
        -- audit_log.add_pruned
        INSERT INTO audit_log (id, actor_kind, actor, action, target, result, detail)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ",
    )
    .bind(entry.id.as_uuid())
    .bind(entry.actor_kind.as_str())
    .bind(entry.actor.as_deref())
    .bind(entry.action)
    .bind(entry.target.as_deref())
    .bind(entry.result.as_str())
    .bind(names.join(" "))
    .execute(&mut *connection)
    .await?;
    raw_sql("ALTER TABLE audit_log FORCE ROW LEVEL SECURITY")
        .execute(connection)
        .await?;
    Ok(())
}

impl From<(String, i64)> for DroppedPart {
    fn from((name, bytes): (String, i64)) -> Self {
        Self {
            name,
            bytes: u64::try_from(bytes).unwrap_or_default(),
        }
    }
}
