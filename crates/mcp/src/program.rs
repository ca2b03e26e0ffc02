//! A server as a local program: its process, its limits and its output.
//!
//! The protocol goes over the program's standard input and output. The program is the leader of a process
//! group of its own, which is killed with the connection, so that no process that it began outlives it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, prlimit, waitid,
};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The longest line of a program's standard error that is passed on, in bytes. A longer one is cut into several.
const MAX_LINE: u64 = 1024;
/// The most lines in a [`WINDOW`]; further ones are counted.
const MAX_LINES: usize = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Takes the lines of a program's standard error.
type OnLine = Arc<dyn Fn(String) + Send + Sync>;

/// A program that speaks MCP over its standard input and output.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    /// The whole environment; its values count as secrets.
    pub(crate) environment: BTreeMap<String, String>,
    /// The most memory of each of its processes, in bytes.
    memory: u64,
    on_line: OnLine,
}

impl Program {
    /// Makes a program without an environment. `on_line` hears the lines of its standard error.
    pub fn new(
        path: PathBuf,
        arguments: Vec<String>,
        memory: u64,
        on_line: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        Self {
            path,
            arguments,
            environment: BTreeMap::new(),
            memory,
            on_line: Arc::new(on_line),
        }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn with_variable(mut self, name: String, value: String) -> Self {
        self.environment.insert(name, value);
        self
    }

    /// Starts the program. `clear` removes secrets from the lines of its standard error.
    pub(crate) fn start(
        &self,
        clear: impl Fn(String) -> String + Send + 'static,
    ) -> io::Result<(Process, ChildStdout, ChildStdin)> {
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(group), (Some(input), Some(output), Some(errors))) = (pid, pipes) else {
            return Err(io::Error::other("it ended at once"));
        };
        let process = Process {
            group,
            state: Mutex::new(State { child, end: None }),
        };
        // Data alone: programs with a garbage collector reserve far more addresses than they use.
        let most = Some(self.memory);
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        prlimit(Some(group), Resource::Data, limit)?;
        let on_line = Arc::clone(&self.on_line);
        TaskTracker::new().spawn(read_lines(errors, move |line| on_line(clear(line))));
        Ok((process, output, input))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A started program. Dropping it kills the program, and all that it began in its group.
pub(crate) struct Process {
    group: Pid,
    state: Mutex<State>,
}

struct State {
    child: Child,
    /// The end of the program, once it is killed.
    end: Option<String>,
}

impl Process {
    /// Returns whether the program has ended. Processes that it began may still hold its output open.
    pub(crate) fn has_ended(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end.is_some() || self.is_exited()
    }

    /// Looks at the leader, and leaves it to be reaped: until then nobody else can have its number.
    fn is_exited(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.group), look), Ok(Some(_)))
    }

    /// Kills what is left of the program, and returns how it ended.
    pub(crate) fn end(&self) -> String {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = &state.end {
            return end.clone();
        }
        let by_itself = self.is_exited();
        let _ = kill_process_group(self.group, Signal::KILL);
        let end = match state.child.try_wait() {
            Ok(Some(status)) if by_itself => words(status),
            _ => "it closed its output".to_owned(),
        };
        state.end = Some(end.clone());
        end
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with the exit code {code}"),
        (None, Some(signal)) => format!("it was ended by the signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Passes the lines of a standard error on, so many in a window.
async fn read_lines(errors: impl AsyncRead + Unpin, on_line: impl Fn(String)) {
    let mut reader = BufReader::new(errors);
    let mut line = Vec::new();
    let mut since = Instant::now();
    let (mut shown, mut left_out) = (0, 0_u64);
    loop {
        line.clear();
        let mut part = (&mut reader).take(MAX_LINE);
        if !matches!(part.read_until(b'\n', &mut line).await, Ok(1..)) {
            break;
        }
        if since.elapsed() >= WINDOW {
            since = Instant::now();
            shown = 0;
            if left_out > 0 {
                on_line(format!("[{left_out} lines left out]"));
                left_out = 0;
            }
        }
        if shown == MAX_LINES {
            left_out += 1;
            continue;
        }
        shown += 1;
        let text = String::from_utf8_lossy(&line);
        let printable = text.trim_end().chars();
        on_line(
            printable
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        );
    }
    if left_out > 0 {
        on_line(format!("[{left_out} lines left out]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_lines_is_cut_and_counted() {
        let flood = format!("{}\n{}", "x".repeat(1500), "y\u{7}\n".repeat(30));
        let lines = Mutex::new(Vec::new());
        read_lines(flood.as_bytes(), |line| lines.lock().unwrap().push(line)).await;
        let lines = lines.into_inner().unwrap();
        assert_eq!(lines.len(), MAX_LINES + 1, "{lines:?}");
        assert_eq!((lines[0].len(), lines[1].len()), (1024, 476));
        assert_eq!(lines[2], "y ");
        assert_eq!(lines[MAX_LINES], "[12 lines left out]");
    }
}
