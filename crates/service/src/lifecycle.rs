//! A stop in two stages: soft (finish the work in progress), then hard (drop it).
//!
//! The first SIGTERM or SIGINT stops softly, the second one hard. The exit code shows the end: 0
//! after a clean stop, 1 after a failure, 128 plus the signal's number after a hard stop.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time that a role has to return after a hard stop.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// The two stop requests, and the tasks that obey them. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take no new work, finish the work in progress.
    pub soft: CancellationToken,
    /// Drop everything now. Implies `soft`.
    pub hard: CancellationToken,
    /// Every task that must have ended before the process does.
    pub tracker: TaskTracker,
}

impl Shutdown {
    /// Makes one without requests and tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests a soft stop.
    pub fn stop_soft(&self) {
        self.soft.cancel();
    }

    /// Requests a hard stop.
    pub fn stop_hard(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Returns a part with its own stop and tracker, which also stops when this one does.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            soft: self.soft.child_token(),
            hard: self.hard.child_token(),
            tracker: TaskTracker::new(),
        }
    }

    /// Waits until all tasks have ended, until the hard stop, or for `deadline`. Returns whether
    /// all have ended.
    pub async fn finished(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::select! {
            biased;
            () = self.tracker.wait() => true,
            () = self.hard.cancelled() => false,
            () = tokio::time::sleep(deadline) => false,
        }
    }
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The role returned without an error.
    Clean,
    /// The role returned an error, which has been logged.
    Failed,
    /// A second signal of this number forced it.
    Forced(u8),
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Clean => Self::SUCCESS,
            Ended::Failed => Self::FAILURE,
            Ended::Forced(signal) => Self::from(128 + signal),
        }
    }
}

/// Runs a role to its end, and turns signals into stop requests.
///
/// The role must return by itself after `shutdown.soft`; after `shutdown.hard` it has a second,
/// then it is dropped.
pub async fn run_until_stopped<F, E>(shutdown: &Shutdown, role: F) -> Ended
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return Ended::Failed;
        }
    };
    let mut role = std::pin::pin!(role);
    loop {
        tokio::select! {
            biased;
            result = &mut role => return judge(result),
            signal = signals.next() => {
                if shutdown.soft.is_cancelled() {
                    tracing::warn!(signal = signal.name, "stopping at once");
                    shutdown.stop_hard();
                    if timeout(HARD_GRACE, &mut role).await.is_err() {
                        tracing::warn!("gave up waiting");
                    }
                    return Ended::Forced(signal.number);
                }
                tracing::info!(signal = signal.name, "stopping; a second signal stops at once");
                shutdown.stop_soft();
            }
        }
    }
}

fn judge<E: Display>(result: Result<(), E>) -> Ended {
    match result {
        Ok(()) => Ended::Clean,
        Err(error) => {
            // `{:#}` shows the causes of an `anyhow::Error`.
            tracing::error!(error = format!("{error:#}"), "failed");
            Ended::Failed
        }
    }
}

struct Signal {
    name: &'static str,
    number: u8,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal { name: "SIGTERM", number: 15 },
            _ = self.interrupt.recv() => Signal { name: "SIGINT", number: 2 },
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal {
            name: "Ctrl-C",
            number: 2,
        }
    }
}

/// The outcome of one step of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// It ended by itself.
    Done,
    /// Its deadline passed, and it was dropped.
    TimedOut,
    /// The hard stop came before its end.
    Skipped,
}

/// The report of one step of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// Its outcome.
    pub outcome: StepOutcome,
    /// Its duration.
    pub took: Duration,
}

struct Step<'a> {
    name: &'static str,
    deadline: Duration,
    work: BoxFuture<'a, ()>,
}

/// The steps of a stop in order (HTTP, work, database, broker, telemetry), each with a deadline.
#[derive(Default)]
pub struct StopSequence<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> StopSequence<'a> {
    /// Makes a sequence without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step, which begins when the one before has ended or was given up.
    #[must_use]
    pub fn step(
        mut self,
        name: &'static str,
        deadline: Duration,
        work: impl Future<Output = ()> + Send + 'a,
    ) -> Self {
        self.steps.push(Step {
            name,
            deadline,
            work: Box::pin(work),
        });
        self
    }

    /// Runs the steps one after the other. A hard stop ends the current one and skips the rest.
    pub async fn run(self, hard: &CancellationToken) -> Vec<StepReport> {
        let mut reports = Vec::with_capacity(self.steps.len());
        for Step {
            name,
            deadline,
            work,
        } in self.steps
        {
            let start = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = hard.cancelled() => StepOutcome::Skipped,
                () = work => StepOutcome::Done,
                () = tokio::time::sleep(deadline) => StepOutcome::TimedOut,
            };
            let took = start.elapsed();
            match outcome {
                StepOutcome::Done => tracing::info!(step = name, ?took, "stopped"),
                StepOutcome::TimedOut => {
                    tracing::warn!(step = name, ?took, "not stopped within its deadline");
                }
                StepOutcome::Skipped => tracing::warn!(step = name, ?took, "stopped hard"),
            }
            reports.push(StepReport {
                name,
                outcome,
                took,
            });
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_gives_up_a_late_step_and_goes_on_with_the_next() {
        let hard = CancellationToken::new();
        let reports = StopSequence::new()
            .step("http", Duration::from_secs(5), async {})
            .step("work", Duration::from_secs(5), std::future::pending())
            .step("database", Duration::from_secs(5), async {})
            .run(&hard)
            .await;
        let outcomes: Vec<_> = reports.iter().map(|r| (r.name, r.outcome)).collect();
        assert_eq!(
            outcomes,
            [
                ("http", StepOutcome::Done),
                ("work", StepOutcome::TimedOut),
                ("database", StepOutcome::Done)
            ]
        );
    }

    #[tokio::test]
    async fn the_hard_stop_ends_the_step_under_way_and_skips_the_rest() {
        let hard = CancellationToken::new();
        let stopper = hard.clone();
        let reports = StopSequence::new()
            .step("work", Duration::from_mins(1), async move {
                stopper.cancel();
                std::future::pending::<()>().await;
            })
            .step("database", Duration::from_mins(1), async {})
            .run(&hard)
            .await;
        assert!(
            reports.iter().all(|r| r.outcome == StepOutcome::Skipped),
            "{reports:?}"
        );
    }

    #[tokio::test]
    async fn a_role_that_fails_or_ends_by_itself_says_so_in_the_exit_code() {
        let shutdown = Shutdown::new();
        let failed = run_until_stopped(&shutdown, async { Err("no database") }).await;
        assert_eq!(failed, Ended::Failed);
        let clean = run_until_stopped(&shutdown, async { Ok::<(), String>(()) }).await;
        assert_eq!(clean, Ended::Clean);
    }

    #[tokio::test]
    async fn a_part_is_stopped_with_the_whole_but_not_the_whole_with_the_part() {
        let whole = Shutdown::new();
        let (one, other) = (whole.child(), whole.child());
        one.stop_hard();
        assert!(!whole.soft.is_cancelled() && !other.soft.is_cancelled());
        whole.stop_soft();
        assert!(other.soft.is_cancelled() && !other.hard.is_cancelled());
    }
}
