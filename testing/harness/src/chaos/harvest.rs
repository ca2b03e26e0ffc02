//! Reads the event log: at the end, and before the broker loses its disk.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use baton_nats::{Bus, BusOptions, StreamSeq};
use baton_protocol::{ApiKeyId, Event, RunId, TenantId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{KeyUsage, RunFilter, SLOW_GROUP, Store, StoreOptions, UsageFilter, UsageGroups};
use chrono::NaiveDate;
use futures_util::{StreamExt as _, stream};

use super::fleet::Setting;
use super::holders::{BUDGET, SPENDER};
use super::program::Bearer;
use crate::checker::{History, RunLog, What};

/// The most messages that are read of one run's log; far more than a run has here.
const MOST: usize = 20_000;
/// The number of runs that are read at once.
pub(super) const AT_ONCE: usize = 8;
/// The first of the days between which all runs are accepted.
const DAWN: NaiveDate = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
const DUSK: NaiveDate = NaiveDate::from_ymd_opt(2999, 12, 31).unwrap();
/// The number of runs in a page.
const PAGE: u32 = 200;
/// The time for reading logs while the load goes on; the remaining logs are not read.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads logs and writes them to the history. Its connections to the servers go around all proxies.
#[derive(Debug)]
pub struct Harvest {
    bus: Bus,
    store: Store,
    /// The tenant of the load, then that of the talkers.
    tenants: [TenantId; 2],
    file: BufWriter<File>,
    taken: HashSet<RunId>,
}

impl Harvest {
    /// Opens a reader for the runs of the load's tenant and of the talkers'.
    pub async fn open(
        setting: &Setting,
        tenants: [&str; 2],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let broker = format!("nats://{}", setting.broker);
        let bus = Bus::connect(BusOptions {
            auth: setting.logins.auth(),
            ..BusOptions::new(&broker, "chaos")
        })
        .await?;
        let store = Store::connect(StoreOptions {
            url: setting.database_url(),
            max_connections: 3,
            acquire_timeout: Duration::from_secs(10),
            slow_group: SLOW_GROUP,
            application_name: "chaos".to_owned(),
        })
        .await?;
        let [of_load, of_talkers] = tenants;
        let tenants = [
            tenant_of(&store, of_load).await?,
            tenant_of(&store, of_talkers).await?,
        ];
        let path = folder.join(History::LOGS);
        let file =
            File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            bus,
            store,
            tenants,
            file: BufWriter::new(file),
            taken: HashSet::new(),
        })
    }

    /// Returns the bearer of a key that was made under this name in a tenant.
    pub async fn bearer(&self, tenant: &str, name: &str, secret: &str) -> anyhow::Result<Bearer> {
        let tenant = tenant_of(&self.store, tenant).await?;
        let mut tx = self.store.tenant(tenant).await?;
        let keys = tx.list_api_keys().await?;
        tx.commit().await?;
        let key = keys.iter().find(|key| key.name == name);
        Ok(Bearer {
            tenant,
            key: key.context("there is no such key")?.id,
            secret: secret.to_owned(),
        })
    }

    /// Returns the first key of a tenant that exceeded its budget, once all runs have ended.
    pub async fn overspent(&self, tenant: &str) -> anyhow::Result<Option<String>> {
        let tenant = tenant_of(&self.store, tenant).await?;
        let mut tx = self.store.tenant(tenant).await?;
        let (keys, usage) = (tx.list_api_keys().await?, tx.key_usage().await?);
        tx.commit().await?;
        let spenders: HashSet<_> = keys
            .iter()
            .filter(|key| key.name == SPENDER)
            .map(|key| key.id)
            .collect();
        let wrong = |key: &&KeyUsage| {
            spenders.contains(&key.key) && (key.spent_tokens > BUDGET || key.reserved_tokens != 0)
        };
        let found = usage.iter().find(wrong);
        Ok(found.map(|key| format!("the budget is {BUDGET} tokens, and the books say {key:?}")))
    }

    /// Returns runs that are recorded for another key than the one that submitted them. `submitted`
    /// has the runs of all keys but the tenant's first.
    pub async fn misattributed(
        &self,
        first: ApiKeyId,
        submitted: &HashMap<RunId, ApiKeyId>,
    ) -> anyhow::Result<Vec<(RunId, String)>> {
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let mut tx = self.store.tenant(self.tenants[0]).await?;
            let page = tx.list_runs(&RunFilter::default(), cursor, PAGE).await?;
            tx.commit().await?;
            for run in &page.data {
                let right = *submitted.get(&run.id).unwrap_or(&first);
                if run.api_key_id != Some(right) {
                    let key = run.api_key_id;
                    found.push((
                        run.id,
                        format!("{right} submitted it, and it is of {key:?}"),
                    ));
                }
            }
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Reads the logs of runs that have ended since the last time, as many as there is time for,
    /// because they will soon be lost.
    pub async fn take(&mut self) {
        let taking = tokio::time::timeout(LIMIT, self.take_ended());
        match taking.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "logs are lost before they were read"),
            Err(_elapsed) => tracing::debug!("not all logs were read in time"),
        }
    }

    async fn take_ended(&mut self) -> anyhow::Result<()> {
        for tenant in self.tenants {
            self.take_ended_of(tenant).await?;
        }
        Ok(())
    }

    async fn take_ended_of(&mut self, tenant: TenantId) -> anyhow::Result<()> {
        let mut cursor = None;
        loop {
            let mut tx = self.store.tenant(tenant).await?;
            let page = tx.list_runs(&RunFilter::default(), cursor, PAGE).await?;
            tx.commit().await?;
            let ended = page.data.iter().filter(|run| run.status.is_terminal());
            let new: Vec<_> = ended
                .map(|run| (run.id, run.last_event_id))
                .filter(|(run, _)| !self.taken.contains(run))
                .collect();
            let older_are_taken = new.is_empty() && !self.taken.is_empty();
            let logs: Vec<_> = stream::iter(&new)
                .map(|(run, _)| self.log(tenant, *run))
                .buffered(AT_ONCE)
                .collect()
                .await;
            for (log, (run, last)) in logs.into_iter().zip(&new) {
                let log = log?;
                // A log that still lacks its terminal event is not judged yet.
                let told = log.events().ok().and_then(|events| Some(events.last()?.id));
                if told == Some(*last) {
                    self.put(&log)?;
                    self.taken.insert(*run);
                }
            }
            match page.next_cursor {
                Some(next) if !older_are_taken => cursor = Some(next),
                _ => return Ok(()),
            }
        }
    }

    /// Returns an error of the books after all runs have ended. Nothing may be reserved of their
    /// key's limits, and everything that was used or lost must be charged.
    pub async fn unsettled(&self) -> anyhow::Result<Option<String>> {
        let mut tx = self.store.tenant(self.tenants[0]).await?;
        let keys = tx.key_usage().await?;
        // The range covers every day with entries.
        let all = UsageFilter {
            from: DAWN,
            to: DUSK,
            by: UsageGroups::default(),
        };
        let used = tx.usage(&all, None, 1).await?.data.pop();
        tx.commit().await?;
        let used = used.map_or(0, |used| used.input_tokens + used.output_tokens);
        let held = |key: &KeyUsage| key.running != 0 || key.reserved_tokens != 0;
        let spent: u64 = keys.iter().map(|key| key.spent_tokens).sum();
        let wrong = keys.iter().any(held) || spent < used;
        Ok(wrong.then(|| format!("{used} tokens were used, and the books say {keys:?}")))
    }

    /// Reads one run's log.
    pub async fn log(&self, tenant: TenantId, run: RunId) -> anyhow::Result<RunLog> {
        let read_at = What::now();
        let stored = self
            .bus
            .read_events(tenant, run, StreamSeq::NONE, MOST)
            .await
            .with_context(|| format!("the log of run {run} cannot be read"))?;
        let lines = stored
            .iter()
            .flat_map(|stored| Event::lines(&stored.payload));
        Ok(RunLog {
            run,
            read_at,
            lines: lines
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect(),
        })
    }

    /// Returns the tenant of the load, then that of the talkers.
    pub const fn tenants(&self) -> [TenantId; 2] {
        self.tenants
    }

    /// Writes a log to the history.
    pub fn put(&mut self, log: &RunLog) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.file, log)?;
        Ok(self.file.write_all(b"\n")?)
    }

    /// Writes the rest, and closes the connections to the servers.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.file.flush()?;
        self.bus.close().await;
        self.store.close().await;
        Ok(())
    }
}

/// Returns the tenant with this name, and makes it if it is missing.
async fn tenant_of(store: &Store, name: &str) -> anyhow::Result<TenantId> {
    let fresh = TenantId::new(SystemClock.now());
    Ok(store.system().ensure_tenant(fresh, name).await?.id)
}
