//! The rhythm in which Prometheus reads the metrics of this process.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The longest wait for a scrape. Orchestrators allow 20 s between the end of a drain and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(12);

/// The times of scrapes.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    times: watch::Sender<Times>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    last: Option<Instant>,
    /// The time between the last two.
    interval: Option<Duration>,
}

impl Scrapes {
    /// Records a scrape.
    pub(super) fn note(&self) {
        let now = Instant::now();
        self.times.send_modify(|times| {
            times.interval = times.last.map(|last| now - last);
            times.last = Some(now);
        });
    }

    /// Waits for the next scrape, if one is due soon. Returns at once if the process is not scraped
    /// regularly.
    pub(super) async fn next(&self) {
        let mut times = self.times.subscribe();
        let now = Instant::now();
        let due = times.borrow_and_update().due();
        if let Some(due) = due.filter(|due| *due > now) {
            // Without a scrape in time, the counts since the last one are lost.
            let _scraped = timeout_at(due.min(now + PATIENCE), times.changed()).await;
        }
    }
}

impl Times {
    /// Returns the time by which the next scrape must have come, a late one included.
    fn due(self) -> Option<Instant> {
        Some(self.last? + 2 * self.interval?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// Returns the scrapes of a Prometheus that has come twice, just now for the second time.
    async fn every_ten_seconds() -> Scrapes {
        let scrapes = Scrapes::default();
        scrapes.note();
        advance(TEN).await;
        scrapes.note();
        scrapes
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_waits_for_the_scrape_that_is_due() {
        let scrapes = every_ten_seconds().await;
        let next = scrapes.next();
        tokio::pin!(next);
        assert!(timeout(TEN, &mut next).await.is_err());
        scrapes.note();
        timeout(Duration::ZERO, next).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_that_does_not_come_is_waited_for_with_patience() {
        let scrapes = every_ten_seconds().await;
        let start = Instant::now();
        scrapes.next().await;
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_nobody_scrapes_regularly_does_not_wait() {
        let start = Instant::now();
        let scrapes = Scrapes::default();
        scrapes.next().await;
        scrapes.note();
        scrapes.next().await;
        assert_eq!(start.elapsed(), Duration::ZERO);

        let scrapes = every_ten_seconds().await;
        advance(3 * TEN).await;
        let start = Instant::now();
        scrapes.next().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
