//! Baton under every kind of fault, thousands of times, in virtual time and from a seed.
//!
//! A seed decides everything: the number of workers, schedulers, ingresses and clients; the model's
//! answers; the messages that are lost, late or delivered twice; and the processes that are killed,
//! frozen (also for longer than their lease), stopped, cut off in one direction or both, or wrongly
//! reported as gone by the broker. Faults may also strike just as a process sends or receives. A
//! seed always plays the same, on one thread, and takes milliseconds for its minutes. When the
//! faults have ended and everything is at rest, the checker examines the ledger, the logs, the
//! tools' records and each client's events against the promises that [`Invariant`] names.
//!
//! # Real and simulated parts
//!
//! The worker is the product's own code, from the claim of a run to the settling of its job: `run_job`,
//! `attempt`, `keep_lease`, the model's client, the checks of tools' calls, the writers of a run's log.
//! `outside.rs` is the ledger and the broker that it reaches through `baton_worker::world`; `upstream.rs`
//! answers the HTTP requests of its model's client, and `tools.rs` its tools' calls. Rules without I/O of
//! the other roles are the product's own code, too: the proof that a job is lost and that a worker is
//! dead, the transitions of a run, the followers' cursor, the workers' demand.
//!
//! The rest is simulated: the ledger (rows with the guards of the statements in `baton-store`), the
//! broker (a stream of jobs that redelivers, logs with a compare-and-set, live events that may be lost),
//! the pulls of jobs, and the order of steps in `baton-scheduler`, `baton-ingress` and the follower of
//! `baton-nats`. A change of that order must be repeated in `worker.rs`, `scheduler.rs`, `client.rs` or
//! `ledger.rs`. Tests with real processes cover SQL, NATS and the operating system.
//!
//! All of it runs in tokio's paused time. A `select!` that the simulation runs must be `biased`, because
//! tokio otherwise polls its branches in an order that no seed decides.
//!
//! # Traces
//!
//! A failing test names its seeds. To see everything that happens in one of them:
//!
//! ```text
//! BATON_SIMULATION_SEED=42 cargo test -p baton-simulation --test seeds -- --nocapture one_seed
//! ```
//!
//! # Exhaustive model
//!
//! [`model`] is the core again, small enough to try every order of steps: two workers, one run with
//! one call that must not be repeated, a scheduler, a person, a cancel.
//!
//! # Proof that it can fail
//!
//! Each [`Guard`] can be left out, and `tests/mechanisms.rs` shows for each that some seed then
//! breaks the promise that depends on it; `tests/model.rs` does so for the model. `tests/seeds.rs`
//! refuses a run with too few faults.

mod accusation;
mod broker;
mod checker;
mod client;
mod clock;
mod counts;
mod event_log;
mod executor;
mod fleet;
mod guard;
mod jobs;
mod ledger;
mod links;
mod mailbox;
pub mod model;
mod network;
mod outside;
mod repair;
mod scenario;
mod scheduler;
mod time;
mod tools;
mod upstream;
mod view;
mod weather;
mod worker;
mod world;

pub use accusation::Accusation;
pub use baton_invariants::Invariant;
pub use counts::Counts;
pub use guard::{Guard, Setup};

use tokio::runtime::Builder;
use tokio::task::unconstrained;

use crate::world::{Sim, World};

/// The result of one seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The breaches; empty if all invariants hold.
    pub accusations: Vec<Accusation>,
    /// The numbers of events.
    pub counts: Counts,
    /// The trace, if requested.
    pub trace: Vec<String>,
}

/// Simulates one seed.
///
/// # Panics
/// If there is no memory for a runtime.
pub fn simulate(seed: u64, setup: Setup) -> Report {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(unconstrained(play(seed, setup)))
}

async fn play(seed: u64, setup: Setup) -> Report {
    let sim = Sim::new(seed, setup, World::new(setup));
    scenario::play(&sim).await;
    sim.judge();
    let accusations = std::mem::take(&mut sim.world.borrow_mut().ledger.accusations);
    for row in sim.world.borrow().ledger.rows.values() {
        row.count(&mut sim.counts.borrow_mut());
    }
    let report = Report {
        seed,
        accusations,
        counts: sim.counts.borrow().clone(),
        trace: sim.take_trace(),
    };
    sim.end();
    report
}
