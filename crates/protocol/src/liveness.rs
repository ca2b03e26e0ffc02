//! Detects a dead worker before its leases expire.
//!
//! Schedulers ask each worker over the bus whether it is alive. A dead process loses its
//! connection, and the broker answers in its place that nobody listens. That alone proves nothing:
//! a live worker may be reconnecting, or be behind a broken route of a broker cluster. Two rules
//! about the ledger make an early takeover safe in any state of the bus:
//!
//! 1. **A worker begins no side effect of a run unless the ledger has confirmed, to a statement
//!    that it sent within [`CONFIRMED_WITHIN`], that the run is its own.** Each such statement
//!    writes to the run's row.
//! 2. **A scheduler takes a run early only if its row was not written to for [`SILENT_FOR`],** and
//!    takes it by a compare-and-set. Confirmations from before that time have expired when the run
//!    is taken, and the ledger refuses later ones.
//!
//! A live worker that reaches the ledger keeps its runs, because it notices that schedulers do not
//! reach it. A scheduler that was ever answered asks every [`ASK_EVERY`], and the worker remembers
//! it. If its questions are missing for [`UNASKED_AFTER`], the worker writes to the rows of its
//! runs every [`SIGN_OF_LIFE_EVERY`], which rule 2 respects. A scheduler stops watching a worker
//! that has not answered for [`WATCHED_FOR`]; the worker remembers it for longer,
//! [`REMEMBERED_FOR`].
//!
//! So an early takeover means that the worker is off the bus, and silent in the ledger although it
//! had a reason to write. In every other case the lease decides. Each process measures times on its
//! own monotonic clock; only their lengths must agree, so they are no settings.

use std::time::Duration;

/// The highest age of a ledger's confirmation at the start of a side effect, counted from its
/// request.
pub const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// The interval at which a scheduler asks each worker.
pub const ASK_EVERY: Duration = Duration::from_millis(500);

/// The time without a scheduler's question after which a worker counts itself as unseen.
pub const UNASKED_AFTER: Duration = Duration::from_millis(1_250);

/// The interval at which an unseen worker writes to the rows of its runs.
pub const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(1);

/// The time without a write to its row after which a run is taken from an unseen worker.
pub const SILENT_FOR: Duration = Duration::from_secs(3);

/// The time after a worker's last answer during which a scheduler acts on its absence.
pub const WATCHED_FOR: Duration = Duration::from_secs(30);

/// The time after a scheduler's last question during which a worker expects more.
pub const REMEMBERED_FOR: Duration = Duration::from_mins(1);

const _: () = {
    // Rule 2 covers rule 1, with room for clocks that run at different speeds.
    assert!(CONFIRMED_WITHIN.as_millis() * 5 / 4 < SILENT_FOR.as_millis());
    // One late question does not make a worker unseen.
    assert!(ASK_EVERY.as_millis() * 2 < UNASKED_AFTER.as_millis());
    // Even a worker that notices at the last moment writes once in time.
    assert!(UNASKED_AFTER.as_millis() + SIGN_OF_LIFE_EVERY.as_millis() < SILENT_FOR.as_millis());
    assert!(WATCHED_FOR.as_millis() + SILENT_FOR.as_millis() < REMEMBERED_FOR.as_millis());
};
