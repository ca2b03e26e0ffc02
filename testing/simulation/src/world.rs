//! Everything that outlives a process: the ledger, the broker's streams, the tools' records of the
//! calls, and the clients' events.

use std::rc::Rc;

use baton_invariants::Invariant;
use baton_protocol::{Effect, RunId};

use crate::accusation::{Accusation, name};
use crate::event_log::EventLog;
use crate::executor::{Executor, ProcessId};
use crate::guard::Setup;
use crate::jobs::Jobs;
use crate::ledger::Ledger;
use crate::time::Millis;
use crate::view::View;
use crate::weather::Weather;

/// A handle on the whole simulation.
pub(crate) type Sim = Executor<World>;

/// An executed tool call.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) run: RunId,
    pub(crate) step: u32,
    pub(crate) effect: Effect,
    /// The process that made it.
    pub(crate) holder: ProcessId,
    /// The time at which the worker decided to call.
    pub(crate) decided_at: Millis,
}

pub(crate) struct World {
    pub(crate) weather: Weather,
    pub(crate) ledger: Ledger,
    pub(crate) jobs: Jobs,
    pub(crate) log: EventLog,
    /// The time until which the broker refuses events.
    pub(crate) refuses_until: Millis,
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
            refuses_until: 0,
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
