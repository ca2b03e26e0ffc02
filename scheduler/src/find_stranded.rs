//! Messages in JOBS that nobody will ever be given are found and reported; those that no consumer
//! takes are moved to DEAD.
//!
//! No run waits for them: a queued run whose job is gone is published again by
//! [`crate::rescue_runs`]. But they fill the stream, and they mean that somebody publishes to a lane
//! that does not exist, or has changed a consumer.

use std::sync::{Mutex, PoisonError};

use baton_nats::{Bus, Stranded, StrandedJob, Stranding};

use crate::metrics;

/// How many one look finds at most.
const LIMIT: usize = 100;

/// Looks for stranded messages.
pub struct FindStranded {
    bus: Bus,
    /// What the last look found. What is being settled while it is looked at seems stranded once,
    /// and not twice.
    last: Mutex<Stranded>,
}

impl FindStranded {
    /// Has found nothing yet.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            last: Mutex::default(),
        }
    }

    /// Looks once.
    pub async fn look(&self) -> anyhow::Result<()> {
        let found = self.bus.stranded_jobs(LIMIT).await?;
        let last = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, found.clone())
        };
        let twice = |job: &&StrandedJob| last.jobs.iter().any(|before| before.seq == job.seq);
        for job in found.jobs.iter().filter(twice) {
            tracing::warn!(
                job.seq, subject = %job.subject, stored_at = %job.stored_at,
                reason = job.why.reason(), "a message is stranded in JOBS"
            );
            if job.why == Stranding::NoConsumer {
                self.bus.quarantine_stranded(job).await?;
                metrics::job_quarantined();
            }
        }
        metrics::stranded(found.passed_by.min(last.passed_by));
        metrics::dead_letters(self.bus.dead_letters().await?);
        Ok(())
    }
}
