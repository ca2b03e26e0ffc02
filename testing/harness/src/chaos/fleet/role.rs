//! One role: its process, the settings of the process, and its proxies to the servers.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_devstack::{DevstackError, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::proxy::Proxy;
use super::super::record::Recorder;
use super::setting::Setting;
use super::supervisor::{Signals, Supervisor};
use crate::client::Client;

/// One role: its process, and its proxies to the servers.
#[derive(Debug)]
pub(super) struct Role {
    pid: watch::Receiver<Option<u32>>,
    signals: Arc<Mutex<Signals>>,
    pub(super) admin: SocketAddr,
    pub(super) http: Option<SocketAddr>,
    pub(super) broker: Proxy,
    pub(super) database: Proxy,
    pub(super) name: String,
}

/// The settings that every role is started with.
pub(super) struct Start {
    pub(super) setting: Arc<Setting>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Role {
    pub(super) async fn start(
        start: &Start,
        kind: &'static str,
        index: usize,
    ) -> anyhow::Result<Self> {
        let (sender, pid) = watch::channel(None);
        let setting = &start.setting;
        let role = Self {
            pid,
            signals: Arc::default(),
            admin: free_address()?,
            http: match kind {
                "ingress" => Some(free_address()?),
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
            let starts = AtomicUsize::new(0);
            move || {
                let program = setting.program(index, starts.fetch_add(1, Ordering::Relaxed));
                let mut command = setting.command(program, kind, broker, database);
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

    /// Waits until the process reports that it is ready.
    pub(super) async fn until_ready(&self) -> Result<(), Elapsed> {
        const LIMIT: Duration = Duration::from_mins(1);

        let admin = Client::new(self.admin, "");
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
        timeout(LIMIT, asking).await
    }

    /// Returns the process, if there is one now.
    pub(super) fn process(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Sends a signal to the process, if there is one. With `only`, to no other process than that.
    pub(super) fn signal(&self, only: Option<u32>, signal: Signal) -> Option<u32> {
        // The lock is taken first, so that a process which ends of the signal is recorded as asked.
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = (*self.pid.borrow()).filter(|pid| only.is_none_or(|only| only == *pid))?;
        // In its first moments a process has no handlers, and every signal ends it.
        let is_heard = listens(pid, signal);
        let sent = send(pid, signal);
        if sent {
            signals.sent(if is_heard { signal } else { Signal::SIGKILL });
        }
        sent.then_some(pid)
    }
}

fn send(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// Returns whether a process has a handler for a signal that can have one.
fn listens(pid: u32, signal: Signal) -> bool {
    if signal != Signal::SIGTERM {
        return true;
    }
    // If the kernel does not tell, a handler is assumed.
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| {
        caught(&status).is_none_or(|caught| caught & (1 << (signal as u64 - 1)) != 0)
    })
}

/// Returns the signals that a process has handlers for, from `/proc/<pid>/status`.
fn caught(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Returns an address that no outgoing connection takes while the role is down.
fn free_address() -> Result<SocketAddr, DevstackError> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
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
