//! Baton under every kind of fault, thousands of times over, in virtual time and from a seed.
//!
//! A seed decides everything: how many workers, schedulers, ingresses and clients there are, what
//! the model says, which messages are lost, late or heard twice, and which process is killed, frozen
//! (for longer than its lease, too), told to stop, cut off on one way or on both, or taken for gone
//! by the broker although it is there; also just when it speaks or is spoken to. A seed plays the
//! same every time, on one thread, and takes milliseconds for its minutes. When the faults have
//! ended and everything has come to rest, a judge looks at the ledger, the logs, the tools' records
//! and what each client has seen, for the promises that [`Invariant`] names.
//!
//! # What is real and what is not
//!
//! Every rule that does no I/O is the product's own code: what a claim means for its message, when a
//! holder must stop and when it may begin, who has stopped asking, the turn machine, the transcript,
//! the rebuilding of a run from its steps, the writer of events and its judgement of a refused
//! append, what the log of an ended or parked run lacks, when a job is gone and when a worker is
//! dead, the transitions of a run, the followers' cursor, the workers' demand.
//!
//! What waits is played: the ledger (rows with the guards of the statements in `baton-store`), the
//! broker (a stream of jobs that delivers again, logs with a compare-and-set, live events that may
//! get lost), and around the rules the same order of steps as in `baton-worker`, `baton-scheduler`,
//! `baton-ingress` and the follower of `baton-nats`. Whoever changes that order there changes it
//! here: `worker/attempt.rs` and below, `worker/keep_lease.rs`, `worker/publisher.rs`, `scheduler.rs`,
//! `client.rs`, `ledger.rs`. SQL, NATS and the operating system are left to the tests with real
//! processes.
//!
//! # To see what happened
//!
//! A test that fails names its seeds. One of them again, with everything that happens in it:
//!
//! ```text
//! BATON_SIMULATION_SEED=42 cargo test -p baton-simulation --test seeds -- --nocapture one_seed
//! ```
//!
//! # Without exception
//!
//! [`model`] is the core of it once more, small enough that every order of steps is tried: two
//! workers, one run with one call that must not be repeated, a scheduler, a person, a cancel.
//!
//! # That it can fail
//!
//! Each [`Guard`] can be left out, and `tests/mechanisms.rs` shows for each that some seed then
//! breaks the promise that rests on it; `tests/model.rs` does so for the model. `tests/seeds.rs` refuses a run in which too few faults have
//! struck.

mod accusation;
mod broker;
mod checker;
mod client;
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
mod scenario;
mod scheduler;
mod time;
mod told_by_others;
mod view;
mod weather;
mod worker;
mod world;

pub use accusation::{Accusation, Invariant};
pub use counts::Counts;
pub use guard::{Guard, Setup};

use crate::world::{Sim, World};

/// What became of one seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// What must not have been; empty if all is well.
    pub accusations: Vec<Accusation>,
    /// What happened, how often.
    pub counts: Counts,
    /// Everything that happened, if asked for.
    pub trace: Vec<String>,
}

/// Simulates one seed.
pub fn simulate(seed: u64, setup: Setup) -> Report {
    let sim = Sim::new(seed, setup, World::new(setup));
    scenario::play(&sim);
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
