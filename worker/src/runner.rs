//! The state that all runs of a worker share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_nats::Bus;
use baton_protocol::WorkerId;
use baton_service::config::WorkerConfig;
use baton_service::{Clock, Shutdown};
use baton_store::Store;
use tokio_util::sync::CancellationToken;

use crate::keep_lease::LeaseKeeper;
use crate::settings::Settings;

/// The dependencies of a run, shared by all runs of a worker.
pub(crate) struct JobRunner {
    /// The id of this process.
    pub(crate) worker: WorkerId,
    /// The ledger.
    pub(crate) store: Store,
    /// The broker.
    pub(crate) bus: Bus,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Upstreams, prices and tools, for attempts that begin now.
    pub(crate) settings: ArcSwap<Settings>,
    /// Limits and durations.
    pub(crate) config: WorkerConfig,
    /// The most messages of events that a run may have.
    pub(crate) events_per_run: u32,
    /// The signal to stop.
    pub(crate) shutdown: Shutdown,
    /// Cancelled at the drain's deadline.
    pub(crate) cut: CancellationToken,
    /// Keeps the leases of active runs.
    pub(crate) leases: LeaseKeeper,
}
