//! One role as a child process: started, signalled, waited for.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_devstack::{DevstackError, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};
use crate::process_usage::{self, by_name};

/// The interval of asking a role whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// The kind of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Serves HTTP.
    Ingress,
    /// Runs agents.
    Worker,
    /// Repairs.
    Scheduler,
}

impl Kind {
    /// Returns the sub-command.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// A running role. It is killed when this is dropped.
#[derive(Debug)]
pub struct Role {
    kind: Kind,
    child: Child,
    admin: SocketAddr,
    /// The address that an ingress serves.
    pub(super) http: Option<SocketAddr>,
}

impl Role {
    pub(super) async fn start(
        kind: Kind,
        mut command: Command,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let admin = free_address()?;
        let http = match kind {
            Kind::Ingress => Some(free_address()?),
            Kind::Worker | Kind::Scheduler => None,
        };
        if let Some(http) = http {
            command.env("BATON_HTTP__LISTEN", http.to_string());
        }
        let log = File::create(log)?;
        let child = command
            .arg(kind.name())
            .env(
                format!("BATON_ADMIN__{}", kind.name().to_uppercase()),
                admin.to_string(),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("baton {} cannot be started", kind.name()))?;
        let mut role = Self {
            kind,
            child,
            admin,
            http,
        };
        timeout(PATIENCE, role.until_ready())
            .await
            .with_context(|| format!("baton {} is not ready", kind.name()))??;
        Ok(role)
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let admin = Client::new(self.admin, "");
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("baton {} ended: {status}", self.kind.name());
            }
            match admin.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Returns a client of this ingress, with this key or access token.
    ///
    /// # Panics
    ///
    /// If the role is no ingress.
    pub fn client(&self, credential: &str) -> Client {
        Client::new(self.address(), credential)
    }

    /// Returns a client of its admin port.
    pub fn admin(&self) -> Client {
        Client::new(self.admin, "")
    }

    /// Returns the address that an ingress serves.
    ///
    /// # Panics
    ///
    /// If the role is no ingress.
    pub fn address(&self) -> SocketAddr {
        self.http.expect("only an ingress has clients")
    }

    /// Returns its memory in bytes.
    pub fn memory(&self) -> u64 {
        let usage = self.child.id().map(|pid| by_name(pid, "role"));
        usage.map_or(0, |usage| usage.values().map(|usage| usage.memory).sum())
    }

    /// Counts its threads of this name.
    pub fn threads(&self, name: &str) -> usize {
        self.child
            .id()
            .map_or(0, |pid| process_usage::threads(pid, name))
    }

    /// Asks it to stop: SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Asks it to read its configuration again: SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Freezes it: SIGSTOP. Its connections stay open, and it answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it continue: SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it by SIGKILL, as a crash would, and waits for its end.
    pub async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        // SIGKILL cannot be refused.
        let _ended = self.child.wait().await;
    }

    /// Waits for its end and returns its exit code; for a signal, 128 plus the signal's number.
    pub async fn exit_code(&mut self) -> anyhow::Result<i32> {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("baton {} does not end", self.kind.name()))??;
        Ok(status
            .code()
            .or_else(|| Some(128 + status.signal()?))
            .unwrap_or(-1))
    }

    /// Waits until it reports that it is not ready.
    pub async fn until_unready(&self) -> anyhow::Result<()> {
        let admin = Client::new(self.admin, "");
        let unready = async {
            while admin
                .get("/readyz")
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, unready)
            .await
            .with_context(|| format!("baton {} stays ready", self.kind.name()))
    }

    /// Waits until it reports that it can never work again; returns its answer.
    pub async fn until_dead(&self) -> anyhow::Result<String> {
        let admin = Client::new(self.admin, "");
        let dead = async {
            loop {
                let answer = admin.get("/livez").await?;
                if answer.status == 503 {
                    return Ok(answer.text()?.to_owned());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, dead)
            .await
            .with_context(|| format!("baton {} stays alive", self.kind.name()))?
    }

    /// Returns all its metrics in the format of Prometheus.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let answer = Client::new(self.admin, "").get("/metrics").await?;
        Ok(answer.text()?.to_owned())
    }

    /// Returns all its metrics in the format of OpenMetrics.
    pub async fn open_metrics(&self) -> anyhow::Result<String> {
        let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
        let client = Client::new(self.admin, "");
        let answer = client.get_with("/metrics", &accept).await?;
        Ok(answer.text()?.to_owned())
    }

    /// Returns the value of a counter or gauge, a whole number, summed over its series.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let metrics = self.metrics().await?;
        Ok(metrics
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum())
    }

    /// Waits until a metric is at least `least`.
    pub async fn until_metric(&self, name: &str, least: u64) -> anyhow::Result<()> {
        let reached = async {
            while self.metric(name).await? < least {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        timeout(PATIENCE, reached)
            .await
            .with_context(|| format!("{name} stays below {least}"))?
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // It may be ending at this moment.
            let _ended = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Returns an address that no outgoing connection takes while the role is down.
fn free_address() -> Result<SocketAddr, DevstackError> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}
