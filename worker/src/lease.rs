//! The time for which a worker may rely on holding a run.

use std::time::{Duration, Instant};

use baton_protocol::liveness::CONFIRMED_WITHIN;

/// A lease as its holder sees it. The ledger's clock decides; the holder counts from *sending* the
/// claim or the renewal that was confirmed, so that it always gives up before the ledger does.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    length: Duration,
    sent: Instant,
    /// The time of sending the last write that the ledger accepted, a renewal or a commit.
    confirmed: Instant,
}

impl Lease {
    /// Returns the lease granted to a claim that was sent at `sent`.
    pub const fn granted(sent: Instant, length: Duration) -> Self {
        Self {
            length,
            sent,
            confirmed: sent,
        }
    }

    /// Notes that a renewal sent at `sent` was confirmed.
    #[must_use]
    pub fn renewed(self, sent: Instant) -> Self {
        Self {
            sent: self.sent.max(sent),
            ..self.confirmed(sent)
        }
    }

    /// Notes that another write sent at `sent` was confirmed, which does not renew the lease, but
    /// which the ledger accepts only from the holder.
    #[must_use]
    pub fn confirmed(self, sent: Instant) -> Self {
        Self {
            confirmed: self.confirmed.max(sent),
            ..self
        }
    }

    /// Returns the time of sending the last confirmed write.
    pub const fn last_confirmed(&self) -> Instant {
        self.confirmed
    }

    /// Returns the time of sending the claim or the last confirmed renewal.
    pub const fn sent(&self) -> Instant {
        self.sent
    }

    /// Returns the time by which the holder must have stopped: a tenth of the lease early, so that
    /// writes under way arrive in time.
    pub fn give_up_at(&self) -> Instant {
        self.sent + self.length.saturating_sub(self.length / 10)
    }

    /// Returns the time from which the ledger may give the run to another holder; the ledger counts
    /// from a moment later.
    pub fn end(&self) -> Instant {
        self.sent + self.length
    }

    /// Returns whether the holder may still act.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.give_up_at()
    }

    /// Returns whether the holder may begin a side effect that has no other guard: see
    /// [`baton_protocol::liveness`].
    pub fn may_begin(&self, now: Instant) -> bool {
        self.holds(now) && now < self.confirmed + CONFIRMED_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use baton_protocol::liveness::SILENT_FOR;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The ledger's lease begins when the claim or renewal arrives, between its sending and its
        /// answer. Whatever the delays, and however often it is renewed: the holder has stopped
        /// well before the ledger may give the run away.
        #[test]
        fn a_holder_has_stopped_before_the_ledger_gives_the_run_away(
            length_ms in 1_000_u64..60_000,
            renewals in prop::collection::vec((0_u64..20_000, 0_u64..5_000, 0_u64..5_000), 0..20),
            grant in (0_u64..5_000, 0_u64..5_000),
        ) {
            let length = Duration::from_millis(length_ms);
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let (there, back) = grant;
            let mut ledger_end = at(there) + length;
            let mut now = there + back;
            let mut lease = Lease::granted(start, length);
            for (pause, there, back) in renewals {
                prop_assert!(lease.end() <= ledger_end);
                prop_assert!(lease.give_up_at() + length / 10 <= lease.end());
                prop_assert!(!lease.holds(ledger_end));
                now += pause;
                let (sent, arrives) = (at(now), at(now + there));
                if !lease.holds(sent) || arrives >= ledger_end {
                    // Refused, or never sent.
                    break;
                }
                ledger_end = arrives + length;
                now += there + back;
                lease = lease.renewed(sent);
                prop_assert_eq!(lease.sent(), sent);
            }
            prop_assert!(!lease.holds(ledger_end));
            prop_assert!(lease.end() <= ledger_end);
        }

        /// A run is taken early if nobody has written to its row for a while. Whatever the ledger
        /// confirmed before, and however late the answers arrived: the holder begins nothing after
        /// that.
        #[test]
        fn a_holder_begins_nothing_once_its_silent_run_was_taken(
            writes in prop::collection::vec((0_u64..20_000, 0_u64..5_000, any::<bool>()), 1..20),
            pause_ms in 0_u64..1_000,
            later_ms in 0_u64..60_000,
        ) {
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let mut lease = Lease::granted(start, Duration::from_secs(20));
            let mut last_written = 0;
            for (sent, there, renews) in writes {
                last_written = last_written.max(sent + there);
                let sent = at(sent);
                lease = if renews { lease.renewed(sent) } else { lease.confirmed(sent) };
            }
            let taken = at(last_written + pause_ms) + SILENT_FOR;
            prop_assert!(!lease.may_begin(taken + Duration::from_millis(later_ms)));
        }
    }

    #[test]
    fn a_holder_counts_from_sending_and_gives_up_first() {
        let sent = Instant::now();
        let lease = Lease::granted(sent, Duration::from_secs(20));
        assert!(lease.holds(sent + Duration::from_secs(17)));
        assert!(!lease.holds(sent + Duration::from_secs(18)));
        let lease = lease.renewed(sent + Duration::from_secs(5));
        assert!(lease.holds(sent + Duration::from_secs(22)));
        assert!(!lease.holds(sent + Duration::from_secs(25)));
    }
}
