//! The worker: takes jobs, runs agents, streams their events.
//!
//! ```text
//! consume_jobs ──► run_job ──► attempt ──┬─► agent    what comes next (pure)
//!                    │                   ├─► model    the upstream
//!                    │                   ├─► tools    the server's tools
//!                    └─► keep_lease      └─► EventPublisher ──► the run's log
//! ```
//!
//! A run is claimed by one worker at a time, under a lease by the ledger's clock. The attempt
//! guards all of the worker's writes: the ledger checks each commit, the log each append.

pub mod agent;
mod attempt;
mod consume_jobs;
mod describe_tools;
#[cfg(test)]
mod fixture;
pub mod health_probes;
pub mod job_action;
pub mod keep_lease;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod run_job;
pub mod runner;
pub mod settings;
pub mod tools;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use baton_nats::{Bus, JobSource, Nudge};
use baton_protocol::{Lane, WorkerId};
use baton_service::{Config, LiveConfig, Readiness, SharedClock, Shutdown};
use baton_store::Store;
use tokio_util::sync::CancellationToken;

use crate::consume_jobs::consume_jobs;
use crate::describe_tools::describe_tools;
use crate::keep_lease::LeaseKeeper;
use crate::runner::JobRunner;
use crate::settings::{Settings, take_changes};

/// The interval at which the worker announces itself, for schedulers that have started since.
const HELLO_EVERY: Duration = Duration::from_secs(5);

/// The parts that a worker is built from.
pub struct WorkerDeps {
    /// The configuration.
    pub config: LiveConfig,
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The clock.
    pub clock: SharedClock,
    /// The signal to stop.
    pub shutdown: Shutdown,
    /// Set when jobs are taken.
    pub readiness: Readiness,
}

/// Builds the tools and the upstream's client of a configuration, as a worker does at its start.
///
/// # Errors
/// The first setting that cannot be used.
pub fn check(config: &Config) -> Result<(), String> {
    let shown = |error: anyhow::Error| format!("{error:#}");
    if config.llm.has_upstream() {
        return match Settings::of(config, None) {
            Ok(_) => Ok(()),
            Err(error) => Err(shown(error.into())),
        };
    }
    let tools = tools::ToolRegistry::new(config);
    tools.map(drop).map_err(|error| shown(error.into()))
}

/// Works until the soft stop, then hands over the active runs, and returns when none is left.
pub async fn run(deps: WorkerDeps) -> anyhow::Result<()> {
    let WorkerDeps {
        config: live,
        store,
        bus,
        clock,
        shutdown,
        readiness,
    } = deps;
    let config = live.current();
    let started = readiness.part("jobs");
    let worker = WorkerId::new(clock.now());
    let leases = LeaseKeeper::new(store.clone(), bus.clone(), clock.clone(), &config.worker);
    let settings = Settings::of(&config, None)?;
    metrics::register(config.worker.slots, &settings.names);
    settings.create_series();
    let runner = Arc::new(JobRunner {
        worker,
        settings: ArcSwap::from_pointee(settings),
        store,
        bus: bus.clone(),
        clock,
        events_per_run: config.nats.events_per_run,
        config: config.worker.clone(),
        shutdown,
        cut: CancellationToken::new(),
        leases,
    });
    let mut told = bus
        .worker_nudges(worker)
        .await
        .context("no control messages")?;
    let questions = bus
        .tool_questions()
        .await
        .context("cannot hear questions for tools")?;
    let interactive = JobSource::open(&bus, Lane::Interactive)
        .await
        .context("no jobs")?;
    let background = JobSource::open(&bus, Lane::Background)
        .await
        .context("no jobs")?;
    started.ready();
    tracing::info!(worker.id = %worker, "taking jobs");
    let listen = async {
        while let Some(nudge) = told.next().await {
            match nudge {
                Nudge::Cancel { run, .. } => runner.leases.nudge(run),
                Nudge::AreYouThere(question) => {
                    // First recorded, then answered: every scheduler with an answer is known.
                    runner.leases.asked_for(question.by);
                    if let Err(error) = bus.say_here(question).await {
                        tracing::debug!(%error, "a scheduler was not answered");
                    }
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let greet = async {
        loop {
            if let Err(error) = bus.say_hello(worker).await {
                tracing::debug!(%error, "no scheduler was greeted");
            }
            tokio::time::sleep(HELLO_EVERY).await;
        }
    };
    tokio::select! {
        () = consume_jobs(Arc::clone(&runner), interactive, background) => Ok(()),
        () = listen => Ok(()),
        () = greet => Ok(()),
        () = describe_tools(&runner, questions) => Ok(()),
        () = take_changes(&runner, live) => Ok(()),
        () = runner.leases.keep() => Ok(()),
    }
}
