//! Control messages reach the run that they are about.
//!
//! A nudge carries no order: it makes the run's keeper look at the ledger now instead of at the
//! next renewal. A lost nudge costs time and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_protocol::RunId;
use tokio::sync::Notify;

/// The runs that this worker holds, and how to wake each.
#[derive(Clone, Default)]
pub(crate) struct Nudges {
    runs: Arc<Mutex<HashMap<RunId, Arc<Notify>>>>,
}

/// Held for as long as the run is.
pub(crate) struct Nudge {
    run: RunId,
    nudges: Nudges,
    notify: Arc<Notify>,
}

impl Nudges {
    /// Listens for nudges about a run.
    pub(crate) fn listen(&self, run: RunId) -> Nudge {
        let notify = Arc::new(Notify::new());
        self.runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(run, Arc::clone(&notify));
        Nudge {
            run,
            nudges: self.clone(),
            notify,
        }
    }

    /// Wakes the run, if it is held here.
    pub(crate) fn wake(&self, run: RunId) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = runs.get(&run) {
            notify.notify_one();
        }
    }
}

impl Nudge {
    /// Waits for the next nudge; one that came before counts.
    pub(crate) async fn nudged(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        let mut runs = self
            .nudges
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A later attempt of the same run may listen here already.
        if runs
            .get(&self.run)
            .is_some_and(|notify| Arc::ptr_eq(notify, &self.notify))
        {
            runs.remove(&self.run);
        }
    }
}
