//! The least that the commits of a run cost PostgreSQL: `pgbench` makes them on plain tables,
//! without policies, triggers and further indexes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use baton_devstack::{Postgres, PostgresOptions};
use tokio::process::Command;

use crate::process_usage;

const TABLES: &str = "\
CREATE TABLE bench_runs (batch bigint, n int, state text NOT NULL, attempt int NOT NULL DEFAULT 0,
    lease timestamptz, request text NOT NULL, ended timestamptz, PRIMARY KEY (batch, n));
CREATE TABLE bench_steps (batch bigint, n int, step int, message text NOT NULL, PRIMARY KEY (batch, n, step));";

/// The processor seconds of PostgreSQL for 1,000 runs.
#[derive(Debug, Clone, Copy)]
pub struct LedgerFloor {
    /// Three commits a run, each of one row, by 64 clients.
    pub single: f64,
    /// Three commits for eight runs, each of eight rows, by 8 clients.
    pub grouped: f64,
}

/// Measures both for this long each.
pub async fn measure(each: Duration) -> anyhow::Result<LedgerFloor> {
    let folder = tempfile::tempdir()?;
    let postgres = Postgres::start(PostgresOptions::keeping(folder.path().join("data"))).await?;
    run(&postgres, "psql", &["-q", "-c", TABLES]).await?;
    let floor = LedgerFloor {
        single: cost(&postgres, folder.path(), 1, 64, each).await?,
        grouped: cost(&postgres, folder.path(), 8, 8, each).await?,
    };
    postgres.stop().await?;
    Ok(floor)
}

/// Returns the processor seconds for 1,000 runs, of which each commit has `rows`.
async fn cost(
    postgres: &Postgres,
    folder: &Path,
    rows: u32,
    clients: u32,
    each: Duration,
) -> anyhow::Result<f64> {
    let script = folder.join("commits.sql");
    std::fs::write(&script, commits(rows))?;
    let script = script.to_str().context("the folder's name is not UTF-8")?;
    let (clients, seconds) = (clients.to_string(), each.as_secs().max(1).to_string());
    let options = [
        "-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds, "-f", script,
    ];
    let before = used(postgres);
    let told = run(postgres, "pgbench", &options).await?;
    let spent = used(postgres) - before;
    let transactions = transactions(&told).with_context(|| format!("pgbench said: {told}"))?;
    ensure!(transactions > 0, "pgbench made no transaction: {told}");
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let runs = (transactions * u64::from(rows)) as f64;
    Ok(spent * 1_000.0 / runs)
}

/// Returns pgbench's script: the three commits of `rows` runs, each a statement of its own.
fn commits(rows: u32) -> String {
    format!(
        "\\set batch random(1, 9000000000000000)
INSERT INTO bench_runs (batch, n, state, request)
    SELECT :batch, n, 'queued', repeat('x', 400) FROM generate_series(1, {rows}) n;
UPDATE bench_runs SET state = 'running', attempt = attempt + 1, lease = now() + interval '20 seconds'
    WHERE batch = :batch AND n <= {rows} AND state = 'queued';
WITH ended AS (
    UPDATE bench_runs SET state = 'completed', ended = now()
    WHERE batch = :batch AND n <= {rows} AND attempt = 1 RETURNING batch, n)
INSERT INTO bench_steps (batch, n, step, message) SELECT batch, n, 0, repeat('y', 400) FROM ended;
"
    )
}

fn used(postgres: &Postgres) -> f64 {
    let usage = process_usage::by_name(postgres.pid(), "postgres");
    usage.values().map(|usage| usage.cpu_seconds).sum()
}

/// Returns the number of transactions from pgbench's report.
fn transactions(report: &str) -> Option<u64> {
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "))?;
    line.split('/').next()?.trim().parse().ok()
}

async fn run(postgres: &Postgres, program: &str, options: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(postgres.binaries().bin.join(program))
        .args(options)
        .args(["-h", "127.0.0.1", "-U", "postgres"])
        .env("PGPORT", postgres.port().to_string())
        .env("PGPASSWORD", postgres.superuser_password())
        .env("PGDATABASE", "postgres")
        .output()
        .await
        .with_context(|| format!("{program} cannot be started"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} ended with {}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}
