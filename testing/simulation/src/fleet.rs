//! The current processes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use baton_protocol::{RunId, WorkerId};

use crate::executor::ProcessId;
use crate::worker::Worker;
use crate::world::Sim;

/// The current processes.
pub(crate) struct Fleet {
    pub(crate) workers: RefCell<Vec<(Rc<Worker>, usize)>>,
    pub(crate) ingresses: RefCell<Vec<ProcessId>>,
    pub(crate) schedulers: RefCell<Vec<ProcessId>>,
    pub(crate) started: Cell<u64>,
    pub(crate) runs: Vec<RunId>,
    /// The runs that were refused, or became a message of another one.
    pub(crate) declined: RefCell<BTreeSet<RunId>>,
}

impl Fleet {
    pub(crate) fn number(&self) -> u64 {
        self.started.set(self.started.get() + 1);
        self.started.get()
    }

    /// Returns an ingress that a client may reach.
    pub(crate) fn any_ingress(&self, sim: &Sim) -> ProcessId {
        let ingresses = self.ingresses.borrow();
        let at = usize::try_from(sim.below(ingresses.len() as u64)).unwrap_or(0);
        ingresses[at]
    }

    pub(crate) fn worker(&self, id: WorkerId) -> Option<Rc<Worker>> {
        let workers = self.workers.borrow();
        let found = workers.iter().find(|(worker, _)| worker.id == id);
        found.map(|(worker, _)| Rc::clone(worker))
    }

    /// Returns the workers that say hello.
    pub(crate) fn worker_ids(&self) -> Vec<WorkerId> {
        let workers = self.workers.borrow();
        workers.iter().map(|(worker, _)| worker.id).collect()
    }

    pub(crate) fn any_worker(&self, sim: &Sim) -> Rc<Worker> {
        let workers = self.workers.borrow();
        let at = usize::try_from(sim.below(workers.len() as u64)).unwrap_or(0);
        Rc::clone(&workers[at].0)
    }
}
