//! A worker: `baton-worker`'s own code, but for the pulls of jobs for its free slots.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use baton_nats::jobs::demand::{Demand, Pull};
use baton_protocol::{RunId, WorkerId};
use baton_service::config::WorkerConfig;
use baton_service::{Config, Shutdown};
use baton_worker::keep_lease::LeaseKeeper;
use baton_worker::model::{ModelConfig, RetryPolicy, Upstreams};
use baton_worker::run_job::JobEnd;
use baton_worker::runner::JobRunner;
use baton_worker::settings::Settings;
use baton_worker::tools::ToolRegistry;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::executor::ProcessId;
use crate::guard::Guard;
use crate::jobs::Supply;
use crate::links::Service;
use crate::mailbox::Mailbox;
use crate::outside::{Outside, Simulated};
use crate::time::Millis;
use crate::tools;
use crate::upstream::Upstream;
use crate::world::Sim;

/// The values of `baton-worker` and of its default configuration.
pub(crate) const LEASE: Duration = Duration::from_secs(20);
/// Shorter than the default, so that turns are interrupted.
const DRAIN: Duration = Duration::from_secs(3);
/// Shorter than the default, so that questions expire.
const APPROVAL_EXPIRY: Duration = Duration::from_secs(40);
const LEDGER_RECHECK: Duration = Duration::from_millis(500);
/// Longer than the default, which only saves pulls.
const PULL_EXPIRES: Duration = Duration::from_secs(4);

pub(crate) struct Worker {
    sim: Sim,
    pub(crate) process: ProcessId,
    pub(crate) id: WorkerId,
    slots: usize,
    runner: JobRunner<Simulated>,
    busy: Cell<usize>,
    ledger_answers: Cell<bool>,
    ended: Mailbox<()>,
}

impl Worker {
    pub(crate) fn start(sim: &Sim, number: u64, slots: usize) -> Rc<Self> {
        let process = sim.start_process(format!("worker {number}"));
        let id = WorkerId::from_uuid(Uuid::from_u128(number.into()));
        let worker = Rc::new(Self {
            sim: sim.clone(),
            process,
            id,
            slots,
            runner: runner(sim, &sim.outside(process), id),
            busy: Cell::new(0),
            ledger_answers: Cell::new(true),
            ended: Mailbox::default(),
        });
        sim.tell(process, || "starts".into());
        sim.spawn(process, Rc::clone(&worker).consume_jobs());
        let keeper = Rc::clone(&worker);
        sim.spawn(process, async move { keeper.runner.leases.keep().await });
        worker
    }

    /// Stops it, as SIGTERM does.
    pub(crate) fn stop(&self) {
        self.sim.tell(self.process, || "is told to stop".into());
        self.runner.shutdown.stop_soft();
    }

    /// Asks the worker to renew a run's lease now.
    pub(crate) fn nudge(&self, run: RunId) {
        self.runner.leases.nudge(run);
    }

    /// Records that a scheduler asked whether this worker is alive.
    pub(crate) fn asked_for(&self, by: Uuid) {
        if self.sim.setup.without != Some(Guard::SignOfLife) {
            self.runner.leases.asked_for(by);
        }
    }

    async fn consume_jobs(self: Rc<Self>) {
        let sim = &self.sim;
        let supply = Mailbox::<Supply>::default();
        let mut demand = Demand::default();
        loop {
            let free = if self.ledger_answers.get() {
                self.slots.saturating_sub(self.busy.get())
            } else {
                0
            };
            let now = sim.instant().into();
            demand.expire(now);
            if let Some(pull) = demand.shortfall(free) {
                self.ask_for_jobs(pull, &supply);
                demand.asked(pull, now, PULL_EXPIRES);
            }
            let deadline = demand
                .deadline()
                .map_or(Millis::MAX, |at| sim.millis_of(at.into_std()));
            tokio::select! {
                biased;
                () = self.runner.shutdown.soft.cancelled() => break,
                () = self.ended.take() => {}
                supplied = supply.take() => match supplied {
                    Supply::Job { seq, run } => {
                        demand.delivered();
                        self.take_job(seq, run);
                    }
                    Supply::Ended { token, unserved } => {
                        if let Some(pull) = Pull::from_token(&token) {
                            demand.ended(pull, unserved);
                        }
                    }
                },
                () = sim.sleep_until(deadline), if deadline < Millis::MAX => {}
                () = sim.sleep(LEDGER_RECHECK), if !self.ledger_answers.get() => {
                    let answer = sim.ask(self.process, Service::Ledger, |_| ()).await;
                    self.ledger_answers.set(answer.is_ok());
                }
            }
        }
        self.drain().await;
    }

    fn ask_for_jobs(&self, pull: Pull, supply: &Mailbox<Supply>) {
        let (process, supply) = (self.process, supply.clone());
        self.sim.send(process, Service::Broker, move |sim| {
            sim.pull(process, pull.token(), pull.batch, PULL_EXPIRES, supply);
        });
    }

    fn take_job(self: &Rc<Self>, seq: u64, run: RunId) {
        self.busy.set(self.busy.get() + 1);
        let worker = Rc::clone(self);
        self.sim.spawn(self.process, async move {
            let delivery = worker.runner.bus.delivery(seq, run);
            if worker.runner.run_job(delivery).await == JobEnd::DatabaseDown {
                worker.ledger_answers.set(false);
            }
            worker.busy.set(worker.busy.get() - 1);
            worker.ended.put(());
        });
    }

    async fn drain(&self) {
        let deadline = self.sim.sleep(DRAIN);
        tokio::pin!(deadline);
        let cut = &self.runner.cut;
        while self.busy.get() > 0 {
            tokio::select! {
                biased;
                () = self.ended.take() => {}
                () = &mut deadline, if !cut.is_cancelled() => cut.cancel(),
            }
        }
        self.sim.tell(self.process, || "has stopped".into());
        let process = self.process;
        self.sim.after(0, move |sim| sim.kill(process));
    }
}

fn runner(sim: &Sim, outside: &Outside, worker: WorkerId) -> JobRunner<Simulated> {
    let mut config = Config {
        worker: WorkerConfig {
            // Without the guard, a worker believes to hold its runs for longer than the ledger does.
            lease: if sim.setup.without == Some(Guard::GiveUp) {
                Duration::from_hours(24)
            } else {
                LEASE
            },
            tool_parallelism: 2,
            approval_expiry: APPROVAL_EXPIRY,
            ..WorkerConfig::default()
        },
        ..Config::default()
    };
    config.limits.budget_answer_tokens = ANSWER_TOKENS;
    let (store, bus) = (outside.clone(), outside.clone());
    JobRunner {
        worker,
        leases: LeaseKeeper::new(store.clone(), bus.clone(), sim.clock(), &config.worker),
        store,
        bus,
        clock: sim.clock(),
        settings: ArcSwap::from_pointee(settings(&config, outside)),
        events_per_run: if sim.setup.without == Some(Guard::EventLimit) {
            u32::MAX
        } else {
            sim.world.borrow().log.most
        },
        config: config.worker,
        shutdown: Shutdown::new(),
        cut: CancellationToken::new(),
    }
}

/// The most tokens of an answer for a run with a budget.
const ANSWER_TOKENS: u64 = 300;

fn settings(config: &Config, outside: &Outside) -> Settings {
    let upstream = ModelConfig {
        // Pauses are random in the product, and a seed must always play the same.
        retry: RetryPolicy {
            base: Duration::ZERO,
            ..RetryPolicy::default()
        },
        ..ModelConfig::new("http://upstream/v1")
    };
    let http = Arc::new(Upstream(outside.clone()));
    let models = Upstreams::one_over(http, upstream).expect("the address of the upstream is a URL");
    let mut tools = ToolRegistry::new(config).expect("the default tools can be used");
    tools::register(&mut tools, outside).expect("the simulated tools can be used");
    Settings::with(config, models, tools)
}
