//! What a broker lost, and whose it may have been.

use super::LedgerRun;

/// Times that the broker came back without something.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

#[derive(Debug)]
struct Loss {
    /// What was stored from then on is lost.
    since: u64,
    /// When the broker was back.
    until: u64,
}

impl Losses {
    /// How far the clocks of the ledger and of the history may be apart, in milliseconds.
    const APART: u64 = 1_000;

    /// The broker was back at `until` without what was stored since `since`.
    pub(super) fn add(&mut self, since: u64, until: u64) {
        self.0.push(Loss { since, until });
    }

    /// Whether events of this run may be gone.
    pub(super) fn may_hit(&self, run: &LedgerRun) -> bool {
        self.may_have_hit(run, u64::MAX)
    }

    /// Whether events of this run may have been gone at that time.
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
