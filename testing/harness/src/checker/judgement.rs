//! The judgement of a history.

use std::collections::BTreeMap;
use std::fmt;

use baton_invariants::Invariant;
use baton_protocol::RunId;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, such as `I4`.
    pub invariant: Invariant,
    /// The run, if it is about one.
    pub run: Option<RunId>,
    /// The observation, for people.
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

/// The violations and the figures of a history.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The broken promises.
    pub violations: Vec<Violation>,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Attacks by kind.
    pub attacks: BTreeMap<String, usize>,
    /// Other counted actions by kind.
    pub doings: BTreeMap<String, usize>,
    /// Runs by their outcome; a failed one with its code.
    pub outcomes: BTreeMap<String, usize>,
    /// Runs for which clients got the answer that they are accepted.
    pub accepted: usize,
    /// Runs that a second or later attempt ended.
    pub handed_on: usize,
    /// All attempts beyond the first of their run.
    pub takeovers: usize,
    /// Runs that may have lost their log, or part of it, before it was read.
    pub log_lost: usize,
    /// Chat streams by their end.
    pub chats: BTreeMap<String, usize>,
    /// Refused requests, by status and code.
    pub refused: BTreeMap<String, usize>,
    /// The longest silence between two events of each followed run, in milliseconds, sorted.
    pub pauses: Vec<u64>,
    /// The silence before each `attempt.reset` that a follower saw, in milliseconds, sorted.
    pub recoveries: Vec<u64>,
    /// Questions about calls, by decision.
    pub decisions: BTreeMap<String, usize>,
    /// Executions of tools.
    pub tool_calls: usize,
    /// Events that followers saw.
    pub events: usize,
    /// Followers that got the answer that their events are no longer stored.
    pub expired: usize,
    /// Ends of processes: the role, the signals that it was sent and its exit code.
    pub ends: BTreeMap<String, usize>,
    /// The most memory that was seen of a process of each role, in bytes.
    pub memory: BTreeMap<String, u64>,
}

impl Judgement {
    /// Counts the runs that ended as `completed`.
    pub fn completed(&self) -> usize {
        self.outcomes.get("completed").copied().unwrap_or(0)
    }

    /// Counts the runs that have ended.
    pub fn ended(&self) -> usize {
        self.outcomes.values().sum()
    }

    /// Counts all faults.
    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }

    pub(super) fn accuse(
        &mut self,
        invariant: Invariant,
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
