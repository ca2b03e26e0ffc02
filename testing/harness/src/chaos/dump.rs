//! Writes the content of the ledger and the stream when all is quiet.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use baton_protocol::TenantId;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;

use super::harvest::{AT_ONCE, Harvest};
use super::outside::{ASKER, Prompt};
use crate::checker::{History, LedgerRun, RunLog};
use crate::client::Client;

/// The pause between two looks.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits until no run is queued or running; returns whether that happened in time.
pub async fn until_quiet(client: &Client, limit: Duration) -> bool {
    let quiet = async {
        loop {
            let mut open = false;
            for status in ["queued", "running", "awaiting_approval"] {
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
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::time::timeout(limit, quiet).await.is_ok()
}

/// Writes every run, and every run's log, to files in the folder. The clients are those of the harvest's
/// tenants. A log that lacks its end is read again until it has it, for at most `calm` in all: the end
/// follows the commit, after a crash by the job's next delivery or by the scheduler's next look.
pub async fn write(
    mut logs: Harvest,
    clients: [&Client; 2],
    folder: &Path,
    calm: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + calm;
    let path = folder.join(History::RUNS);
    let runs =
        File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    let mut runs = BufWriter::new(runs);
    for (client, tenant) in clients.into_iter().zip(logs.tenants()) {
        write_tenant(&mut logs, tenant, client, &mut runs, deadline).await?;
    }
    runs.flush()?;
    logs.close().await
}

async fn write_tenant(
    logs: &mut Harvest,
    tenant: TenantId,
    client: &Client,
    runs: &mut BufWriter<File>,
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut cursor = None;
    loop {
        let (page, next) = page(client, cursor.as_deref()).await?;
        let read: Vec<_> = stream::iter(page)
            .map(|id| one(&*logs, tenant, client, id, deadline))
            .buffered(AT_ONCE)
            .collect()
            .await;
        for read in read {
            let (run, log) = read?;
            serde_json::to_writer(&mut *runs, &run)?;
            runs.write_all(b"\n")?;
            logs.put(&log)?;
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// The input messages of a run.
#[derive(Deserialize)]
struct Given {
    input: Vec<Value>,
}

impl Given {
    fn prompt(&self) -> Option<u64> {
        // The calls that an answer goes on from come after it.
        let texts = self.input.iter().rev();
        let mut texts = texts.filter_map(|message| message["content"].as_str());
        Some(texts.find_map(Prompt::read)?.id)
    }
}

async fn one(
    logs: &Harvest,
    tenant: TenantId,
    client: &Client,
    id: String,
    deadline: Instant,
) -> anyhow::Result<(LedgerRun, RunLog)> {
    let answer = client.get(&format!("/v1/runs/{id}")).await?;
    if answer.status != 200 {
        bail!("run {id}: {}", answer.status);
    }
    let mut run: LedgerRun = serde_json::from_slice(&answer.body)
        .with_context(|| format!("run {id} is not as expected"))?;
    // Only the number is kept, because some requests are megabytes.
    let given: Given = serde_json::from_slice(&answer.body)
        .with_context(|| format!("the input of run {id} is not as expected"))?;
    run.prompt = given.prompt();
    // A run that was ended by the answers to its questions has had one attempt.
    if run.attempt > 1 || run.model == ASKER {
        let mut answer = client
            .get(&format!("/v1/runs/{id}/approvals"))
            .await?
            .json()?;
        run.approvals = serde_json::from_value(answer["data"].take())
            .with_context(|| format!("the approvals of run {id} are not as expected"))?;
    }
    let mut log = logs.log(tenant, run.id).await?;
    while run.status.is_terminal() && !log.has_end() && Instant::now() < deadline {
        tokio::time::sleep(AGAIN).await;
        log = logs.log(tenant, run.id).await?;
    }
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
