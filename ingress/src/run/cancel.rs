//! Requests that runs be cancelled. The row decides; messages only save time.

use std::time::Duration;

use baton_nats::{Bus, JobHeaders};
use baton_protocol::{Job, RunId, TenantId};
use baton_run_log::repair_end;
use baton_service::SharedClock;
use baton_store::{AuditEntry, CancelRequest, EndedRun, Store, StoreError};

use crate::metrics;
use crate::run::attachments::CancelRun;

/// The reason of a cancel request without one.
pub(crate) const CLIENT_CLOSED: &str = "client_closed";

/// The pauses between tries of a cancel request that no client will repeat.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The dependencies of a cancel request.
#[derive(Clone)]
pub(crate) struct Canceller {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
}

impl Canceller {
    /// Requests the cancel, and notifies the process that can act on it at once. The audit entry is
    /// committed with it.
    pub(crate) async fn cancel(
        &self,
        tenant: TenantId,
        run: RunId,
        reason: &str,
        audit: Option<&AuditEntry>,
    ) -> Result<CancelRequest, StoreError> {
        let mut tx = self.store.tenant(tenant).await?;
        let request = tx.request_cancel(run, reason).await?;
        if let Some(entry) = audit
            && request.is_new()
        {
            tx.record_audit(entry).await?;
        }
        tx.commit().await?;
        self.carry_out(tenant, run, &request).await;
        Ok(request)
    }

    /// Notifies the process that can act on a committed request at once: the holder of the run, or
    /// the workers that may take the next run of its thread.
    pub(crate) async fn carry_out(&self, tenant: TenantId, run: RunId, request: &CancelRequest) {
        match request {
            CancelRequest::Requested {
                worker: Some(worker),
                ..
            } => {
                // A lost nudge costs the time until the worker's next renewal.
                if let Err(error) = self.bus.nudge_worker(*worker, tenant, run).await {
                    tracing::debug!(%error, "a worker could not be nudged");
                }
            }
            CancelRequest::Ended(ended) if ended.newly => {
                if let Some(latency) = ended.cancel_latency {
                    metrics::run_cancelled(latency);
                }
                self.tell(tenant, run, ended).await;
                self.promote(tenant, run).await;
            }
            CancelRequest::Requested { worker: None, .. }
            | CancelRequest::Ended(_)
            | CancelRequest::NotFound => {}
        }
    }

    /// Publishes the job of the next run of the thread. If that fails, the scheduler publishes it.
    async fn promote(&self, tenant: TenantId, ended: RunId) {
        let next = match self.store.system().next_after(tenant, ended).await {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, run.id = %ended, "the next run of a thread is not known yet");
                return;
            }
        };
        let (job, headers) = (Job::Run { run_id: next.run }, JobHeaders::default());
        let published = self.bus.publish_job(tenant, next.lane, &job, &headers);
        if let Err(error) = published.await {
            tracing::warn!(%error, run.id = %next.run, "the job of the next run is not published yet");
        }
    }

    /// Appends the end of a run that no worker holds. If that fails, the scheduler appends it, or a worker
    /// that receives the run's job.
    async fn tell(&self, tenant: TenantId, run: RunId, ended: &EndedRun) {
        let now = self.clock.now();
        if let Err(error) = repair_end(&self.bus, &self.store, now, tenant, run, ended).await {
            tracing::debug!(%error, run.id = %run, "a run's last event is left for another process to append");
        }
    }

    /// Returns a function that cancels a run after its client has gone. It retries for as long as
    /// that may help.
    pub(crate) fn on_disconnect(self) -> Box<CancelRun> {
        Box::new(move |tenant, run| {
            let this = self.clone();
            Box::pin(async move {
                let mut waits = RETRIES.iter();
                loop {
                    match this.cancel(tenant, run, CLIENT_CLOSED, None).await {
                        Ok(request) => {
                            tracing::debug!(run.id = %run, ?request, "cancelled for a client that left");
                            return;
                        }
                        Err(error) => match waits.next() {
                            Some(wait) if error.is_transient() => tokio::time::sleep(*wait).await,
                            _ => {
                                tracing::warn!(
                                    run.id = %run, error = &error as &dyn std::error::Error,
                                    "a run whose client left could not be cancelled"
                                );
                                return;
                            }
                        },
                    }
                }
            })
        })
    }
}
