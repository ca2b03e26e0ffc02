//! The schedulers' probes of this worker's health, and their absence. Pure.

use std::collections::HashMap;
use std::time::Instant;

use baton_protocol::liveness::{REMEMBERED_FOR, UNASKED_AFTER};
use uuid::Uuid;

/// The last probe of each scheduler. A scheduler that has stopped probing may have been stopped
/// itself, or may not see this worker; then the worker shows in the ledger that it lives.
#[derive(Debug, Default)]
pub struct HealthProbes {
    last: HashMap<Uuid, Instant>,
}

impl HealthProbes {
    /// Records a probe.
    pub fn asked(&mut self, by: Uuid, now: Instant) {
        self.last.insert(by, now);
    }

    /// Returns whether a scheduler that probed this worker has fallen silent.
    pub fn one_is_silent(&mut self, now: Instant) -> bool {
        self.last.retain(|_, last| now < *last + REMEMBERED_FOR);
        self.last.values().any(|last| *last + UNASKED_AFTER <= now)
    }

    /// Returns the time at which the next scheduler counts as silent, unless it probes before.
    pub fn silence_begins(&self) -> Option<Instant> {
        self.last.values().min().map(|last| *last + UNASKED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_scheduler_that_stops_asking_is_noticed_beside_another_and_forgotten_in_the_end() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let start = Instant::now();
        let mut probes = HealthProbes::default();
        assert_eq!(probes.silence_begins(), None);
        assert!(!probes.one_is_silent(start), "nobody has ever asked");
        probes.asked(one, start);
        let end = start + REMEMBERED_FOR;
        let mut now = start;
        while now < end {
            probes.asked(other, now);
            assert_eq!(probes.silence_begins(), Some(start + UNASKED_AFTER));
            assert_eq!(probes.one_is_silent(now), now >= start + UNASKED_AFTER);
            now += Duration::from_millis(250);
        }
        probes.asked(other, end);
        assert!(!probes.one_is_silent(end));
    }
}
