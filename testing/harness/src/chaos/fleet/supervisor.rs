//! Restarts a role whenever it ends, and records its exit and its memory.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::record::Recorder;
use crate::checker::{Asked, What};
use crate::process_usage;

/// The pause before a restart. An orchestrator would wait longer.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// The interval of looking at the roles' memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The signals that the role's present process was sent, and the time of the last one that asks it
/// to end.
#[derive(Debug, Default)]
pub(super) struct Signals {
    asked: Asked,
    last_termination: Option<Instant>,
}

impl Signals {
    pub(super) fn sent(&mut self, signal: Signal) {
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

/// Restarts a role whenever it ends.
pub(super) struct Supervisor {
    pub(super) role: &'static str,
    pub(super) pid: watch::Sender<Option<u32>>,
    pub(super) signals: Arc<Mutex<Signals>>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: CancellationToken,
}

impl Supervisor {
    pub(super) async fn run(self, spawn: impl Fn() -> std::io::Result<Child>) {
        while !self.stop.is_cancelled() {
            if let Ok(mut child) = spawn() {
                self.begin(child.id());
                let begun = Instant::now();
                let watching = self.watch_memory(child.id());
                let status = tokio::select! {
                    status = child.wait() => status,
                    never = watching => never,
                };
                self.end(status, begun);
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

    fn end(&self, status: std::io::Result<ExitStatus>, begun: Instant) {
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
            took_ms: signals.last_termination.map_or(0, millis_since),
            lived_ms: millis_since(begun),
        });
    }

    /// Records the process's memory whenever it is more than before. Never ends.
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

fn millis_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX)
}
