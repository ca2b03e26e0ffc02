//! The invariants, and the report of a breach.

use baton_protocol::RunId;

/// An invariant that must hold; see [`crate::checker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Every accepted run ends.
    I1,
    /// One job id is at most one run.
    I3,
    /// A terminal state never changes, and its event is the log's last.
    I4,
    /// Only lost workers count as failures, and no run exceeds the limit.
    I5,
    /// The runs of a key use no more tokens than its budget.
    I6,
    /// A call with a recorded result is not made again.
    I7,
    /// A run resumes from its recorded steps; step numbers are dense.
    I8,
    /// Only the newest attempt commits.
    I9,
    /// After an attempt's first event there is no event of an older attempt.
    I10,
    /// A client's events, with resets applied, equal the record.
    I11,
    /// A call that must not be repeated is made once, and once more per decision.
    I12,
    /// From any cursor, a client gets each event once and in order.
    I13,
    /// A run of a revoked key is claimed without asking the model.
    I17,
    /// A message that a run accepted is applied once, or handed back by its end; its events are shown
    /// once and in order.
    I24,
    /// One run of a thread is at work at a time, in their order, under the rule of each for a busy thread;
    /// the messages of each are in the thread once, or not at all if it was rolled back.
    I26,
}

/// A breach of an invariant.
#[derive(Debug, Clone)]
pub struct Accusation {
    /// The broken invariant.
    pub invariant: Invariant,
    /// The run.
    pub run: RunId,
    /// The details.
    pub what: String,
}

/// A run's name in the trace.
pub(crate) fn name(run: RunId) -> String {
    format!("run {}", run.as_uuid().as_u128() & 0xffff)
}
