//! The state that all runs of a worker share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_protocol::WorkerId;
use baton_service::config::WorkerConfig;
use baton_service::{Clock, Shutdown};
use tokio_util::sync::CancellationToken;

use crate::keep_lease::LeaseKeeper;
use crate::settings::Settings;
use crate::world::{Servers, World};

/// The dependencies of a run, shared by all runs of a worker.
pub struct JobRunner<W: World = Servers> {
    /// The id of this process.
    pub worker: WorkerId,
    /// The ledger.
    pub store: W::Ledger,
    /// The broker.
    pub bus: W::Broker,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Upstreams, prices and tools, for attempts that begin now.
    pub settings: ArcSwap<Settings>,
    /// Limits and durations.
    pub config: WorkerConfig,
    /// The most messages of events that a run may have.
    pub events_per_run: u32,
    /// The signal to stop.
    pub shutdown: Shutdown,
    /// Cancelled at the drain's deadline.
    pub cut: CancellationToken,
    /// Keeps the leases of active runs.
    pub leases: LeaseKeeper<W>,
}
