//! How much a worker has asked for and not yet got. Pure: time is given.
//!
//! The broker serves waiting pulls in turn and does not say which pull a message answers, so what is
//! counted is the sum over all pulls. A pull that ends unserved says how much of it was left; one
//! that is served in full says nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How long after a pull's end its status may arrive.
const GRACE: Duration = Duration::from_secs(1);

/// One pull to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Its number, counted over the source's life.
    number: u64,
    /// How many jobs it asks for.
    pub batch: usize,
}

impl Pull {
    /// The last token of its reply subject: what a status is known by.
    pub fn token(self) -> String {
        format!("{}_{}", self.number, self.batch)
    }

    /// The pull that a status belongs to.
    pub fn from_token(token: &str) -> Option<Self> {
        let (number, batch) = token.split_once('_')?;
        Some(Self {
            number: number.parse().ok()?,
            batch: batch.parse().ok()?,
        })
    }
}

/// What has been asked for, over all pulls of one lane.
#[derive(Debug, Default)]
pub struct Demand {
    outstanding: usize,
    next: u64,
    /// Pulls with smaller numbers do not count any more.
    void_before: u64,
    /// When the last of all pulls has ended, whether or not its status arrived.
    all_ended_at: Option<Instant>,
}

impl Demand {
    /// How many jobs may still arrive.
    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The pull to send now so that up to `max` jobs are asked for. Nothing while half of them are:
    /// the fewer pulls wait at the broker the better, and what arrives makes room at once.
    pub fn shortfall(&self, max: usize) -> Option<Pull> {
        let enough = max == 0 || self.outstanding.saturating_mul(2) >= max;
        (!enough).then(|| Pull {
            number: self.next,
            batch: max - self.outstanding,
        })
    }

    /// The pull was sent.
    pub fn asked(&mut self, pull: Pull, now: Instant, expires: Duration) {
        self.next = pull.number + 1;
        self.outstanding += pull.batch;
        let end = now + expires + GRACE;
        self.all_ended_at = Some(self.all_ended_at.map_or(end, |known| known.max(end)));
    }

    /// A job arrived.
    pub fn delivered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// A pull ended with this much of it unserved.
    pub fn ended(&mut self, pull: Pull, unserved: usize) {
        if pull.number >= self.void_before {
            self.outstanding = self.outstanding.saturating_sub(unserved);
        }
    }

    /// No pull that was sent so far will be served.
    pub fn void(&mut self) {
        self.outstanding = 0;
        self.void_before = self.next;
        self.all_ended_at = None;
    }

    /// When [`Demand::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.all_ended_at.filter(|_| self.outstanding > 0)
    }

    /// If all pulls have ended by now, what still seems outstanding is a status that was lost.
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
