//! How a dead worker is told from a live one before its leases run out.
//!
//! Schedulers ask each worker over the bus whether it is there. A process that dies takes its
//! connection with it, and the broker answers in its place that nobody is. That alone proves
//! nothing: a worker that lives may be connecting again, or stand behind a broken route of a broker
//! cluster. What is not done on that evidence alone is safe by two rules about the ledger, which
//! hold for any state of the bus:
//!
//! 1. **A worker begins no side effect of a run unless the ledger has confirmed, to a statement that
//!    it sent within [`CONFIRMED_WITHIN`], that the run is its own.** Each such statement writes to
//!    the run's row.
//! 2. **A scheduler takes a run early only if the row was not written to for [`SILENT_FOR`],** and
//!    takes it by a statement that compares. What the worker was told before that time permits
//!    nothing any more when the run is taken; what it asks from then on is refused.
//!
//! And a run is not taken from a worker that lives and reaches the ledger, because a worker notices
//! that it is not seen: a scheduler that has ever been answered asks every [`ASK_EVERY`], and is
//! remembered. If its questions stay away for [`UNASKED_AFTER`], the worker writes to the rows of its
//! runs every [`SIGN_OF_LIFE_EVERY`], which rule 2 respects. A scheduler stops watching a worker that
//! has not answered for [`WATCHED_FOR`], and is remembered for longer, [`REMEMBERED_FOR`].
//!
//! So an early takeover means: not on the bus, and silent in the ledger although it had a reason to
//! speak. In every other case the lease decides. Times are counted by each process for itself, on a
//! clock that does not jump; only their lengths must agree, so they are no settings.

use std::time::Duration;

/// How old a confirmation by the ledger may be for a side effect to begin, from when it was asked
/// for.
pub const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// How often a scheduler asks each worker.
pub const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a worker waits for a scheduler's next question before it counts as unseen.
pub const UNASKED_AFTER: Duration = Duration::from_millis(1_250);

/// How often an unseen worker writes to the rows of its runs.
pub const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(1);

/// How long a row must have been left alone before its run is taken from a worker that nobody sees.
pub const SILENT_FOR: Duration = Duration::from_secs(3);

/// How long after its last answer a scheduler may still act on a worker's absence.
pub const WATCHED_FOR: Duration = Duration::from_secs(30);

/// How long after its last question a scheduler counts as one that does not see the worker.
pub const REMEMBERED_FOR: Duration = Duration::from_mins(1);

const _: () = {
    // Rule 2 covers rule 1, with room for clocks that run at different speeds.
    assert!(CONFIRMED_WITHIN.as_millis() * 5 / 4 < SILENT_FOR.as_millis());
    // One late question is no silence.
    assert!(ASK_EVERY.as_millis() * 2 < UNASKED_AFTER.as_millis());
    // A worker that notices at the last moment has still written once.
    assert!(UNASKED_AFTER.as_millis() + SIGN_OF_LIFE_EVERY.as_millis() < SILENT_FOR.as_millis());
    assert!(WATCHED_FOR.as_millis() + SILENT_FOR.as_millis() < REMEMBERED_FOR.as_millis());
};
