//! One running server process, and the guardian that stops it if its owner cannot.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::DevstackError;
use crate::account::Account;
use crate::data_dir::DataDir;

/// The interval of checks for a server's end or readiness. Short, because tests wait for it.
const POLL: Duration = Duration::from_millis(5);

/// The way to stop a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopBy {
    /// The signal.
    pub(crate) signal: Signal,
    /// The time until harder signals follow.
    pub(crate) grace: Duration,
}

/// A server that this process started. If it is dropped while it runs, its guardian stops it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    server: &'static str,
    /// Taken when the process has ended and its status was read.
    child: Option<Child>,
    pid: u32,
    guardian: Option<Guardian>,
    stop_by: StopBy,
    log_start: u64,
}

/// A reason for which a server is not ready.
#[derive(Debug)]
pub(crate) enum NotReady {
    /// Another process has the port.
    AddressInUse(DevstackError),
    /// Another error.
    Failed(DevstackError),
}

impl NotReady {
    /// Returns the error of either kind.
    pub(crate) fn into_error(self) -> DevstackError {
        match self {
            Self::AddressInUse(error) | Self::Failed(error) => error,
        }
    }
}

impl ServerProcess {
    /// Starts `command` as `account`, with its output in the folder's log and its own process
    /// group, under a guardian.
    pub(crate) fn start(
        server: &'static str,
        mut command: Command,
        data: &DataDir,
        account: &Account,
        stop_by: StopBy,
    ) -> Result<Self, DevstackError> {
        // The guardian starts first: if this process dies between the two, it has nothing to stop.
        let mut guardian = Guardian::start(data, stop_by)?;
        let (log, log_start) = data.open_log()?;
        let log_again = log
            .try_clone()
            .map_err(DevstackError::io("share a log file"))?;
        command
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(log_again))
            .process_group(0);
        account.apply(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(DevstackError::io(format!("run {program}")))?;
        let pid = child.id();
        let process = |guardian| Self {
            server,
            child: Some(child),
            pid,
            guardian,
            stop_by,
            log_start,
        };
        match guardian.watch(pid) {
            Ok(()) => Ok(process(Some(guardian))),
            Err(error) => {
                process(None).signal(Signal::SIGKILL);
                Err(DevstackError::io("reach the guardian process")(error))
            }
        }
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten();
        if status.is_some() {
            self.child = None;
            // Dismissed at once, so that it never signals a later process with the same id.
            if let Some(guardian) = self.guardian.take() {
                guardian.dismiss();
            }
        }
        status
    }

    /// Returns whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.ended();
        self.child.is_some()
    }

    /// Waits until `probe` returns true, the process ends, or `limit` is over.
    pub(crate) async fn until_ready(
        &mut self,
        data: &DataDir,
        limit: Duration,
        probe: impl AsyncFn() -> bool,
    ) -> Result<(), NotReady> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Err(self.not_ready(data, format!("it ended with {status}")));
            }
            // A probe that hangs must not outlast the server's end.
            let ready = tokio::time::timeout(Duration::from_secs(1), probe()).await;
            if ready == Ok(true) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let why = format!("it was not ready within {} s", limit.as_secs());
                return Err(self.not_ready(data, why));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn not_ready(&self, data: &DataDir, why: String) -> NotReady {
        const LINES: usize = 20;

        let said = data.logged_since(self.log_start);
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        let tail = lines[lines.len().saturating_sub(LINES)..].to_vec();
        let error = DevstackError::StartFailed {
            server: self.server,
            why,
            log: data.log(),
            tail,
        };
        if said.to_lowercase().contains("address already in use") {
            NotReady::AddressInUse(error)
        } else {
            NotReady::Failed(error)
        }
    }

    /// Stops it as agreed at its start, with harder signals after the grace, and waits for its end.
    /// Does nothing if it has ended.
    pub(crate) async fn stop(&mut self) {
        self.stop_by(self.stop_by).await;
    }

    /// Stops it in another way than agreed.
    pub(crate) async fn stop_by(&mut self, by: StopBy) {
        self.signal(by.signal);
        if self.ends_within(by.grace).await {
            return;
        }
        self.signal(Signal::SIGQUIT);
        if self.ends_within(Duration::from_secs(3)).await {
            return;
        }
        self.signal(Signal::SIGKILL);
        while self.is_running() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it has ended, for any reason.
    pub(crate) async fn until_ended(&mut self) {
        while self.is_running() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Sends a signal, if the process has not ended. Its id is not reused until its status is read.
    fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // The only possible failure is that it is ending just now.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let guardian = self.guardian.take();
        let Some(mut child) = self.child.take() else {
            return;
        };
        // Closing the pipe without a word makes the guardian stop the server.
        let stopping = guardian.map(Guardian::abandon);
        // The statuses must be read, because the ended processes would otherwise remain as zombies.
        // If this process ends before the thread, init reads them.
        std::thread::spawn(move || {
            let _ = child.wait();
            if let Some(mut stopping) = stopping {
                let _ = stopping.wait();
            }
        });
    }
}

/// The shell that waits on a pipe for this process's death.
#[derive(Debug)]
struct Guardian {
    shell: Child,
    /// Closed on exec, so no other child process keeps it open.
    pipe: ChildStdin,
}

impl Guardian {
    fn start(data: &DataDir, by: StopBy) -> Result<Self, DevstackError> {
        let lock: File = data.share_lock()?;
        let signal = by.signal.as_str().trim_start_matches("SIG");
        let tenths = (by.grace.as_millis() / 100).to_string();
        let mut shell = Command::new("/bin/sh")
            .args([
                "-c",
                include_str!("guardian.sh"),
                "baton-guardian",
                signal,
                &tenths,
            ])
            .arg(
                data.to_remove()
                    .map(std::path::Path::as_os_str)
                    .unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::from(lock))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(DevstackError::io("run /bin/sh"))?;
        match shell.stdin.take() {
            Some(pipe) => Ok(Self { shell, pipe }),
            None => Err(DevstackError::io("reach the guardian process")(
                io::Error::other("it has no standard input"),
            )),
        }
    }

    fn watch(&mut self, pid: u32) -> io::Result<()> {
        writeln!(self.pipe, "{pid}")
    }

    /// Reports the server's end to it and waits for its own end, which takes a millisecond.
    fn dismiss(mut self) {
        let _ = writeln!(self.pipe, "done");
        drop(self.pipe);
        let _ = self.shell.wait();
    }

    /// Closes the pipe, so that it stops the server.
    fn abandon(self) -> Child {
        self.shell
    }
}
