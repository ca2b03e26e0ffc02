//! Finds and reports messages in JOBS that will never be delivered, and moves those without a
//! consumer to DEAD.
//!
//! No run waits for them: [`crate::rescue_runs`] publishes the lost job of a queued run again. But
//! they fill the stream, and they mean that a program publishes to a lane that does not exist, or
//! that an operator has changed a consumer.

use std::sync::{Mutex, PoisonError};

use baton_nats::{Bus, Stranded, StrandedJob, Stranding};

use crate::metrics;

/// The most messages that one look returns.
const LIMIT: usize = 100;

/// A search for stranded messages.
pub struct FindStranded {
    bus: Bus,
    /// The result of the last look. A message that is being settled at the time of a look may seem
    /// stranded once, but not twice.
    last: Mutex<Stranded>,
}

impl FindStranded {
    /// Makes a search without a last result.
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
