//! The time of a statement at the server, without the way to the client and without the reading of rows there.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_protocol::TenantId;
use baton_test_ledger::TestDatabase;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, raw_sql};

/// A session in which the server times one statement of the ledger's.
pub(super) struct ServerTime {
    session: PgConnection,
}

impl ServerTime {
    /// Prepares the statement with this name, which another session has just executed in a transaction that
    /// is still open: its text comes from the server, so that it is the ledger's own.
    pub(super) async fn of(
        database: &TestDatabase,
        tenant: TenantId,
        name: &str,
    ) -> anyhow::Result<Self> {
        let mut session = PgConnection::connect(&database.superuser_url).await?;
        let text: Option<String> = sqlx::query_scalar(
            "SELECT query FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND state = 'idle in transaction' AND strpos(query, '-- ' || $1) > 0
             LIMIT 1",
        )
        .bind(name)
        .fetch_optional(&mut session)
        .await?;
        let text = text.with_context(|| format!("no session has executed `{name}`"))?;
        // As the ledger's user, so that its policies hold.
        let set =
            format!("SET ROLE baton_app; SET baton.tenant = '{tenant}'; PREPARE listed AS {text}");
        raw_sql(AssertSqlSafe(set)).execute(&mut session).await?;
        Ok(Self { session })
    }

    /// Executes it with these arguments, and returns its time.
    pub(super) async fn take(&mut self, arguments: &str) -> anyhow::Result<Duration> {
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF) EXECUTE listed({arguments})");
        let plan = raw_sql(AssertSqlSafe(explain))
            .fetch_all(&mut self.session)
            .await?;
        for line in &plan {
            let line: &str = line.try_get(0)?;
            if let Some(time) = line.strip_prefix("Execution Time: ") {
                let millis: f64 = time.trim_end_matches(" ms").parse()?;
                return Ok(Duration::from_secs_f64(millis / 1_000.0));
            }
        }
        bail!("the server says no time: {} lines", plan.len())
    }
}
