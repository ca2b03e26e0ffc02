//! Baton, the bare pipe and the upstream, each in processes of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_devstack::{NatsOptions, NatsServer};
use baton_harness::load::{Load, LoadReport, Route, Until};
use baton_harness::process_usage::{self, Usage};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Args;

/// A way to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Bare,
    Baton,
}

/// The same load over each way.
pub(crate) struct Reports {
    pub(crate) direct: LoadReport,
    pub(crate) bare: LoadReport,
    pub(crate) baton: LoadReport,
}

/// The processes of the bare pipe.
struct BarePipe {
    url: String,
    nats: NatsServer,
    ingress: Child,
    worker: Child,
}

impl BarePipe {
    async fn start(folder: &Path, upstream: &str) -> anyhow::Result<Self> {
        let nats = NatsServer::start(NatsOptions::keeping(folder)).await?;
        let (ingress, port) = child(&["bare-ingress", nats.url()]).await?;
        let (worker, _) = child(&["bare-worker", nats.url(), upstream]).await?;
        let url = format!("http://127.0.0.1:{port}/v1");
        Ok(Self {
            url,
            nats,
            ingress,
            worker,
        })
    }

    fn usage(&self) -> BTreeMap<String, Usage> {
        let processes = [
            ("ingress", self.ingress.id()),
            ("worker", self.worker.id()),
            ("nats-server", Some(self.nats.pid())),
        ];
        let mut usage = BTreeMap::new();
        for (name, pid) in processes {
            usage.extend(process_usage::by_name(pid.unwrap_or_default(), name));
        }
        usage
    }
}

/// Starts another process of this program, and reads its first line.
async fn child(arguments: &[&str]) -> anyhow::Result<(Child, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("the process has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok((child, line.trim().to_owned()))
}

/// Everything that is measured.
pub(crate) struct Stage {
    direct: String,
    bare: BarePipe,
    pub(crate) baton: String,
    pub(crate) api_key: String,
    /// The address of the ledger.
    pub(crate) ledger: String,
    pub(crate) tenant: String,
    /// The admin ports of the ingress and the workers.
    pub(crate) admin: Vec<String>,
    dev: Child,
    upstream: Child,
    _data: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set(args: &Args, workers: usize) -> anyhow::Result<Self> {
        Self::with(args, workers, &[]).await
    }

    /// As [`Stage::set`], with further variables of Baton's environment.
    pub(crate) async fn with(
        args: &Args,
        workers: usize,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let (upstream, port) = child(&["upstream"]).await?;
        let direct = format!("http://127.0.0.1:{port}/v1");
        let data = tempfile::tempdir()?;
        let bare = BarePipe::start(&data.path().join("bare"), &direct).await?;
        let ready_file = data.path().join("ready.json");
        let log = std::fs::File::create("target/bench.log")?;
        let mut dev = Command::new(&args.baton)
            .args(["dev", "--separate", "--http", "127.0.0.1:0", "--data"])
            .arg(data.path().join("data"))
            .arg("--workers")
            .arg(workers.to_string())
            .arg("--ready-file")
            .arg(&ready_file)
            .env("LLM_BASE_URL", &direct)
            .env("RUST_LOG", "warn")
            .env("BATON_WORKER__SLOTS", "4096")
            .env("BATON_LIMITS__STREAMS_PER_KEY", "4096")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", args.baton.display()))?;
        let ready = wait_for(&ready_file, &mut dev).await?;
        let field = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        let admin = &ready["admin"];
        let workers = admin["workers"].as_array().into_iter().flatten();
        let admin = std::iter::once(&admin["ingress"]).chain(workers);
        Ok(Self {
            direct,
            bare,
            admin: admin.filter_map(Value::as_str).map(str::to_owned).collect(),
            baton: format!("{}/v1", field("base_url")),
            api_key: field("api_key"),
            ledger: field("database_url"),
            tenant: field("tenant"),
            dev,
            upstream,
            _data: data,
        })
    }

    pub(crate) fn load(&self, way: Way, model: &str, clients: usize, until: Until) -> Load {
        let base_url = match way {
            Way::Direct => &self.direct,
            Way::Bare => &self.bare.url,
            Way::Baton => &self.baton,
        };
        Load {
            route: Route::Chat,
            base_url: base_url.clone(),
            api_key: (way == Way::Baton).then(|| self.api_key.clone()),
            model: model.to_owned(),
            clients,
            until,
        }
    }

    /// Runs the same load over all three ways, one after the other.
    pub(crate) async fn all(
        &self,
        model: &str,
        clients: usize,
        until: Until,
    ) -> anyhow::Result<Reports> {
        Ok(Reports {
            direct: self.run(Way::Direct, model, clients, until).await?,
            bare: self.run(Way::Bare, model, clients, until).await?,
            baton: self.run(Way::Baton, model, clients, until).await?,
        })
    }

    /// Runs a load, after a short one that is not measured: connections, statements and pools are
    /// set up once in a server's life.
    pub(crate) async fn run(
        &self,
        way: Way,
        model: &str,
        clients: usize,
        until: Until,
    ) -> anyhow::Result<LoadReport> {
        let warm_up = self.load(way, model, clients, Until::Answers(2));
        check(&warm_up.run().await?)?;
        let report = self.load(way, model, clients, until).run().await?;
        check(&report)?;
        Ok(report)
    }

    /// Returns the use of a way's processes, without the upstream.
    pub(crate) fn usage(&self, way: Way) -> BTreeMap<String, Usage> {
        match way {
            Way::Direct => BTreeMap::new(),
            Way::Bare => self.bare.usage(),
            Way::Baton => process_usage::by_name(self.dev.id().unwrap_or_default(), "baton dev"),
        }
    }

    pub(crate) async fn strike(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.dev.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        let status = self.dev.wait().await?;
        self.upstream.kill().await?;
        self.bare.ingress.kill().await?;
        self.bare.worker.kill().await?;
        self.bare.nats.stop().await?;
        if !status.success() {
            bail!("baton dev ended with {status}: see target/bench.log");
        }
        Ok(())
    }
}

async fn wait_for(ready_file: &Path, dev: &mut Child) -> anyhow::Result<Value> {
    loop {
        if let Ok(text) = std::fs::read_to_string(ready_file) {
            return Ok(serde_json::from_str(&text)?);
        }
        if let Some(status) = dev.try_wait()? {
            bail!("baton dev ended with {status}: see target/bench.log");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn check(report: &LoadReport) -> anyhow::Result<()> {
    if report.failed > 0 {
        let why = report.first_failure.as_deref().unwrap_or("unknown");
        bail!("{} of the requests failed, the first: {why}", report.failed);
    }
    Ok(())
}
