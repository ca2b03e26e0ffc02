//! A fresh database per test, copied from a template that is migrated once per server.
//!
//! The server is the one that `baton_devstack` finds in the environment, or starts for this process.
//! Any number of test processes may share one.

use std::time::Duration;

use baton_devstack::test_support::test_postgres;
use baton_store::{Store, StoreError, StoreOptions, migrate};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, raw_sql};
use uuid::Uuid;

/// Embedded only for its checksums, which name the template.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// The user that tests log in as. As in production, it is only a member of the two group roles.
pub const APP: &str = "baton_test_app";
/// The user that owns the schema; no superuser, so that row-level security holds for it too.
const OWNER: &str = "baton_test_owner";
const PASSWORD: &str = "only-for-tests-of-baton";
/// The advisory lock for making the users and the template: one process makes them, the others
/// wait.
const TEMPLATE_LOCK: i64 = 0x6261_746f_6e00_0001;

/// A migrated, empty database for one test, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its address for servers.
    pub database_url: String,
    /// Its address for `baton migrate`: the owner's.
    pub migrate_url: String,
    /// Its URL for a superuser. No policy applies to that user, so that tests can read and change all
    /// rows.
    pub superuser_url: String,
    name: String,
    server: PgConnectOptions,
}

/// A lock on the table of runs, released with the connection.
#[derive(Debug)]
pub struct HeldRuns(#[expect(dead_code, reason = "held until it is dropped")] PgConnection);

impl TestDatabase {
    /// Copies the template.
    ///
    /// # Panics
    ///
    /// If there is no server: a test without its database has failed.
    pub async fn create() -> Self {
        Self::from_template(true).await
    }

    /// As [`TestDatabase::create`], but without any schema: for tests of the migrations themselves.
    ///
    /// # Panics
    ///
    /// As [`TestDatabase::create`].
    pub async fn create_unmigrated() -> Self {
        Self::from_template(false).await
    }

    async fn from_template(migrated: bool) -> Self {
        let url = required(test_postgres().await, "finds or starts a test server");
        let server: PgConnectOptions = required(url.parse(), "reads the server's address");
        let mut connection = required(
            PgConnection::connect_with(&server).await,
            "connects to the test server",
        );
        let template = ensure_template(&mut connection, &server).await;
        let name = format!("baton_test_{}", Uuid::new_v4().simple());
        let source = if migrated {
            template.as_str()
        } else {
            "template0"
        };
        execute(
            &mut connection,
            format!("CREATE DATABASE {name} TEMPLATE {source} OWNER {OWNER}"),
        )
        .await;
        let _ = connection.close().await;
        let here = server.clone().database(&name);
        let login = |user: &str| here.clone().username(user).password(PASSWORD);
        Self {
            database_url: login(APP).to_url_lossy().to_string(),
            migrate_url: login(OWNER).to_url_lossy().to_string(),
            superuser_url: here.to_url_lossy().to_string(),
            name,
            server,
        }
    }

    /// Waits until the statement of this name waits for a lock that another transaction holds.
    ///
    /// # Panics
    ///
    /// If the database cannot be asked.
    pub async fn until_blocked(&self, statement: &str) {
        let here = self.server.clone().database(&self.name);
        let mut connection = required(PgConnection::connect_with(&here).await, "looks at itself");
        loop {
            let blocked: bool = required(
                sqlx::query_scalar(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'
                       AND pid <> pg_backend_pid() AND strpos(query, '-- ' || $1) > 0)",
                )
                .bind(statement)
                .fetch_one(&mut connection)
                .await,
                "looks for a statement that waits",
            );
            if blocked {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Blocks all writes of runs until the value is dropped; statements that accept a run wait.
    ///
    /// # Panics
    ///
    /// If the table cannot be locked.
    pub async fn hold_runs(&self) -> HeldRuns {
        let here = self.server.clone().database(&self.name);
        let mut connection = required(PgConnection::connect_with(&here).await, "looks at itself");
        let lock = "BEGIN; LOCK TABLE runs IN SHARE MODE";
        execute(&mut connection, lock.to_owned()).await;
        HeldRuns(connection)
    }

    /// Makes the audit log refuse every entry, or accept entries again. Actions that need an entry
    /// then fail.
    ///
    /// # Panics
    ///
    /// If the log's table cannot be changed.
    pub async fn refuse_entries(&self, refused: bool) {
        let here = self.server.clone().database(&self.name);
        let mut connection = required(PgConnection::connect_with(&here).await, "looks at itself");
        let change = if refused {
            "ALTER TABLE audit_log ADD CONSTRAINT none_at_all CHECK (false) NOT VALID"
        } else {
            "ALTER TABLE audit_log DROP CONSTRAINT none_at_all"
        };
        execute(&mut connection, change.to_owned()).await;
    }

    /// Opens a store on it through a proxy on this port of the loopback.
    ///
    /// # Panics
    ///
    /// If it cannot be reached.
    pub async fn store_behind(&self, port: u16) -> Store {
        let url: PgConnectOptions = required(self.database_url.parse(), "reads its own address");
        let url = url.host("127.0.0.1").port(port);
        self.connect(url.to_url_lossy().to_string()).await
    }

    /// Lets the time come to its end for which a response is kept.
    ///
    /// # Panics
    ///
    /// If there is no such run.
    pub async fn expire(&self, run: Uuid) {
        let mut superuser = required(
            PgConnection::connect(&self.superuser_url).await,
            "connects as a superuser",
        );
        let past = "UPDATE runs SET expires_at = clock_timestamp() - interval '1 s' WHERE id = $1";
        let changed = sqlx::query(past).bind(run).execute(&mut superuser).await;
        let changed = required(changed, "changes the run").rows_affected();
        assert_eq!(changed, 1, "there is such a run");
    }

    /// Returns its server's port on the loopback.
    pub fn port(&self) -> u16 {
        self.server.get_port()
    }

    /// Opens a store on it.
    ///
    /// # Panics
    ///
    /// If it cannot be reached.
    pub async fn store(&self) -> Store {
        self.connect(self.database_url.clone()).await
    }

    async fn connect(&self, url: String) -> Store {
        let options = StoreOptions {
            url,
            max_connections: 64,
            acquire_timeout: Duration::from_secs(10),
            // Long enough for a test that holds a lock while rows gather, and shorter than the time for
            // which a statement waits for a lock.
            slow_group: Duration::from_secs(2),
            application_name: "baton-test".into(),
        };
        required(
            Store::connect(options).await,
            "connects to the test database",
        )
    }
}

impl Drop for TestDatabase {
    /// Drops the database with its connections. A failure does not matter, because the server ends
    /// too.
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop_database = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // In a separate thread, because the test's runtime is busy with this drop.
        let _ = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                if let Ok(mut connection) = PgConnection::connect_with(&server).await {
                    let _ = raw_sql(AssertSqlSafe(drop_database))
                        .execute(&mut connection)
                        .await;
                    let _ = connection.close().await;
                }
            });
        })
        .join();
    }
}

/// Returns the template's name, after making it if it does not exist. The name comes from the
/// content of the migrations, so that a changed one makes a new template.
async fn ensure_template(connection: &mut PgConnection, server: &PgConnectOptions) -> String {
    let mut hash = Sha256::new();
    for migration in MIGRATIONS.iter() {
        hash.update(&migration.checksum);
    }
    let digest = hex::encode(hash.finalize());
    let template = format!("baton_template_{}", &digest[..16]);
    if exists(connection, &template).await {
        return template;
    }
    execute(
        connection,
        format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})"),
    )
    .await;
    if !exists(connection, &template).await {
        for (user, can) in [(OWNER, "CREATEROLE"), (APP, "NOINHERIT")] {
            execute(
                connection,
                format!(
                    "DO $$ BEGIN
                         IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') THEN
                             CREATE ROLE {user} LOGIN {can} PASSWORD '{PASSWORD}';
                         END IF;
                     END $$"
                ),
            )
            .await;
        }
        // The template has another name until it is complete, because a process may die in the
        // middle.
        let unfinished = format!("{template}_unfinished");
        execute(
            connection,
            format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)"),
        )
        .await;
        execute(
            connection,
            format!("CREATE DATABASE {unfinished} OWNER {OWNER}"),
        )
        .await;
        let owner_url = server
            .clone()
            .database(&unfinished)
            .username(OWNER)
            .password(PASSWORD)
            .to_url_lossy();
        required(
            migrate(owner_url.as_str(), Some(APP)).await,
            "migrates the template",
        );
        execute(
            connection,
            format!("ALTER DATABASE {unfinished} RENAME TO {template}"),
        )
        .await;
    }
    execute(
        connection,
        format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})"),
    )
    .await;
    template
}

async fn exists(connection: &mut PgConnection, database: &str) -> bool {
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(connection)
        .await;
    required(exists, "looks for a database")
}

/// Executes a statement that is made only of this module's constants and of fresh names.
async fn execute(connection: &mut PgConnection, statement: String) {
    let done = raw_sql(AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await;
    required(done, &statement);
}

/// Panics on an error, because the test cannot continue without the value.
fn required<T, E: std::error::Error>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        panic!("{what}: {error} {}", cause.unwrap_or_default())
    })
}

/// All connections that a server allows, occupied until this is dropped.
#[derive(Debug)]
pub struct Places(#[expect(dead_code, reason = "held, not used")] Vec<PgConnection>);

impl Places {
    /// Occupies the free connections, then about half of those of the application's other members.
    pub async fn take(superuser_url: &str, app_url: &str) -> Result<Self, StoreError> {
        const NAME: &str = "places";

        let app: PgConnectOptions = app_url.parse()?;
        let app = app.application_name(NAME);
        let mut taken = Vec::new();
        let mut superuser = PgConnection::connect(superuser_url).await?;
        for round in 0..2 {
            // A refusal means that no connection is free.
            while let Ok(connection) = app.connect().await {
                taken.push(connection);
            }
            if round == 0 {
                raw_sql(
                    "
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name LIKE 'baton %' AND random() < 0.5
                    ",
                )
                .execute(&mut superuser)
                .await?;
            }
        }
        superuser.close().await?;
        Ok(Self(taken))
    }
}

/// Begins the next segment of the server's log, for which the next write must find room. `url` is a
/// superuser's.
pub async fn close_log_segment(url: &str) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect(url).await?;
    raw_sql("SELECT pg_switch_wal()")
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}
