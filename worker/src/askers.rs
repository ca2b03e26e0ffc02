//! Which schedulers ask whether this worker is there, and whether one has stopped. Pure.

use std::collections::HashMap;
use std::time::Instant;

use baton_protocol::liveness::{REMEMBERED_FOR, UNASKED_AFTER};
use uuid::Uuid;

/// Who has asked, and when last. A scheduler that has stopped asking may have been stopped itself,
/// or may see this worker no longer; then the worker shows in the ledger that it lives.
#[derive(Debug, Default)]
pub struct Askers {
    last: HashMap<Uuid, Instant>,
}

impl Askers {
    /// A scheduler asked.
    pub fn asked(&mut self, by: Uuid, now: Instant) {
        self.last.insert(by, now);
    }

    /// Whether a scheduler that used to ask has fallen silent.
    pub fn one_is_silent(&mut self, now: Instant) -> bool {
        self.last.retain(|_, last| now < *last + REMEMBERED_FOR);
        self.last.values().any(|last| *last + UNASKED_AFTER <= now)
    }

    /// When that will be, if nobody asks until then.
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
        let mut askers = Askers::default();
        assert_eq!(askers.silence_begins(), None);
        assert!(!askers.one_is_silent(start), "nobody has ever asked");
        askers.asked(one, start);
        let end = start + REMEMBERED_FOR;
        let mut now = start;
        while now < end {
            askers.asked(other, now);
            assert_eq!(askers.silence_begins(), Some(start + UNASKED_AFTER));
            assert_eq!(askers.one_is_silent(now), now >= start + UNASKED_AFTER);
            now += Duration::from_millis(250);
        }
        askers.asked(other, end);
        assert!(!askers.one_is_silent(end));
    }
}
