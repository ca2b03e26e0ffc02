//! What must hold, and what is said when it does not.

use baton_protocol::RunId;

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

/// A run's name in the trace.
pub(crate) fn name(run: RunId) -> String {
    format!("run {}", run.as_uuid().as_u128() & 0xffff)
}
