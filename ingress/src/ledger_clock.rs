//! A clock that follows the ledger's time.
//!
//! All ingresses decide alike by the time of day (whether a credential has expired, how many
//! requests the last minute had), however wrong their machines' clocks are: each asks the ledger
//! for the time, and advances it by the monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use baton_service::{Background, Clock, SharedClock, Shutdown};
use baton_store::{Store, StoreError};
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

/// The interval of questions. Monotonic clocks differ by less than a millisecond in that time, and
/// the ledger may move to another machine.
const ASK: Background = Background {
    name: "ask_the_time",
    every: Duration::from_secs(5),
};
/// The longest round trip of a usable answer: a slower one says too little about its moment.
const PROMPT: Duration = Duration::from_secs(1);

/// Returns the ledger's time once it is known, and the machine's until then.
pub(crate) struct LedgerClock {
    own: SharedClock,
    started: Instant,
    /// The ledger's time at `started`, in microseconds since 1970.
    at_start: AtomicI64,
}

impl LedgerClock {
    /// Asks the ledger. If it cannot be reached, the machine's clock counts until it can.
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

    /// Asks periodically until the soft stop.
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
        // The default is never used: any stored value came from a valid time.
        at_start.unwrap_or_default() + (self.own.monotonic() - self.started)
    }

    fn monotonic(&self) -> Instant {
        self.own.monotonic()
    }
}
