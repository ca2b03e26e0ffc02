//! The roles as processes, each behind proxies of its own and started again when it ends.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::plan::{INGRESSES, Server, Target, WORKERS};
use super::proxy::{Mode, Proxy};
use crate::client::Client;

/// As an orchestrator would, only sooner.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// How long a role may take from SIGTERM to its end when nothing is broken.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How long a run belongs to a worker without renewal.
pub const LEASE: Duration = Duration::from_secs(3);

/// Short times, so that an hour holds many recoveries.
const SETTINGS: &[(&str, &str)] = &[
    ("BATON_WORKER__LEASE", "3s"),
    ("BATON_WORKER__RENEW_EVERY", "700ms"),
    ("BATON_WORKER__DRAIN", "5s"),
    // Deaths are plentiful here, and no fault of the run's.
    ("BATON_WORKER__MAX_FAILURES", "100"),
    ("BATON_SCHEDULER__SWEEP_EVERY", "1s"),
    ("BATON_SCHEDULER__PUBLISH_TIMEOUT", "2s"),
    ("BATON_HTTP__LAME_DUCK", "200ms"),
    ("BATON_HTTP__DRAIN", "3s"),
    // As by default, a little less than what it takes to replace a worker.
    ("BATON_HTTP__HEARTBEAT", "3s"),
    ("BATON_DATABASE__ACQUIRE_TIMEOUT", "2s"),
    ("BATON_NATS__CONNECT_TIMEOUT", "1s"),
    ("BATON_LLM__FIRST_BYTE_TIMEOUT", "3s"),
    ("BATON_LLM__IDLE_TIMEOUT", "3s"),
    ("LLM_DEFAULT_MODEL", "chaos"),
];

/// What every process of Baton is told.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The program.
    pub baton: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where the roles' logs go.
    pub folder: PathBuf,
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// Where the database listens.
    pub database: SocketAddr,
    /// The database's users and their password, and its name: `(owner, app, password, database)`.
    pub login: (String, String, String, String),
    /// Where the model is reached.
    pub upstream: SocketAddr,
}

impl Setting {
    /// The program, with the servers reached at these addresses.
    fn command(&self, broker: SocketAddr, database: SocketAddr) -> Command {
        let (owner, app, password, name) = &self.login;
        let url = |user: &str| format!("postgres://{user}:{password}@{database}/{name}");
        let mut command = Command::new(&self.baton);
        command
            .env_clear()
            .env("BATON_CONFIG", &self.config)
            .env("NATS_URL", format!("nats://{broker}"))
            .env("DATABASE_URL", url(app))
            .env("DATABASE_MIGRATE_URL", url(owner))
            .env("LLM_BASE_URL", format!("http://{}/v1", self.upstream))
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .envs(SETTINGS.iter().copied())
            // Last, so that a caller can switch something off and see the checker turn red.
            .envs(std::env::vars().filter(|(name, _)| is_setting(name)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Where the application connects to the database, past all proxies.
    pub fn database_url(&self) -> String {
        let (_, app, password, name) = &self.login;
        format!("postgres://{app}:{password}@{}/{name}", self.database)
    }

    /// Runs a command to its end; returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(self.broker, self.database);
        let output = command.args(arguments).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("baton {}: {}\n{said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Whether an environment variable is a key of the configuration.
fn is_setting(name: &str) -> bool {
    name.starts_with("BATON_") && name.contains("__")
}

/// One role: its process, and its ways to the servers.
#[derive(Debug)]
struct Role {
    pid: watch::Receiver<Option<u32>>,
    admin: SocketAddr,
    http: Option<SocketAddr>,
    broker: Proxy,
    database: Proxy,
    name: String,
}

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
    pub async fn start(setting: Arc<Setting>) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut workers = Vec::new();
        for index in 0..WORKERS {
            workers.push(Role::start(&setting, "worker", index, &stop, &tasks).await?);
        }
        let mut ingresses = Vec::new();
        for index in 0..INGRESSES {
            ingresses.push(Role::start(&setting, "ingress", index, &stop, &tasks).await?);
        }
        let scheduler = Role::start(&setting, "scheduler", 0, &stop, &tasks).await?;
        let fleet = Self {
            workers,
            ingresses,
            scheduler,
            stop,
            tasks,
        };
        fleet.until_ready().await?;
        Ok(fleet)
    }

    /// Waits until every role says that it is ready.
    pub async fn until_ready(&self) -> anyhow::Result<()> {
        const LIMIT: Duration = Duration::from_mins(1);

        for role in self.roles() {
            let admin = Client::new(role.admin, "");
            let asking = async {
                loop {
                    if let Ok(answer) = admin.get("/readyz").await
                        && answer.status == 200
                    {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(LIMIT, asking)
                .await
                .with_context(|| format!("{} is not ready: see its log", role.name))?;
        }
        Ok(())
    }

    fn roles(&self) -> impl Iterator<Item = &Role> {
        let scheduler = std::iter::once(&self.scheduler);
        self.workers.iter().chain(&self.ingresses).chain(scheduler)
    }

    /// Where each ingress serves.
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

    /// Sends a signal to the role's process; returns its id, or nothing if there is none just now.
    pub fn signal(&self, target: Target, signal: Signal) -> Option<u32> {
        let pid = (*self.role(target).pid.borrow())?;
        send(pid, signal).then_some(pid)
    }

    /// Sends a signal to a process, if it still is the role's.
    pub fn signal_same(&self, target: Target, pid: u32, signal: Signal) {
        if *self.role(target).pid.borrow() == Some(pid) {
            send(pid, signal);
        }
    }

    /// Disturbs the way from a role to a server.
    pub fn link(&self, target: Target, server: Server, mode: Mode) {
        let role = self.role(target);
        match server {
            Server::Broker => role.broker.set(mode),
            Server::Database => role.database.set(mode),
        }
    }

    /// Mends all ways.
    pub fn heal(&self) {
        for role in self.roles() {
            role.broker.set(Mode::Pass);
            role.database.set(Mode::Pass);
        }
    }

    /// Stops every role by SIGTERM. Returns what did not end in order.
    pub async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        let mut amiss = Vec::new();
        for role in self.roles() {
            if let Some(pid) = *role.pid.borrow() {
                send(pid, Signal::SIGTERM);
            }
        }
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait())
            .await
            .is_err()
        {
            for role in self.roles() {
                if let Some(pid) = *role.pid.borrow() {
                    amiss.push(format!("{} does not end on SIGTERM", role.name));
                    send(pid, Signal::SIGKILL);
                }
            }
        }
        amiss
    }
}

fn send(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

impl Role {
    async fn start(
        setting: &Arc<Setting>,
        kind: &'static str,
        index: usize,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let (sender, pid) = watch::channel(None);
        let role = Self {
            pid,
            admin: free_address().await?,
            http: match kind {
                "ingress" => Some(free_address().await?),
                _ => None,
            },
            broker: Proxy::start(setting.broker).await?,
            database: Proxy::start(setting.database).await?,
            name: format!("{kind}-{index}"),
        };
        let log = setting.folder.join(format!("{}.log", role.name));
        let spawn = {
            let setting = Arc::clone(setting);
            let (broker, database) = (role.broker.address(), role.database.address());
            let (admin, http) = (role.admin, role.http);
            move || {
                let mut command = setting.command(broker, database);
                let log = open_log(&log)?;
                command
                    .arg(kind)
                    .env(
                        format!("BATON_ADMIN__{}", kind.to_uppercase()),
                        admin.to_string(),
                    )
                    .stdout(log.try_clone()?)
                    .stderr(log);
                if let Some(http) = http {
                    command.env("BATON_HTTP__LISTEN", http.to_string());
                }
                command.spawn()
            }
        };
        tasks.spawn(supervise(spawn, sender, stop.clone()));
        Ok(role)
    }
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

async fn supervise(
    spawn: impl Fn() -> std::io::Result<Child>,
    pid: watch::Sender<Option<u32>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        if let Ok(mut child) = spawn() {
            pid.send_replace(child.id());
            // What it ended with is in its log.
            let _status = child.wait().await;
            pid.send_replace(None);
        }
        stop.run_until_cancelled(tokio::time::sleep(RESTART_AFTER))
            .await;
    }
}

async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()
}
