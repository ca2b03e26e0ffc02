//! How long a worker may believe that a run is its own.

use std::time::{Duration, Instant};

use baton_protocol::liveness::CONFIRMED_WITHIN;

/// A lease as its holder sees it. The ledger's clock decides; the holder counts from *sending* the
/// claim or the renewal that was confirmed, so that it always gives up before the ledger does.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    length: Duration,
    sent: Instant,
    /// When that was sent which the ledger last took from the holder, be it a renewal or a commit.
    confirmed: Instant,
}

impl Lease {
    /// A lease granted to a claim that was sent at `sent`.
    pub const fn granted(sent: Instant, length: Duration) -> Self {
        Self {
            length,
            sent,
            confirmed: sent,
        }
    }

    /// A renewal that was sent at `sent` has been confirmed.
    #[must_use]
    pub fn renewed(self, sent: Instant) -> Self {
        Self {
            sent: self.sent.max(sent),
            ..self.confirmed(sent)
        }
    }

    /// Something that was sent at `sent` and does not renew the lease, but that the ledger takes
    /// from the holder alone, has been confirmed.
    #[must_use]
    pub fn confirmed(self, sent: Instant) -> Self {
        Self {
            confirmed: self.confirmed.max(sent),
            ..self
        }
    }

    /// When that was sent which the ledger last confirmed.
    pub const fn last_confirmed(&self) -> Instant {
        self.confirmed
    }

    /// When the grant or the last confirmed renewal was asked for.
    pub const fn sent(&self) -> Instant {
        self.sent
    }

    /// When the holder must have stopped: before its next side effect, a tenth of the lease early,
    /// for what is already on its way.
    pub fn give_up_at(&self) -> Instant {
        self.sent + self.length.saturating_sub(self.length / 10)
    }

    /// When the ledger may give the run to somebody else; it counts from a moment later.
    pub fn end(&self) -> Instant {
        self.sent + self.length
    }

    /// Whether the holder may still act.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.give_up_at()
    }

    /// Whether the holder may begin a side effect that nothing else guards: see
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
        /// The ledger's lease begins when the claim or renewal arrives, somewhere between sending
        /// it and hearing of it. Whatever the delays, and however often it is renewed: at the
        /// moment at which the ledger may give the run away, the holder has long stopped.
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
                    // Refused, or never asked for.
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

        /// A run is taken early from a row that nobody has written to for a while. Whatever the
        /// ledger confirmed before, and however late the holder heard of it: from then on it begins
        /// nothing.
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
