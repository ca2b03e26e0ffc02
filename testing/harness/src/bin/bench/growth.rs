//! The cost of a run by the number of runs that the ledger holds already, and by the number of workers.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_harness::load::Route;
use sqlx::{Connection as _, PgConnection};

use crate::Args;
use crate::measures::Cost;
use crate::stage::{Stage, Way};
use crate::table::Table;

/// The numbers of runs that the ledger holds before the measurement.
const RUNS: [i64; 3] = [1_000, 100_000, 2_000_000];
const WORKERS: [usize; 3] = [1, 2, 4];
/// The time for the server to analyse the table by itself, as it does in production.
const ANALYSED_WITHIN: Duration = Duration::from_mins(5);

/// Inserts ended runs until the tenant has `$2` of them. The ids are older than any that is made
/// meanwhile, and in order, as if the runs had come one after the other.
const FILL: &str = "
    INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version, status,
                      finish_reason, cancel_on_disconnect, created_at, queued_at, started_at,
                      finished_at, attempt, last_event_id, total_tokens)
    SELECT acting.tenant_id,
           (lpad(to_hex(1700000000000 + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
           'interactive', '{}', 'bench', 'default', 1, 'completed', 'stop', false,
           past.at, past.at, past.at, past.at, 1, 4294967299, 20
    FROM (SELECT set_config('baton.tenant', $1::uuid::text, true)::uuid AS tenant_id) AS acting,
         generate_series((SELECT count(*) FROM runs WHERE model = 'bench'), $2 - 1) AS n,
         LATERAL (SELECT now() - interval '1 day' + n * interval '1 ms' AS at) AS past";

/// Measures the cost of a run while the ledger holds few and many other runs, then with several
/// workers. Flat figures are the aim.
pub(crate) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::set(args, 1).await?;
    for runs in RUNS {
        fill(&stage, runs).await?;
        let cost = Cost::measure(args, &stage, Way::Baton, Route::Chat).await?;
        row(table, &cost, &format!("{runs} runs in the ledger"));
    }
    stage.strike().await?;
    for workers in WORKERS {
        let stage = Stage::set(args, workers).await?;
        let cost = Cost::measure(args, &stage, Way::Baton, Route::Chat).await?;
        row(table, &cost, &format!("workers: {workers}"));
        stage.strike().await?;
    }
    Ok(())
}

fn row(table: &mut Table, cost: &Cost, with: &str) {
    let what = "processor time for 1,000 runs";
    table.alone(&format!("{what}, {with}, all"), cost.all(), "s");
    let postgres = cost.by_process.get("postgres").copied().unwrap_or_default();
    table.alone(&format!("{what}, {with}, PostgreSQL"), postgres, "s");
}

async fn fill(stage: &Stage, runs: i64) -> anyhow::Result<()> {
    let mut ledger = PgConnection::connect(&stage.ledger).await?;
    sqlx::query("SET ROLE baton_app")
        .execute(&mut ledger)
        .await?;
    let tenant: uuid::Uuid = stage.tenant.parse()?;
    let set = "SELECT set_config('baton.tenant', $1::uuid::text, false)";
    sqlx::query(set).bind(tenant).execute(&mut ledger).await?;
    let begun: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&mut ledger)
        .await?;
    let filled = sqlx::query(FILL)
        .bind(tenant)
        .bind(runs)
        .execute(&mut ledger)
        .await?;
    if filled.rows_affected() > 0 {
        analysed(&mut ledger, begun).await?;
    }
    ledger
        .close()
        .await
        .context("the ledger's connection was lost")
}

/// Waits until the server has analysed the table after this moment.
async fn analysed(
    ledger: &mut PgConnection,
    after: chrono::DateTime<chrono::Utc>,
) -> anyhow::Result<()> {
    let patience = tokio::time::Instant::now() + ANALYSED_WITHIN;
    let last = "SELECT last_autoanalyze > $1 FROM pg_stat_all_tables WHERE relname = 'runs'";
    loop {
        let done: Option<bool> = sqlx::query_scalar(last)
            .bind(after)
            .fetch_one(&mut *ledger)
            .await?;
        if done == Some(true) {
            return Ok(());
        }
        if tokio::time::Instant::now() > patience {
            bail!("the server has not analysed the table of runs: is autovacuum off?");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
