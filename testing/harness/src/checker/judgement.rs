//! What a history amounts to.

use std::collections::BTreeMap;
use std::fmt;

use baton_protocol::RunId;

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
    /// Attacks by kind.
    pub attacks: BTreeMap<String, usize>,
    /// Other counted deeds by kind.
    pub doings: BTreeMap<String, usize>,
    /// Runs by how they ended; a failed one with its code.
    pub outcomes: BTreeMap<String, usize>,
    /// Runs that clients were told are accepted.
    pub accepted: usize,
    /// Runs that a second or later attempt ended.
    pub handed_on: usize,
    /// All attempts beyond the first of their run.
    pub takeovers: usize,
    /// Runs whose log may have been lost, all or in part, before it was read.
    pub log_lost: usize,
    /// Chat streams by how they ended.
    pub chats: BTreeMap<String, usize>,
    /// Requests that were refused, by status and code.
    pub refused: BTreeMap<String, usize>,
    /// The longest silence between two events of each followed run, in milliseconds, sorted.
    pub pauses: Vec<u64>,
    /// The silence before each `attempt.reset` that a follower saw, in milliseconds, sorted.
    pub recoveries: Vec<u64>,
    /// Questions about calls, by what was decided.
    pub decisions: BTreeMap<String, usize>,
    /// Executions of tools.
    pub tool_calls: usize,
    /// Events that followers saw.
    pub events: usize,
    /// Followers that were told that their events are no longer stored.
    pub expired: usize,
    /// Ends of processes: the role, what it was asked and its exit code.
    pub ends: BTreeMap<String, usize>,
    /// The most memory that a process of a role was seen to hold, in bytes.
    pub memory: BTreeMap<String, u64>,
}

impl Judgement {
    /// Runs that ended as `completed`.
    pub fn completed(&self) -> usize {
        self.outcomes.get("completed").copied().unwrap_or(0)
    }

    /// Runs that have ended.
    pub fn ended(&self) -> usize {
        self.outcomes.values().sum()
    }

    /// All faults.
    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }

    pub(super) fn accuse(
        &mut self,
        invariant: &'static str,
        run: Option<RunId>,
        found: impl Into<String>,
    ) {
        self.violations.push(Violation {
            invariant,
            run,
            found: found.into(),
        });
    }
}
