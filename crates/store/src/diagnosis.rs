//! A look at a database from outside, for an operator: also at one that no server could use.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, FromRow};

use crate::connect::ConnectError;
use crate::migrate::{MigrationName, pending};

/// The state of a database and of the user that servers log in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The server's version, such as `16.3 (Debian 16.3-1)`.
    pub version: String,
    /// The server's major version.
    pub major: u32,
    /// The user's name.
    pub user: String,
    /// Whether row-level security does not apply to the user.
    pub sees_everything: bool,
    /// The group roles that the user may not act as.
    pub missing_roles: Vec<String>,
    /// The migrations of this build that the database lacks.
    pub pending: Vec<MigrationName>,
    /// The tables of tenants' rows that row-level security does not guard.
    pub unguarded: Vec<String>,
    /// The settings that let a crash lose committed rows.
    pub not_durable: Vec<String>,
    /// The server's limit of connections for ordinary users.
    pub max_connections: u32,
    /// The connections that are open now, this one included.
    pub connections: u32,
    /// The server's time.
    pub now: DateTime<Utc>,
}

/// The settings of the server and of the user.
#[derive(FromRow)]
struct Settings {
    version: String,
    version_num: i32,
    user: String,
    sees_everything: bool,
    missing_roles: Vec<String>,
    not_durable: Vec<String>,
    max_connections: i32,
    connections: i64,
}

/// Looks at the database of `url`. Writes nothing.
pub async fn diagnose(url: &str) -> Result<Diagnosis, ConnectError> {
    let options: PgConnectOptions = url.parse().map_err(ConnectError::Address)?;
    let options = options.application_name("baton doctor");
    let mut connection = PgConnection::connect_with(&options)
        .await
        .map_err(ConnectError::Unavailable)?;
    let diagnosis = diagnosis(&mut connection).await;
    let _ = connection.close().await;
    diagnosis.map_err(ConnectError::Unavailable)
}

async fn diagnosis(connection: &mut PgConnection) -> Result<Diagnosis, sqlx::Error> {
    let settings: Settings = sqlx::query_as(
        r#"
        -- diagnosis.settings
        SELECT current_setting('server_version') AS version,
               current_setting('server_version_num')::integer AS version_num,
               current_user::text AS "user",
               (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
                   AS sees_everything,
               ARRAY(SELECT needed FROM unnest(ARRAY['baton_app', 'baton_system']) AS needed
                     WHERE NOT EXISTS (SELECT FROM pg_roles
                                       WHERE rolname = needed
                                         AND pg_has_role(current_user, oid, 'MEMBER')))
                   AS missing_roles,
               ARRAY(SELECT name FROM pg_settings
                     WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
                       AND setting = 'off' ORDER BY name) AS not_durable,
               current_setting('max_connections')::integer
                   - current_setting('superuser_reserved_connections')::integer
                   AS max_connections,
               (SELECT sum(numbackends)::bigint FROM pg_stat_database) AS connections
        "#,
    )
    .fetch_one(&mut *connection)
    .await?;
    let unguarded = sqlx::query_scalar(
        "
        -- diagnosis.unguarded
        SELECT relation.relname::text
        FROM pg_class AS relation
        JOIN pg_attribute AS tenant ON tenant.attrelid = relation.oid
        WHERE relation.relkind IN ('r', 'p') AND NOT relation.relispartition
          AND relation.relnamespace = 'public'::regnamespace
          AND tenant.attname = 'tenant_id' AND NOT tenant.attisdropped
          AND NOT (relation.relrowsecurity AND relation.relforcerowsecurity)
        ORDER BY relation.relname
        ",
    )
    .fetch_all(&mut *connection)
    .await?;
    // A user that may not act as the group roles may not read the list of migrations either.
    let pending = if settings.missing_roles.is_empty() {
        pending(connection).await?
    } else {
        Vec::new()
    };
    let now = sqlx::query_scalar("-- diagnosis.now\nSELECT clock_timestamp()")
        .fetch_one(connection)
        .await?;
    let count = |count: i64| u32::try_from(count).unwrap_or(0);
    Ok(Diagnosis {
        version: settings.version,
        major: count(i64::from(settings.version_num) / 10_000),
        user: settings.user,
        sees_everything: settings.sees_everything,
        missing_roles: settings.missing_roles,
        pending,
        unguarded,
        not_durable: settings.not_durable,
        max_connections: count(i64::from(settings.max_connections)),
        connections: count(settings.connections),
        now,
    })
}
