//! Measured times and their percentiles.

use std::time::Duration;

/// Times in microseconds, all of them kept: a bench has thousands, not millions.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    micros: Vec<u32>,
}

impl Samples {
    /// Adds one time.
    pub fn push(&mut self, time: Duration) {
        self.micros
            .push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds the times of another set.
    pub fn merge(&mut self, other: Self) {
        self.micros.extend(other.micros);
    }

    /// Returns the number of times.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// Returns the time in milliseconds below which `percent` of them are; zero if there are none.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.micros.clone();
        if sorted.is_empty() {
            return 0.0;
        }
        let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
        let (_, value, _) = sorted.select_nth_unstable(at);
        f64::from(*value) / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "the values are exact")]
    fn percentiles_are_taken_of_the_whole() {
        let mut samples = Samples::default();
        for millis in (1..=100).rev() {
            samples.push(Duration::from_millis(millis));
        }
        assert_eq!(samples.percentile(50), 51.0);
        assert_eq!(samples.percentile(99), 100.0);
        assert_eq!(Samples::default().percentile(50), 0.0);
    }
}
