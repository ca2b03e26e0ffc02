//! Decides whether and when a turn is repeated.

use std::time::Duration;

use super::ModelError;

/// Exponential pauses with jitter; the pause that the upstream requests takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub max_retries: u32,
    /// The longest pause before the first retry; it doubles with each.
    pub base: Duration,
    /// The longest pause of all, even if the upstream requests more.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_millis(250),
            cap: Duration::from_secs(20),
        }
    }
}

impl RetryPolicy {
    /// Returns the pause after the `failed`-th try (from 1) ended with `error`; `None` if that was
    /// the last try. `jitter` is a random number from 0 to 1: a pause lies between half its length
    /// and its length, so that many workers do not return at once.
    pub fn pause(&self, failed: u32, error: &ModelError, jitter: f64) -> Option<Duration> {
        if failed > self.max_retries || !error.retryable() {
            return None;
        }
        Some(self.pause_after(failed, error, jitter))
    }

    fn pause_after(&self, failed: u32, error: &ModelError, jitter: f64) -> Duration {
        if let Some(asked) = error.retry_after() {
            let spread = self.base.min(asked).mul_f64(jitter.clamp(0.0, 1.0));
            return (asked + spread).min(self.cap);
        }
        let doublings = failed.saturating_sub(1).min(16);
        let longest = self.base.saturating_mul(1 << doublings).min(self.cap);
        longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Like [`RetryPolicy::pause`], for a turn that broke off in the middle of its answer.
    pub fn turn_pause(&self, failed: u32, error: &ModelError, jitter: f64) -> Option<Duration> {
        let is_next = failed <= self.max_retries && error.may_go_better();
        is_next.then(|| self.pause_after(failed, error, jitter))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::super::Wait;
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_retries: 3,
        base: Duration::from_millis(200),
        cap: Duration::from_secs(5),
    };

    fn limited(retry_after: Option<Duration>, quota_spent: bool) -> ModelError {
        ModelError::RateLimited {
            message: String::new(),
            retry_after,
            quota_spent,
        }
    }

    #[test]
    fn pauses_double_and_end() {
        let error = ModelError::TimedOut(Wait::FirstByte);
        let pauses: Vec<_> = (1..=4)
            .map(|failed| POLICY.pause(failed, &error, 1.0))
            .collect();
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(pauses, [millis(200), millis(400), millis(800), None]);
    }

    #[test]
    fn the_upstreams_word_counts_up_to_the_cap() {
        let second = Duration::from_secs(1);
        assert_eq!(
            POLICY.pause(1, &limited(Some(second), false), 0.0),
            Some(second)
        );
        let hour = Duration::from_hours(1);
        assert_eq!(
            POLICY.pause(1, &limited(Some(hour), false), 0.5),
            Some(POLICY.cap)
        );
    }

    #[test]
    fn what_cannot_succeed_is_not_repeated() {
        assert_eq!(POLICY.pause(1, &limited(None, true), 0.5), None);
        for (status, again) in [
            (500, true),
            (503, true),
            (408, true),
            (425, true),
            (302, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = ModelError::Failed {
                status,
                retry_after: None,
            };
            assert_eq!(POLICY.pause(1, &error, 0.5).is_some(), again, "{status}");
        }
        let error = ModelError::Unauthorized {
            status: StatusCode::UNAUTHORIZED,
        };
        assert_eq!(POLICY.pause(1, &error, 0.5), None);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_the_cap(
            failed in 1_u32..100, jitter in -1.0..2.0, asked in proptest::option::of(0_u64..100_000),
        ) {
            let policy = RetryPolicy { max_retries: 100, ..POLICY };
            let error = limited(asked.map(Duration::from_millis), false);
            let pause = policy.pause(failed, &error, jitter).unwrap();
            prop_assert!(pause <= policy.cap);
            prop_assert!(pause >= Duration::from_millis(asked.unwrap_or(100)).min(policy.cap));
        }
    }
}
