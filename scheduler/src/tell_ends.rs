//! Ends of runs that the broker may have lost are told again.
//!
//! A run's end is committed first and its event follows. Whoever finds it missing appends it: the
//! worker that is given the job again, or a follower. When the broker has lost a part of what it
//! held, jobs and events may be gone together, and nobody comes any more. So this looks only when
//! that may have happened: when this process begins, when its connection was lost, when EVENTS is
//! another stream than it was, or ends before where it ended. In between it costs one small request
//! every few seconds, whatever the load.
//!
//! Then it looks at what ended lately, and not at all that the stream once held: what is missing of
//! an older run is told to whoever asks for it, from the ledger.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_admission::terminal_event::ensure_terminal_event;
use baton_nats::{Bus, EventsState};
use baton_protocol::{RunId, TenantId};
use baton_service::SharedClock;
use baton_store::{EndedRun, Store};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::metrics;

/// How far back an end is looked for: far longer than a worker takes from its commit to the event,
/// and than a broker that crashed is away.
const RECENT: Duration = Duration::from_mins(10);
/// How many ends are looked at, the newest first. One that is left out has followers that tell it,
/// or none.
const MOST: u32 = 20_000;
/// How many are looked at at a time.
const AT_ONCE: usize = 32;

/// What the sweep works with.
pub struct TellEnds {
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The time.
    pub clock: SharedClock,
    /// What was last seen of the broker, when all ends were told; none before the first time.
    seen: Mutex<Option<Seen>>,
}

/// What tells a broker that has everything from one that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// How often the connection had been lost.
    lost: u64,
    events: EventsState,
}

/// Whether something may have been lost between two looks.
fn may_have_lost(before: Option<Seen>, now: Seen) -> bool {
    before.is_none_or(|before| {
        before.lost != now.lost
            || before.events.created_at != now.events.created_at
            || before.events.last_seq > now.events.last_seq
    })
}

impl TellEnds {
    /// Before the first look.
    pub const fn new(store: Store, bus: Bus, clock: SharedClock) -> Self {
        Self {
            store,
            bus,
            clock,
            seen: Mutex::new(None),
        }
    }

    /// One look, and a sweep if it finds reason for one.
    pub async fn look(&self) -> anyhow::Result<()> {
        // Read before the stream's state: what is lost in between shows at the next look.
        let lost = self.bus.link().borrow().down;
        let events = self.bus.events_state().await?;
        let now = Seen { lost, events };
        let before = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if may_have_lost(before, now) {
            self.sweep().await?;
        }
        // Not before the sweep has succeeded, or it would not be tried again.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(())
    }

    async fn sweep(&self) -> anyhow::Result<()> {
        let ended = self.store.system().recently_ended(RECENT, MOST).await?;
        let mut telling = stream::iter(ended)
            .map(|(tenant, run, ended)| self.tell(tenant, run, ended))
            .buffer_unordered(AT_ONCE);
        while let Some(told) = telling.next().await {
            told?;
        }
        Ok(())
    }

    async fn tell(&self, tenant: TenantId, run: RunId, ended: EndedRun) -> anyhow::Result<()> {
        let now = self.clock.now();
        let appended =
            ensure_terminal_event(&self.bus, &self.store, now, tenant, run, &ended).await?;
        if appended {
            tracing::info!(tenant.id = %tenant, run.id = %run, "a lost end is told again");
            metrics::end_told();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_broker_that_went_on_has_lost_nothing() {
        let seen = |lost, created: i64, last_seq| Seen {
            lost,
            events: EventsState {
                created_at: DateTime::from_timestamp(created, 0).unwrap(),
                last_seq,
            },
        };
        let before = seen(0, 100, 50);
        assert!(may_have_lost(None, before), "nobody knows");
        assert!(!may_have_lost(Some(before), before));
        assert!(!may_have_lost(Some(before), seen(0, 100, 51)));
        assert!(
            may_have_lost(Some(before), seen(0, 100, 49)),
            "an older copy"
        );
        assert!(
            may_have_lost(Some(before), seen(0, 101, 51)),
            "another stream"
        );
        assert!(
            may_have_lost(Some(before), seen(1, 100, 51)),
            "it may have come back with an older copy and gone on since"
        );
    }
}
