//! The number of jobs that a worker has requested and not yet received. Pure: time is a parameter.
//!
//! The broker serves waiting pulls in turn and does not say which pull a message answers, so the
//! sum over all pulls is counted. A pull that ends early reports its unserved rest; one that is
//! served in full reports nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The time after a pull's end within which its status may arrive.
const GRACE: Duration = Duration::from_secs(1);

/// One pull to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Its number, unique over the source's life.
    number: u64,
    /// The number of jobs that it requests.
    pub batch: usize,
}

impl Pull {
    /// Returns the last token of its reply subject, which identifies it in a status.
    pub fn token(self) -> String {
        format!("{}_{}", self.number, self.batch)
    }

    /// Returns the pull that a status belongs to.
    pub fn from_token(token: &str) -> Option<Self> {
        let (number, batch) = token.split_once('_')?;
        Some(Self {
            number: number.parse().ok()?,
            batch: batch.parse().ok()?,
        })
    }
}

/// The outstanding requests of one lane, over all pulls.
#[derive(Debug, Default)]
pub struct Demand {
    outstanding: usize,
    next: u64,
    /// Pulls with smaller numbers no longer count.
    void_before: u64,
    /// The end of the last pull, whether or not its status arrived.
    all_ended_at: Option<Instant>,
}

impl Demand {
    /// Returns the number of jobs that may still arrive.
    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Returns the pull to send so that up to `max` jobs are requested. Returns `None` while half
    /// of them are outstanding: fewer waiting pulls cost the broker less.
    pub fn shortfall(&self, max: usize) -> Option<Pull> {
        let enough = max == 0 || self.outstanding.saturating_mul(2) >= max;
        (!enough).then(|| Pull {
            number: self.next,
            batch: max - self.outstanding,
        })
    }

    /// Records a pull that was sent.
    pub fn asked(&mut self, pull: Pull, now: Instant, expires: Duration) {
        self.next = pull.number + 1;
        self.outstanding += pull.batch;
        let end = now + expires + GRACE;
        self.all_ended_at = Some(self.all_ended_at.map_or(end, |known| known.max(end)));
    }

    /// Records a job that arrived.
    pub fn delivered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Records a pull that ended with `unserved` jobs left.
    pub fn ended(&mut self, pull: Pull, unserved: usize) {
        if pull.number >= self.void_before {
            self.outstanding = self.outstanding.saturating_sub(unserved);
        }
    }

    /// Forgets all pulls sent so far, because none of them will be served.
    pub fn void(&mut self) {
        self.outstanding = 0;
        self.void_before = self.next;
        self.all_ended_at = None;
    }

    /// Returns the time at which [`Demand::expire`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.all_ended_at.filter(|_| self.outstanding > 0)
    }

    /// Forgets what still seems outstanding once all pulls have ended: a status was lost.
    pub fn expire(&mut self, now: Instant) {
        if self.all_ended_at.is_some_and(|end| end <= now) {
            self.void();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: Duration = Duration::from_secs(5);

    fn ask(demand: &mut Demand, max: usize, now: Instant) -> Option<Pull> {
        let pull = demand.shortfall(max)?;
        demand.asked(pull, now, EXPIRES);
        Some(pull)
    }

    #[test]
    fn a_pull_asks_for_what_is_not_asked_for_yet() {
        let now = Instant::now();
        let mut demand = Demand::default();
        assert_eq!(ask(&mut demand, 0, now), None);
        assert_eq!(ask(&mut demand, 8, now).map(|pull| pull.batch), Some(8));
        assert_eq!(ask(&mut demand, 8, now), None);
        for _ in 0..4 {
            demand.delivered();
        }
        assert_eq!(ask(&mut demand, 8, now), None, "half of it still waits");
        demand.delivered();
        assert_eq!(ask(&mut demand, 8, now).map(|pull| pull.batch), Some(5));
        assert_eq!(demand.outstanding(), 8);
    }

    #[test]
    fn one_slot_is_asked_for_once() {
        let now = Instant::now();
        let mut demand = Demand::default();
        assert!(ask(&mut demand, 1, now).is_some());
        assert!(ask(&mut demand, 1, now).is_none());
        demand.delivered();
        assert!(ask(&mut demand, 1, now).is_some());
    }

    #[test]
    fn an_ended_pull_gives_back_what_was_left_of_it() {
        let now = Instant::now();
        let mut demand = Demand::default();
        let pull = ask(&mut demand, 8, now).unwrap();
        demand.delivered();
        demand.ended(Pull::from_token(&pull.token()).unwrap(), 7);
        assert_eq!(demand.outstanding(), 0);
    }

    #[test]
    fn a_status_of_a_pull_that_counts_no_more_changes_nothing() {
        let now = Instant::now();
        let mut demand = Demand::default();
        let old = ask(&mut demand, 4, now).unwrap();
        demand.void();
        let new = ask(&mut demand, 4, now).unwrap();
        demand.ended(old, 4);
        assert_eq!(demand.outstanding(), 4);
        demand.ended(new, 4);
        assert_eq!(demand.outstanding(), 0);
    }

    #[test]
    fn a_lost_status_is_made_up_for_once_every_pull_has_ended() {
        let now = Instant::now();
        let mut demand = Demand::default();
        ask(&mut demand, 4, now);
        let end = demand.deadline().unwrap();
        demand.expire(end - Duration::from_millis(1));
        assert_eq!(demand.outstanding(), 4);
        demand.expire(end);
        assert_eq!(demand.outstanding(), 0);
        assert_eq!(demand.deadline(), None);
    }
}
