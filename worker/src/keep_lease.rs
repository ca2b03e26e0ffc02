//! Keeps a run's lease while it is worked on, and says when the work must stop.

use std::time::Duration;

use baton_nats::{Bus, Delivery};
use baton_protocol::Fence;
use baton_service::{Clock, config::WorkerConfig};
use baton_store::{FenceError, Renewal, Store};
use tokio_util::sync::CancellationToken;

use crate::lease::Lease;
use crate::nudges::Nudge;

/// Why the work must stop at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody asked for it, with this reason.
    Cancelled(String),
    /// Another attempt holds the run, or the run has ended.
    LeaseLost,
    /// The ledger or the broker did not answer in time.
    LeaseUnconfirmed,
    /// The drain's deadline has come.
    Cut,
}

/// What keeping the lease of one attempt takes.
pub(crate) struct KeepLease<'a> {
    /// The ledger, whose clock the lease runs by.
    pub(crate) store: &'a Store,
    /// The broker, which must answer between two renewals.
    pub(crate) bus: &'a Bus,
    /// The worker's own clock, for giving up in time.
    pub(crate) clock: &'a dyn Clock,
    /// The drain's deadline.
    pub(crate) cut: &'a CancellationToken,
    /// Lengths.
    pub(crate) config: &'a WorkerConfig,
    /// The message behind the attempt, kept in progress by the same ticker.
    pub(crate) delivery: &'a Delivery,
    /// The attempt.
    pub(crate) fence: Fence,
    /// As granted by the claim.
    pub(crate) lease: Lease,
    /// Asks for an early look at the ledger.
    pub(crate) nudge: &'a Nudge,
}

impl KeepLease<'_> {
    /// Runs beside the work, and ends only when the work must.
    pub(crate) async fn until_stopped(&mut self) -> Stop {
        let mut next = self.lease.sent() + self.config.renew_every;
        loop {
            tokio::select! {
                () = self.cut.cancelled() => return Stop::Cut,
                () = self.nudge.nudged() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let sent = self.clock.monotonic();
            match self.renew().await {
                Ok(renewal) => {
                    self.lease = self.lease.renewed(sent);
                    next = sent + self.config.renew_every;
                    if let Some(reason) = renewal.cancel_requested {
                        return Stop::Cancelled(reason);
                    }
                }
                Err(stop) => return stop,
            }
        }
    }

    /// One renewal, tried until it is confirmed, refused, or too late. A worker that no longer
    /// reaches the broker does not renew either: it would hold a run that it cannot serve.
    async fn renew(&self) -> Result<Renewal, Stop> {
        let give_up = self.lease.give_up_at();
        let attempt = async {
            loop {
                match self.renew_once().await {
                    Ok(renewal) => return renewal.ok_or(Stop::LeaseLost),
                    Err(error) => {
                        tracing::warn!(%error, "the lease could not be renewed yet");
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                }
            }
        };
        tokio::select! {
            renewal = attempt => renewal,
            () = tokio::time::sleep_until(give_up.into()) => Err(Stop::LeaseUnconfirmed),
        }
    }

    /// Nothing, if the ledger says that the run is not this attempt's.
    async fn renew_once(&self) -> anyhow::Result<Option<Renewal>> {
        self.bus.ping().await?;
        match self
            .store
            .system()
            .renew_lease(&self.fence, self.config.lease)
            .await
        {
            Ok(renewal) => {
                self.delivery.in_progress().await?;
                Ok(Some(renewal))
            }
            Err(FenceError::Lost) => Ok(None),
            Err(FenceError::Store(error)) => Err(error.into()),
        }
    }
}
