//! The broker's losses, and the runs that they may have hit.

use super::LedgerRun;

/// The times at which the broker came back without messages.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

#[derive(Debug)]
struct Loss {
    /// The time from which on stored messages are lost.
    since: u64,
    /// The time at which the broker was back.
    until: u64,
}

impl Losses {
    /// The most milliseconds by which the clocks of the ledger and of the history may differ.
    const APART: u64 = 1_000;

    /// Records that the broker was back at `until` without the messages stored since `since`.
    pub(super) fn add(&mut self, since: u64, until: u64) {
        self.0.push(Loss { since, until });
    }

    /// Returns whether events of this run may be gone.
    pub(super) fn may_hit(&self, run: &LedgerRun) -> bool {
        self.may_have_hit(run, u64::MAX)
    }

    /// Returns whether events of this run may have been gone at that time.
    pub(super) fn may_have_hit(&self, run: &LedgerRun, by: u64) -> bool {
        let millis = |at: &chrono::DateTime<chrono::Utc>| {
            u64::try_from(at.timestamp_millis()).unwrap_or_default()
        };
        let from = millis(&run.created_at);
        let to = run.finished_at.as_ref().map_or(u64::MAX, millis);
        // The terminal event follows the commit.
        let to = to.saturating_add(Self::APART);
        self.0
            .iter()
            .filter(|loss| loss.until < by)
            .any(|loss| from < loss.until + Self::APART && to > loss.since)
    }
}
