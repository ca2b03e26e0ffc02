//! The ledger's time, counted on by this process.
//!
//! All that ingresses decide by the time of day (whether a credential has expired, what was admitted
//! in the last minute) they decide alike, however wrong the clocks of their machines are: each asks
//! the ledger what time it is, and counts on from there by a clock that nobody sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use baton_service::{Background, Clock, SharedClock, Shutdown};
use baton_store::{Store, StoreError};
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

/// How often the ledger is asked. Clocks that nobody sets differ by less than a millisecond in that
/// time; and the ledger may have moved to another machine.
const ASK: Background = Background {
    name: "ask_the_time",
    every: Duration::from_secs(5),
};
/// An answer that took longer says too little about when it was given.
const PROMPT: Duration = Duration::from_secs(1);

/// Tells the ledger's time once that is known, and until then the machine's.
pub(crate) struct LedgerClock {
    own: SharedClock,
    started: Instant,
    /// The ledger's time at `started`, in microseconds since 1970.
    at_start: AtomicI64,
}

impl LedgerClock {
    /// Asks the ledger. If that cannot be reached, the machine's clock counts until it can.
    pub(crate) async fn start(own: SharedClock, store: &Store) -> Arc<Self> {
        let clock = Self {
            started: own.monotonic(),
            at_start: AtomicI64::new(own.now().timestamp_micros()),
            own,
        };
        if let Err(error) = clock.ask(store).await {
            tracing::warn!(%error, "the ledger does not say what time it is: this machine's counts");
        }
        Arc::new(clock)
    }

    /// Asks again and again until the soft stop.
    pub(crate) async fn run(&self, store: &Store, shutdown: &Shutdown) {
        ASK.run(&Notify::new(), shutdown, || self.ask(store)).await;
    }

    async fn ask(&self, store: &Store) -> Result<(), StoreError> {
        let asked = self.own.monotonic();
        let now = store.system().now().await?;
        let took = self.own.monotonic() - asked;
        if took <= PROMPT {
            let at_start = now - (asked + took / 2 - self.started);
            self.at_start
                .store(at_start.timestamp_micros(), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Clock for LedgerClock {
    fn now(&self) -> DateTime<Utc> {
        let at_start = DateTime::from_timestamp_micros(self.at_start.load(Ordering::Relaxed));
        // A time that was one before is one.
        at_start.unwrap_or_default() + (self.own.monotonic() - self.started)
    }

    fn monotonic(&self) -> Instant {
        self.own.monotonic()
    }
}
