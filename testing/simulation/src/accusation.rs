//! The report of a breach.

use baton_invariants::Invariant;
use baton_protocol::RunId;

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
