//! Requeues runs with an expired lease or a lost job.
//!
//! Four rules, over the ledger's rows:
//!
//! - *running* with an expired lease → *queued*, and its job is published;
//! - *awaiting approval* past its expiry → decided as `fail`, *queued*, and its job is published;
//! - *awaiting approval* with a task to ask about, and nobody to decide → *queued*, and its job is published: only
//!   workers have connections to servers of tools;
//! - *queued*, old enough, and its job provably lost → its job is published again.
//!
//! A worker that gets the job of an ended run cancels its tasks.
//!
//! A job that is published once too often costs one claim that finds nothing to do.

use std::time::Duration;

use baton_nats::{Backlog, Bus, JobHeaders};
use baton_protocol::Lane;
use baton_store::{QueuedJob, Store};
use chrono::{DateTime, Utc};

use crate::metrics;

/// The most rows of one sweep; the next takes the rest.
const BATCH: u32 = 500;

/// The dependencies of the rescue.
pub struct RescueRuns {
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The longest time until a published job is stored.
    pub publish_timeout: Duration,
    /// The longest time that a delivery may go without a sign of life.
    pub ack_wait: Duration,
}

impl RescueRuns {
    /// Sweeps once.
    pub async fn sweep(&self) -> anyhow::Result<()> {
        let expired = self.store.system().requeue_expired(BATCH).await?;
        for job in &expired {
            tracing::info!(tenant.id = %job.tenant, run.id = %job.run, "a lease expired");
            metrics::lease_expired();
            publish_rescued(&self.store, &self.bus, job).await;
        }
        for job in &self.store.system().expire_approvals(BATCH).await? {
            tracing::info!(tenant.id = %job.tenant, run.id = %job.run, "an approval expired");
            metrics::approval_expired();
            publish_rescued(&self.store, &self.bus, job).await;
        }
        for job in &self.store.system().wake_for_tasks(BATCH).await? {
            metrics::task_due();
            publish_rescued(&self.store, &self.bus, job).await;
        }
        for job in &self.store.system().ended_with_tasks(BATCH).await? {
            let headers = JobHeaders::default();
            let published = self
                .bus
                .publish_or_leave(job.tenant, job.lane, job.run, &headers);
            // The run is found again after a while.
            let _left = published.await;
        }
        self.republish().await
    }

    async fn republish(&self) -> anyhow::Result<()> {
        let old = self.publish_timeout + self.ack_wait;
        let candidates = self.store.system().unpublished(old, BATCH).await?;
        if candidates.is_empty() {
            return Ok(());
        }
        for lane in Lane::ALL {
            let backlog = self.bus.job_backlog(lane).await?;
            for job in candidates.iter().filter(|job| job.lane == lane) {
                if job_is_gone(job.last_due_at(), &backlog, self.publish_timeout) {
                    tracing::info!(
                        tenant.id = %job.tenant, run.id = %job.run, "a lost job is published again"
                    );
                    metrics::job_republished();
                    publish_rescued(&self.store, &self.bus, job).await;
                }
            }
        }
        Ok(())
    }
}

/// Publishes the job of a run that was found without one.
pub(crate) async fn publish_rescued(store: &Store, bus: &Bus, job: &QueuedJob) {
    let headers = JobHeaders::default();
    let published = bus.publish_or_leave(job.tenant, job.lane, job.run, &headers);
    if published.await.is_err() {
        return;
    }
    // If this fails, the job is published once more than needed.
    if let Err(error) = store
        .system()
        .mark_published(&[(job.tenant, job.run)])
        .await
    {
        tracing::debug!(%error, "a published job could not be marked");
    }
}

/// Returns whether no message of a run can be waiting any longer: the lane's consumer has delivered
/// everything stored before the run's message must have been. A message that was delivered to a
/// lost worker is delivered again after the ack_wait. So the caller asks only about runs that have
/// been due for longer than that.
pub fn job_is_gone(due_at: DateTime<Utc>, backlog: &Backlog, publish_timeout: Duration) -> bool {
    match backlog.next_undelivered_stored_at {
        None => backlog.pending == 0,
        Some(stored_at) => stored_at > due_at + publish_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_gone_once_younger_messages_are_next() {
        let due = DateTime::from_timestamp(1_000, 0).unwrap();
        let timeout = Duration::from_secs(10);
        let backlog = |pending, next: Option<i64>| Backlog {
            pending,
            next_undelivered_stored_at: next.map(|at| DateTime::from_timestamp(at, 0).unwrap()),
            ack_pending: 0,
            redelivered: 0,
            stream_messages: 0,
        };
        assert!(
            job_is_gone(due, &backlog(0, None), timeout),
            "everything was delivered"
        );
        assert!(
            !job_is_gone(due, &backlog(5, Some(1_000)), timeout),
            "it may wait itself"
        );
        assert!(
            !job_is_gone(due, &backlog(5, Some(1_009)), timeout),
            "a slow publish"
        );
        assert!(job_is_gone(due, &backlog(5, Some(1_011)), timeout));
        assert!(
            !job_is_gone(due, &backlog(5, None), timeout),
            "unknown is not gone"
        );
    }
}
