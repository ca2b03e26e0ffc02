//! Everything that outlives a process: the ledger, the broker's streams, the tools' side of the
//! calls, and what the clients have seen.

use std::rc::Rc;

use baton_protocol::{Effect, RunId};

use crate::Setup;
use crate::client::View;
use crate::event_log::EventLog;
use crate::executor::{Millis, Sim};
use crate::jobs::Jobs;
use crate::ledger::Ledger;
use crate::network::Weather;

/// What must hold; see [`crate::checker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Every accepted run ends.
    I1,
    /// One job id is at most one run.
    I3,
    /// A terminal state never changes, and its event is the log's last.
    I4,
    /// Only lost workers count as failures, and no run has more than it may.
    I5,
    /// A call whose result is recorded is not made again.
    I7,
    /// A run goes on from what is recorded; step numbers are dense.
    I8,
    /// Only the newest attempt commits.
    I9,
    /// Behind an attempt's first event there is none of an older one.
    I10,
    /// What a client has seen, resets applied, is what is recorded.
    I11,
    /// A call that must not be repeated is made once, and once more for each decision.
    I12,
    /// From any cursor, each event once and in order.
    I13,
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Accusation {
    /// What was broken.
    pub invariant: Invariant,
    /// Where.
    pub run: RunId,
    /// How.
    pub what: String,
}

/// A tool was called.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) run: RunId,
    pub(crate) step: u32,
    pub(crate) effect: Effect,
    pub(crate) attempt: u32,
    /// When the worker decided to call.
    pub(crate) decided_at: Millis,
}

pub(crate) struct World {
    pub(crate) weather: Weather,
    pub(crate) ledger: Ledger,
    pub(crate) jobs: Jobs,
    pub(crate) log: EventLog,
    pub(crate) executions: Vec<Execution>,
    pub(crate) views: Vec<Rc<View>>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            weather: Weather::default(),
            ledger: Ledger::new(setup),
            jobs: Jobs::default(),
            log: EventLog::default(),
            executions: Vec::new(),
            views: Vec::new(),
        }
    }
}

impl Sim {
    pub(crate) fn accuse(&self, invariant: Invariant, run: RunId, what: String) {
        self.note(|| format!("BREACH of {invariant:?} in {}: {what}", name(run)));
        let accusation = Accusation {
            invariant,
            run,
            what,
        };
        self.world.borrow_mut().ledger.accusations.push(accusation);
    }
}

/// A run's name in the trace.
pub(crate) fn name(run: RunId) -> String {
    format!("run {}", run.as_uuid().as_u128() & 0xffff)
}
