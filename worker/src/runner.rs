//! What all runs of a worker share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_nats::Bus;
use baton_protocol::WorkerId;
use baton_service::config::WorkerConfig;
use baton_service::{Clock, Shutdown};
use baton_store::Store;
use tokio_util::sync::CancellationToken;

use crate::keep_lease::LeaseKeeper;
use crate::model::ModelClient;
use crate::settings::Settings;

/// Everything that a run needs, shared by all runs of a worker.
pub(crate) struct JobRunner {
    /// This process.
    pub(crate) worker: WorkerId,
    /// The ledger.
    pub(crate) store: Store,
    /// The broker.
    pub(crate) bus: Bus,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The upstream.
    pub(crate) model: ModelClient,
    /// Prices and tools, for attempts that begin now.
    pub(crate) settings: ArcSwap<Settings>,
    /// Limits and times.
    pub(crate) config: WorkerConfig,
    /// How many messages of events a run may have.
    pub(crate) events_per_run: u32,
    /// When to stop.
    pub(crate) shutdown: Shutdown,
    /// Cancelled when the drain's deadline has come.
    pub(crate) cut: CancellationToken,
    /// Keeps the leases of the runs that are worked on.
    pub(crate) leases: LeaseKeeper,
}
