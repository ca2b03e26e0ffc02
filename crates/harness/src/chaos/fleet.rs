//! The roles as processes, each behind proxies of its own and started again when it ends.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use super::record::Recorder;
use crate::checker::{Asked, What};
use crate::client::Client;
use crate::process_usage;

/// As an orchestrator would, only sooner.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// How long a role may take from SIGTERM to its end when nothing is broken.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// How often the roles' memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    /// Further settings.
    pub extra: Vec<(&'static str, String)>,
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
            .envs(self.extra.iter().map(|(name, value)| (name, value)))
            // Last, so that a caller can change anything.
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

    /// Where the schema's owner connects to the database, past all proxies.
    pub(super) fn owner_url(&self) -> String {
        let (owner, _, password, name) = &self.login;
        format!("postgres://{owner}:{password}@{}/{name}", self.database)
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
    signals: Arc<Mutex<Signals>>,
    admin: SocketAddr,
    http: Option<SocketAddr>,
    broker: Proxy,
    database: Proxy,
    name: String,
}

/// What the role's present process was asked, and when it was last asked to end.
#[derive(Debug, Default)]
struct Signals {
    asked: Asked,
    last_termination: Option<Instant>,
}

impl Signals {
    fn sent(&mut self, signal: Signal) {
        match signal {
            Signal::SIGKILL => self.asked.killed = true,
            Signal::SIGSTOP => self.asked.frozen = true,
            Signal::SIGTERM => {
                self.asked.terminations += 1;
                self.last_termination = Some(Instant::now());
            }
            _ => {}
        }
    }
}

/// What every role is started with.
struct Start {
    setting: Arc<Setting>,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    tasks: TaskTracker,
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
        self.role(target).signal(None, signal)
    }

    /// Sends a signal to a process, if it still is the role's.
    pub fn signal_same(&self, target: Target, pid: u32, signal: Signal) {
        self.role(target).signal(Some(pid), signal);
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

fn send(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

impl Role {
    async fn start(start: &Start, kind: &'static str, index: usize) -> anyhow::Result<Self> {
        let (sender, pid) = watch::channel(None);
        let setting = &start.setting;
        let role = Self {
            pid,
            signals: Arc::default(),
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
        let supervisor = Supervisor {
            role: kind,
            pid: sender,
            signals: Arc::clone(&role.signals),
            recorder: Arc::clone(&start.recorder),
            stop: start.stop.clone(),
        };
        start.tasks.spawn(supervisor.run(spawn));
        Ok(role)
    }

    /// Sends a signal to the process, if there is one, and if it is the one that is meant.
    fn signal(&self, only: Option<u32>, signal: Signal) -> Option<u32> {
        // Taken first, so that a process which ends of it has been asked.
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = (*self.pid.borrow()).filter(|pid| only.is_none_or(|only| only == *pid))?;
        // In its first moments nothing has been begun, and every signal is the end.
        let is_heard = listens(pid, signal);
        let sent = send(pid, signal);
        if sent {
            signals.sent(if is_heard { signal } else { Signal::SIGKILL });
        }
        sent.then_some(pid)
    }
}

/// Whether a process has a handler for a signal that it could have one for.
fn listens(pid: u32, signal: Signal) -> bool {
    if signal != Signal::SIGTERM {
        return true;
    }
    // Where the kernel does not say, it is taken for granted.
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| {
        caught(&status).is_none_or(|caught| caught & (1 << (signal as u64 - 1)) != 0)
    })
}

/// The signals that a process has handlers for, by what `/proc/<pid>/status` says.
fn caught(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Starts a role again whenever it ends.
struct Supervisor {
    role: &'static str,
    pid: watch::Sender<Option<u32>>,
    signals: Arc<Mutex<Signals>>,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self, spawn: impl Fn() -> std::io::Result<Child>) {
        while !self.stop.is_cancelled() {
            if let Ok(mut child) = spawn() {
                self.begin(child.id());
                let watching = self.watch_memory(child.id());
                let status = tokio::select! {
                    status = child.wait() => status,
                    never = watching => never,
                };
                self.end(status);
            }
            self.stop
                .run_until_cancelled(tokio::time::sleep(RESTART_AFTER))
                .await;
        }
    }

    fn begin(&self, pid: Option<u32>) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        *signals = Signals::default();
        self.pid.send_replace(pid);
    }

    fn end(&self, status: std::io::Result<ExitStatus>) {
        let signals = {
            let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
            self.pid.send_replace(None);
            std::mem::take(&mut *signals)
        };
        let status = status.ok().and_then(|status| {
            let by_signal = || Some(128 + status.signal()?);
            status.code().or_else(by_signal)
        });
        self.recorder.note(What::Ended {
            role: self.role.to_owned(),
            asked: signals.asked,
            status: status.unwrap_or(-1),
            took_ms: signals.last_termination.map_or(0, |since| {
                u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
            }),
        });
    }

    /// Notes how much the process holds, whenever it is more than before. Never ends.
    async fn watch_memory(&self, pid: Option<u32>) -> std::io::Result<ExitStatus> {
        let mut most = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let resident = pid.and_then(process_usage::resident).unwrap_or(0);
            if resident > most + most / 8 {
                most = resident;
                let role = self.role.to_owned();
                self.recorder.note(What::Memory { role, resident });
            }
        }
    }
}

async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_read_from_what_the_kernel_says() {
        let status = "Name:\tbaton\nSigIgn:\t0000000000001000\nSigCgt:\t0000000100004442\n";
        let sigterm = 1 << (Signal::SIGTERM as u64 - 1);
        assert_eq!(caught(status).map(|caught| caught & sigterm), Some(sigterm));
        assert_eq!(caught("SigCgt:\t0000000000000000\n"), Some(0));
        assert_eq!(caught("Name:\tbaton\n"), None);
    }
}
