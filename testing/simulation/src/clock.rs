//! The clock of the processes: virtual time.

use std::time::Instant;

use baton_service::{Clock, SharedClock};
use chrono::{DateTime, Utc};
use tokio::time;

use crate::time::{date, millis};
use crate::world::Sim;

struct VirtualClock {
    began: Instant,
}

impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        date(millis(
            self.monotonic().saturating_duration_since(self.began),
        ))
    }

    fn monotonic(&self) -> Instant {
        time::Instant::now().into_std()
    }
}

impl Sim {
    /// Returns the clock for the product's code.
    pub(crate) fn clock(&self) -> SharedClock {
        let began = self.began();
        std::sync::Arc::new(VirtualClock { began })
    }
}
