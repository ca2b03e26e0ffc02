//! The roles as processes. Each is behind proxies of its own and restarted when it ends.

mod role;
mod setting;
mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::plan::{INGRESSES, Server, Target, WORKERS};
use super::proxy::Mode;
use super::record::Recorder;

pub use setting::{LEASE, Setting};

use role::{Role, Start};

/// The time from SIGTERM to the end of a role when nothing is broken.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// All roles.
#[derive(Debug)]
pub struct Fleet {
    workers: Vec<Role>,
    ingresses: Vec<Role>,
    scheduler: Role,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Fleet {
    /// Starts all roles, and waits until they are ready.
    pub async fn start(setting: Arc<Setting>, recorder: Arc<Recorder>) -> anyhow::Result<Self> {
        let start = Start {
            setting,
            recorder,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let mut workers = Vec::new();
        for index in 0..WORKERS {
            workers.push(Role::start(&start, "worker", index).await?);
        }
        let mut ingresses = Vec::new();
        for index in 0..INGRESSES {
            ingresses.push(Role::start(&start, "ingress", index).await?);
        }
        let scheduler = Role::start(&start, "scheduler", 0).await?;
        let fleet = Self {
            workers,
            ingresses,
            scheduler,
            stop: start.stop,
            tasks: start.tasks,
        };
        fleet.until_ready().await?;
        Ok(fleet)
    }

    /// Waits until every role reports that it is ready.
    pub async fn until_ready(&self) -> anyhow::Result<()> {
        for role in self.roles() {
            role.until_ready()
                .await
                .with_context(|| format!("{} is not ready: see its log", role.name))?;
        }
        Ok(())
    }

    /// As [`Fleet::until_ready`], but kills a role that does not become ready, so that another
    /// process replaces it. Returns the names of the killed roles.
    pub async fn until_ready_or_replaced(&self) -> anyhow::Result<Vec<String>> {
        let mut stuck = Vec::new();
        for role in self.roles() {
            if role.until_ready().await.is_err() {
                stuck.push(role.name.clone());
                role.signal(None, Signal::SIGKILL);
            }
        }
        self.until_ready().await?;
        Ok(stuck)
    }

    fn roles(&self) -> impl Iterator<Item = &Role> {
        let scheduler = std::iter::once(&self.scheduler);
        self.workers.iter().chain(&self.ingresses).chain(scheduler)
    }

    /// Returns the addresses of the ingresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ingresses.iter().filter_map(|role| role.http).collect()
    }

    fn role(&self, target: Target) -> &Role {
        match target {
            Target::Worker(index) => &self.workers[index],
            Target::Ingress(index) => &self.ingresses[index],
            Target::Scheduler => &self.scheduler,
        }
    }

    /// Sends a signal to the role's process and returns its id; `None` if there is no process now.
    pub fn signal(&self, target: Target, signal: Signal) -> Option<u32> {
        self.role(target).signal(None, signal)
    }

    /// Returns the role's process, if there is one now.
    pub fn process_of(&self, target: Target) -> Option<u32> {
        self.role(target).process()
    }

    /// Returns whether this still is the role's process.
    pub fn is_process_of(&self, target: Target, pid: u32) -> bool {
        self.process_of(target) == Some(pid)
    }

    /// Sends a signal to a process, if it still is the role's.
    pub fn signal_same(&self, target: Target, pid: u32, signal: Signal) {
        self.role(target).signal(Some(pid), signal);
    }

    /// Disturbs the connections from a role to a server.
    pub fn link(&self, target: Target, server: Server, mode: Mode) {
        let role = self.role(target);
        match server {
            Server::Broker => role.broker.set(mode),
            Server::Database => role.database.set(mode),
        }
    }

    /// Mends all connections.
    pub fn heal(&self) {
        for role in self.roles() {
            role.broker.set(Mode::Pass);
            role.database.set(Mode::Pass);
        }
    }

    /// Stops every role by SIGTERM. Returns the roles that did not end in order.
    pub async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        let mut amiss = Vec::new();
        for role in self.roles() {
            role.signal(None, Signal::SIGTERM);
        }
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait())
            .await
            .is_err()
        {
            for role in self.roles() {
                if role.signal(None, Signal::SIGKILL).is_some() {
                    amiss.push(format!("{} does not end on SIGTERM", role.name));
                }
            }
        }
        amiss
    }
}
