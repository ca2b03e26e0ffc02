//! Appends terminal events that the logs of ended runs lack.
//!
//! A run's end is committed first and its event follows. If a worker dies between the two, the one that
//! gets the job again appends the event. Two kinds of runs have no such job:
//!
//! - Runs that were cancelled or answered while nobody held them. Their rows are marked in the commit
//!   that ends them, and each look takes the marked ones. Almost always there are none, or their events
//!   were stored at once.
//! - Runs that the broker lost the job and the event of. This looks for them only if that may have
//!   happened: at the start of this process, after a lost connection, and if EVENTS is another stream
//!   than before or ends earlier than before. It then checks recent ends, not everything that the stream
//!   once held: followers of an older run get its missing events from the ledger.
//!
//! Otherwise a look costs two small requests, at any load.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_nats::{Bus, EventsState};
use baton_protocol::{RunId, TenantId};
use baton_run_log::repair_end;
use baton_service::SharedClock;
use baton_store::{EndedRun, Store};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::metrics;

/// The age up to which ends are checked: far longer than a worker needs from its commit to the
/// event, and than a broker takes to recover from a crash.
const RECENT: Duration = Duration::from_mins(10);
/// The most ends of one sweep, the newest first. Followers of the others repair them when they
/// come.
const MOST: u32 = 20_000;
/// The number of ends that are checked at a time.
const AT_ONCE: usize = 32;
/// The time that the process which ended a run has for its event.
const GRACE: Duration = Duration::from_secs(5);
/// The most marked ends of one look; the next takes the rest.
const MARKED: u32 = 1_000;

/// The repair of terminal events.
pub struct RepairEnds {
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The time.
    pub clock: SharedClock,
    /// The broker's state when all ends had last been repaired; none before the first time.
    seen: Mutex<Option<Seen>>,
}

/// The state of the broker that shows whether it may have lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The number of lost connections so far.
    lost: u64,
    events: EventsState,
}

/// Returns whether something may have been lost between two looks.
fn may_have_lost(before: Option<Seen>, now: Seen) -> bool {
    before.is_none_or(|before| {
        before.lost != now.lost
            || before.events.created_at != now.events.created_at
            || before.events.last_seq > now.events.last_seq
    })
}

impl RepairEnds {
    /// Makes a repair before its first look.
    pub const fn new(store: Store, bus: Bus, clock: SharedClock) -> Self {
        Self {
            store,
            bus,
            clock,
            seen: Mutex::new(None),
        }
    }

    /// Looks once, and sweeps if there is a reason.
    pub async fn look(&self) -> anyhow::Result<()> {
        // Read before the stream's state, so that a loss in between shows at the next look.
        let lost = self.bus.link().borrow().down;
        let events = self.bus.events_state().await?;
        let now = Seen { lost, events };
        let before = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if may_have_lost(before, now) {
            self.sweep().await?;
        }
        // Only after the sweep has succeeded, because a failed one must be repeated.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.log_marked().await
    }

    async fn log_marked(&self) -> anyhow::Result<()> {
        let system = self.store.system();
        let marked = system.unlogged_ends(GRACE, MARKED).await?;
        let mut repairs = stream::iter(marked)
            .map(|(tenant, run, ended)| async move {
                self.repair(tenant, run, ended).await?;
                anyhow::Ok((tenant, run))
            })
            .buffer_unordered(AT_ONCE);
        let mut logged = Vec::new();
        let mut failure = Ok(());
        while let Some(repaired) = repairs.next().await {
            match repaired {
                Ok(run) => logged.push(run),
                Err(error) => failure = Err(error),
            }
        }
        if !logged.is_empty() {
            system.mark_ends_logged(&logged).await?;
        }
        failure
    }

    async fn sweep(&self) -> anyhow::Result<()> {
        let ended = self.store.system().recently_ended(RECENT, MOST).await?;
        let mut repairs = stream::iter(ended)
            .map(|(tenant, run, ended)| self.repair(tenant, run, ended))
            .buffer_unordered(AT_ONCE);
        while let Some(repaired) = repairs.next().await {
            repaired?;
        }
        Ok(())
    }

    async fn repair(&self, tenant: TenantId, run: RunId, ended: EndedRun) -> anyhow::Result<()> {
        let now = self.clock.now();
        let appended = repair_end(&self.bus, &self.store, now, tenant, run, &ended).await?;
        if appended {
            tracing::info!(tenant.id = %tenant, run.id = %run, "appended a missing terminal event");
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
