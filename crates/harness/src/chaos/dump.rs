//! What the ledger and the stream hold when all is quiet.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_nats::{Bus, BusOptions};
use baton_protocol::{Event, RunId, TenantId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{Store, StoreOptions};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::fleet::Setting;
use crate::checker::{History, LedgerRun, RunLog};
use crate::client::Client;

/// How many messages of one run's log are read; far more than a run has here.
const MOST: usize = 20_000;
/// How many runs are read at once.
const AT_ONCE: usize = 8;

/// Waits until no run is queued or running; says whether that came about in time.
pub async fn until_quiet(client: &Client, limit: Duration) -> bool {
    let quiet = async {
        loop {
            let mut open = false;
            for status in ["queued", "running"] {
                let path = format!("/v1/runs?limit=1&status={status}");
                let none = match client.get(&path).await {
                    Ok(answer) if answer.status == 200 => answer
                        .json()
                        .is_ok_and(|page| page["data"].as_array().is_some_and(Vec::is_empty)),
                    _ => false,
                };
                open |= !none;
            }
            if !open {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(limit, quiet).await.is_ok()
}

/// Writes every run, and every run's log, to files in the folder.
pub async fn write(setting: &Setting, client: &Client, folder: &Path) -> anyhow::Result<()> {
    let bus = Bus::connect(BusOptions::new(
        format!("nats://{}", setting.broker),
        "chaos",
    ))
    .await?;
    let tenant = tenant(setting).await?;
    let mut runs = lines(&folder.join(History::RUNS))?;
    let mut logs = lines(&folder.join(History::LOGS))?;
    let mut cursor = None;
    loop {
        let (page, next) = page(client, cursor.as_deref()).await?;
        let mut read = stream::iter(page)
            .map(|id| one(&bus, tenant, client, id))
            .buffered(AT_ONCE);
        while let Some(read) = read.next().await {
            let (run, log) = read?;
            put(&mut runs, &run)?;
            put(&mut logs, &log)?;
        }
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    runs.flush()?;
    logs.flush()?;
    bus.close().await;
    Ok(())
}

async fn one(
    bus: &Bus,
    tenant: TenantId,
    client: &Client,
    id: String,
) -> anyhow::Result<(LedgerRun, RunLog)> {
    let answer = client.get(&format!("/v1/runs/{id}")).await?;
    if answer.status != 200 {
        bail!("run {id}: {}", answer.status);
    }
    let run: LedgerRun = serde_json::from_slice(&answer.body)
        .with_context(|| format!("run {id} is not as expected"))?;
    let log = log(bus, tenant, run.id).await?;
    Ok((run, log))
}

async fn page(
    client: &Client,
    cursor: Option<&str>,
) -> anyhow::Result<(Vec<String>, Option<String>)> {
    let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let page = client
        .get(&format!("/v1/runs?limit=100{cursor}"))
        .await?
        .json()?;
    let runs = page["data"].as_array().context("a page without runs")?;
    let ids = runs
        .iter()
        .filter_map(|run| run["id"].as_str().map(str::to_owned))
        .collect();
    Ok((ids, page["next_cursor"].as_str().map(str::to_owned)))
}

async fn log(bus: &Bus, tenant: TenantId, run: RunId) -> anyhow::Result<RunLog> {
    let stored = bus
        .read_events(tenant, run, baton_nats::StreamSeq::NONE, MOST)
        .await
        .with_context(|| format!("the log of run {run} cannot be read"))?;
    let lines = stored
        .iter()
        .flat_map(|stored| Event::lines(&stored.payload));
    Ok(RunLog {
        run,
        lines: lines
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect(),
    })
}

async fn tenant(setting: &Setting) -> anyhow::Result<TenantId> {
    let store = Store::connect(StoreOptions {
        url: setting.database_url(),
        max_connections: 1,
        acquire_timeout: Duration::from_secs(10),
        application_name: "chaos".to_owned(),
    })
    .await?;
    let fresh = TenantId::new(SystemClock.now());
    // There by now: the key was made for it.
    let tenant = store.system().ensure_tenant(fresh, super::TENANT).await?;
    store.close().await;
    Ok(tenant.id)
}

fn lines(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file =
        File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(BufWriter::new(file))
}

fn put(file: &mut BufWriter<File>, line: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")?;
    Ok(())
}
