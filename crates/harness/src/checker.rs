//! Judges what a faulty hour left behind, offline: what clients noted, what the ledger holds, what
//! the event log holds and what tools were asked.
//!
//! It knows nothing of how the history came about. Each rule is one invariant, and each has a
//! hand-made history that breaks it.

mod history;
mod logs;
mod runs;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use baton_protocol::RunId;

pub use history::{Call, History, LedgerRun, Record, RunLog, Step, What};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant, such as `I4`.
    pub invariant: &'static str,
    /// Whose, if it is one run's.
    pub run: Option<RunId>,
    /// What was found, for people.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(run) = self.run {
            write!(f, " run {run}")?;
        }
        write!(f, ": {}", self.found)
    }
}

/// What the history amounts to.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Runs by how they ended; a failed one with its code.
    pub outcomes: BTreeMap<String, usize>,
    /// Runs that clients were told are accepted.
    pub accepted: usize,
    /// Runs that a second or later attempt ended.
    pub handed_on: usize,
    /// Chat streams by how they ended.
    pub chats: BTreeMap<String, usize>,
    /// Requests that were refused, by status and code.
    pub refused: BTreeMap<String, usize>,
    /// The longest silence between two events of each followed run, in milliseconds, sorted.
    pub pauses: Vec<u64>,
    /// Executions of tools.
    pub tool_calls: usize,
    /// Events that followers saw.
    pub events: usize,
}

impl Judgement {
    /// Runs that ended as `completed`.
    pub fn completed(&self) -> usize {
        self.outcomes.get("completed").copied().unwrap_or(0)
    }

    /// All faults.
    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }

    fn accuse(&mut self, invariant: &'static str, run: Option<RunId>, found: impl Into<String>) {
        self.violations.push(Violation {
            invariant,
            run,
            found: found.into(),
        });
    }
}

/// Judges a history.
pub fn judge(history: &History) -> Judgement {
    let mut judgement = Judgement::default();
    runs::judge(history, &mut judgement);
    logs::judge(history, &mut judgement);
    seen::judge(history, &mut judgement);
    judgement
}
