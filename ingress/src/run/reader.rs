//! Reads runs: their rows from the ledger, their events from the stream.

use baton_nats::{Bus, BusError, EventFollower, LedgerAttempts, Subscribed};
use baton_protocol::{RunId, TenantId};
use baton_run_log::repair_end;
use baton_service::SharedClock;
use baton_store::{EndedRun, Store};

/// Reads runs from the ledger and the stream.
pub(crate) struct RunReader {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    /// Looks up the newest attempts of runs for their followers.
    pub(crate) attempts: LedgerAttempts,
}

impl RunReader {
    /// Subscribes to a run's live events.
    pub(crate) async fn subscribe(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Subscribed, BusError> {
        EventFollower::subscribe(&self.bus, tenant, run, self.attempts.clone()).await
    }

    /// Ensures that the last event of a run that has ended is stored, and returns whether it is.
    pub(super) async fn append_end(&self, tenant: TenantId, run: RunId, ended: &EndedRun) -> bool {
        let now = self.clock.now();
        match repair_end(&self.bus, &self.store, now, tenant, run, ended).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, run.id = %run, "a run's end could not be appended yet");
                false
            }
        }
    }
}
