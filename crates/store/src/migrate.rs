//! Applies migrations, and finds those that are missing.

use std::fmt::Write as _;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, raw_sql};

/// The files of `migrations/`, part of the binary.
pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// A migration, named as its file: `4 threads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationName {
    /// The number that the file's name begins with.
    pub version: i64,
    /// The rest of the file's name.
    pub description: String,
}

impl std::fmt::Display for MigrationName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04} {}", self.version, self.description)
    }
}

/// A reason why [`migrate`] failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The owner's address cannot be parsed.
    #[error("the database's address cannot be read")]
    Address(#[source] sqlx::Error),
    /// The database cannot be reached, or refused.
    #[error("the database is not available, or refused")]
    Database(#[from] sqlx::Error),
    /// A migration failed, or a file was changed after its migration was applied.
    #[error("a migration failed")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Applies the missing migrations as the owner, and returns them. `app_login`, if given, is the
/// user that servers log in as; it becomes a member of both group roles. Any number of processes
/// may call this at once: one applies the migrations, and the others wait and then find none
/// missing.
pub async fn migrate(
    owner_url: &str,
    app_login: Option<&str>,
) -> Result<Vec<MigrationName>, MigrateError> {
    let options: PgConnectOptions = owner_url.parse().map_err(MigrateError::Address)?;
    let mut connection = PgConnection::connect_with(&options).await?;
    connection.lock().await?;
    let applied = migrate_locked(&mut connection, app_login).await;
    // Closing the connection releases the lock in every case.
    connection.close().await?;
    applied
}

async fn migrate_locked(
    connection: &mut PgConnection,
    app_login: Option<&str>,
) -> Result<Vec<MigrationName>, MigrateError> {
    let missing = pending(connection).await?;
    let migrator = Migrator {
        // A newer version of Baton may already have migrated this database.
        ignore_missing: true,
        locking: false,
        ..Migrator::with_migrations(MIGRATOR.iter().cloned().collect())
    };
    migrator.run_direct(None, connection, false).await?;
    let mut grants = String::from("GRANT SELECT ON _sqlx_migrations TO baton_system;");
    if let Some(login) = app_login {
        let login = login.replace('"', "\"\"");
        let _ = write!(grants, "GRANT baton_app, baton_system TO \"{login}\";");
    }
    // A role name cannot be a parameter; it was quoted above.
    raw_sql(AssertSqlSafe(grants))
        .execute(&mut *connection)
        .await?;
    // The scheduler makes the partitions of later months.
    raw_sql("SELECT make_audit_parts(clock_timestamp(), 3)")
        .execute(connection)
        .await?;
    Ok(missing)
}

/// Returns the migrations of this build that the database lacks. A database on which none was ever
/// applied lacks them all.
pub async fn pending(connection: &mut PgConnection) -> Result<Vec<MigrationName>, sqlx::Error> {
    let ever: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let applied: Vec<i64> = if ever {
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(connection)
            .await?
    } else {
        Vec::new()
    };
    Ok(MIGRATOR
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(|migration| MigrationName {
            version: migration.version,
            description: migration.description.to_string(),
        })
        .collect())
}
