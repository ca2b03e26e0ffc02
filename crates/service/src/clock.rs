//! Time as a parameter, so that tests can choose it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A role's source of the time.
///
/// Lease times do not come from here, because only the database's clock decides them.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, UTC; it may jump.
    fn now(&self) -> DateTime<Utc>;

    /// A clock that never goes back, for durations.
    fn monotonic(&self) -> Instant;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the machine's clock as a shared one.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the machine's time enters"
    )]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock for tests that moves only when it is advanced.
#[derive(Debug)]
pub struct FixedClock {
    start: (DateTime<Utc>, Instant),
    elapsed: Mutex<Duration>,
}

impl FixedClock {
    /// Makes a clock that shows `now`.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self {
            start: (now, Instant::now()),
            elapsed: Mutex::new(Duration::ZERO),
        }
    }

    /// Moves both the wall clock and the monotonic clock forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        self.start.0 + self.elapsed()
    }

    fn monotonic(&self) -> Instant {
        self.start.1 + self.elapsed()
    }
}

/// The machine's clock with this error, for tests.
#[derive(Debug, Clone, Copy)]
pub struct WrongClock(pub TimeDelta);

impl Clock for WrongClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + self.0
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_both_its_times_only_when_told() {
        let start = DateTime::UNIX_EPOCH;
        let clock = FixedClock::at(start);
        let before = clock.monotonic();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now(), start + Duration::from_secs(90));
        assert_eq!(clock.monotonic() - before, Duration::from_secs(90));
    }
}
