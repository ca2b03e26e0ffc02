//! The health of an upstream by its recent failures. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which an upstream is passed over.
const MOST_FAILURES: u32 = 3;
/// The first time for which it is passed over; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The recent failures of an upstream.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    /// The time of the next request that may try it, while it is down.
    next_try: Option<Instant>,
}

impl Health {
    /// Returns whether a request may be sent now. While the upstream is down, one request tries it after
    /// each pause.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.next_try {
            None => true,
            Some(next) if next <= now => {
                self.next_try = Some(now + self.pause());
                true
            }
            Some(_) => false,
        }
    }

    /// Records an answer. Returns whether the upstream was down.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.next_try.take().is_some()
    }

    /// Records a failure. Returns whether the upstream is down from now on.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < MOST_FAILURES {
            return false;
        }
        self.next_try.replace(now + self.pause()).is_none()
    }

    /// Returns whether the upstream is not passed over.
    pub(super) const fn is_up(&self) -> bool {
        self.next_try.is_none()
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(MOST_FAILURES).min(16);
        FIRST_PAUSE
            .saturating_mul(1 << doublings)
            .min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_fails_is_tried_by_one_request_after_each_pause() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::default();
        assert!(!health.failed(start) && !health.failed(start));
        assert!(health.admits(start), "two failures are no outage");
        assert!(!health.answered());
        assert!(!health.failed(start) && !health.failed(start));
        assert!(health.failed(start), "three in a row are one");
        assert!(!health.is_up() && !health.admits(start));
        assert!(health.admits(at(1)), "a request tries it");
        assert!(!health.admits(at(1)), "only one does");
        assert!(!health.failed(at(1)), "it was down");
        assert!(!health.admits(at(2)) && health.admits(at(3)));
        for _ in 0..40 {
            health.failed(at(3));
        }
        assert!(!health.admits(at(32)) && health.admits(at(33)));
        assert!(health.answered() && health.is_up());
        assert!(health.admits(at(33)) && health.admits(at(33)));
    }
}
