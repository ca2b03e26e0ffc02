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
//! here: `worker/attempt.rs`, `worker/keep_lease.rs`, `worker/publisher.rs`, `scheduler.rs`,
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

mod checker;
mod client;
mod event_log;
mod executor;
mod jobs;
mod ledger;
pub mod model;
mod network;
mod scenario;
mod scheduler;
mod told_by_others;
mod worker;
mod world;

pub use world::{Accusation, Invariant};

use crate::executor::Sim;

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mechanism that a simulation can do without, to show that it is needed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Guard {
            $($(#[$doc])* $name,)*
        }

        impl Guard {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

guards! {
    /// The ledger checks the attempt and its token in every write.
    AttemptFence,
    /// The log refuses an append that does not follow its last message.
    CompareAndSet,
    /// A follower that misses an event reads the log.
    GapCheck,
    /// A follower that hears nothing looks at the log.
    LookWhenIdle,
    /// A claim whose answer was lost is repeated with the same token.
    RepeatableClaim,
    /// The scheduler looks for runs that nobody would come for.
    Sweep,
    /// A refused append looks whose message stands last.
    TipBeforeAdopting,
    /// A refused append knows its own bytes.
    OwnAppend,
    /// Whoever finds a run ended makes sure that its log says so.
    TerminalEvent,
    /// What a step shows is stored before the step is committed.
    ShownBeforeCommitted,
    /// That a call begins which must not be repeated is noted before.
    StartNote,
    /// A decision holds for one beginning of the call.
    DecisionUsedUp,
    /// A run is taken early only if its row was left alone.
    Silence,
    /// A worker that nobody asks for writes to its rows.
    SignOfLife,
    /// A worker that cannot confirm its lease stops.
    GiveUp,
}

/// How to simulate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// What is switched off.
    pub without: Option<Guard>,
    /// Whether to tell everything that happens.
    pub trace: bool,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened, how often.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl std::ops::AddAssign<&Counts> for Counts {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Processes were killed.
    crashes,
    /// Processes were frozen for a while.
    freezes,
    /// Workers were told to stop.
    stops,
    /// Workers were cut off from the broker or the ledger, one way or both.
    partitions,
    /// Workers were taken for gone by the broker.
    unseen,
    /// Runs were taken before their lease had run out.
    taken_early,
    /// The broker lost all jobs.
    wiped_jobs,
    /// Messages were lost.
    lost_messages,
    /// Requests were given up without an answer.
    unanswered,
    /// Live events were heard twice.
    heard_twice,
    /// Jobs were delivered again.
    redeliveries,
    /// Jobs that were gone were published again.
    republished,
    /// Leases ran out.
    expired_leases,
    /// Runs were handed over.
    hand_overs,
    /// Later attempts took a log over.
    resets,
    /// The ledger refused an attempt.
    refused_commits,
    /// The log refused an append.
    refused_appends,
    /// A replaced attempt learned of it from the log.
    refused_zombies,
    /// An older attempt got in between a look at the log and the append.
    stragglers,
    /// An append was stored, and the answer lost.
    lost_acks,
    /// Followers noticed that they had missed something.
    gaps,
    /// Clients connected again.
    reconnects,
    /// Cancels were asked for while a worker held the run.
    cancels_requested,
    /// Runs were cancelled by their holder.
    cancelled_at_work,
    /// Runs were cancelled that nobody held.
    cancelled_while_idle,
    /// An end or a question was stored by somebody who found it missing.
    told_by_others,
    /// A relay found a run ended without having heard so.
    mended,
    /// Runs were parked.
    parked,
    /// Decisions were taken.
    decided,
    /// Decisions came after another, or after the end.
    decided_too_late,
    /// Questions that nobody answered were given up.
    expired_questions,
    /// Runs completed.
    completed,
    /// Runs failed, by their model.
    failed,
    /// Runs failed because they were lost too often.
    poisoned,
    /// Runs were cancelled.
    cancelled,
}

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
    let sim = Sim::new(seed, setup);
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
