//! The worker's messages.

use std::time::Duration;

use baton_nats::{AckError, BadJob, JobHeaders, Link, PublishError};
use baton_protocol::{Job, Lane, RunId, TenantId};
use baton_worker::world::{Broker, Delivery, InProgress};
use tokio::sync::watch;

use super::Outside;
use crate::ledger::tenant;
use crate::links::Service;
use crate::network::Unanswered;

/// A delivery of a job.
pub(crate) struct PulledJob {
    outside: Outside,
    seq: u64,
    job: Job,
    headers: JobHeaders,
}

impl Outside {
    /// Returns the delivery of a run's job.
    pub(crate) fn delivery(&self, seq: u64, run: RunId) -> PulledJob {
        PulledJob {
            outside: self.clone(),
            seq,
            job: Job::Run { run_id: run },
            headers: JobHeaders {
                // Shows the run to the upstream.
                request_id: Some(run.to_string()),
                traceparent: None,
            },
        }
    }

    async fn quarantine(&self) -> Result<u64, PublishError> {
        let kept = self.ask(Service::Broker, |sim| {
            sim.count(|counts| &mut counts.quarantined);
        });
        kept.await.map_err(|Unanswered| PublishError::Unknown)?;
        Ok(1)
    }
}

impl Broker for Outside {
    type Delivery = PulledJob;

    async fn answers(&self) -> bool {
        self.ask(Service::Broker, |_| ()).await.is_ok()
    }

    /// Never changes: a lost connection only loses messages.
    fn link(&self) -> watch::Receiver<Link> {
        watch::channel(Link::default()).1
    }

    async fn publish_job(
        &self,
        _: TenantId,
        _: Lane,
        job: &Job,
        _: &JobHeaders,
    ) -> Result<u64, PublishError> {
        let Job::Run { run_id } = *job;
        let stored = self.ask(Service::Broker, move |sim| sim.store_job(run_id));
        stored.await.map_err(|Unanswered| PublishError::Unknown)?;
        Ok(1)
    }

    async fn quarantine(&self, _: &PulledJob, _: &str) -> Result<u64, PublishError> {
        self.quarantine().await
    }

    async fn quarantine_run(&self, _: &PulledJob, _: RunId, _: &str) -> Result<u64, PublishError> {
        self.quarantine().await
    }
}

impl Delivery for PulledJob {
    type InProgress = Progress;

    fn tenant(&self) -> TenantId {
        tenant()
    }

    fn job(&self) -> Result<&Job, &BadJob> {
        Ok(&self.job)
    }

    fn stream_seq(&self) -> u64 {
        self.seq
    }

    fn headers(&self) -> &JobHeaders {
        &self.headers
    }

    fn in_progress_handle(&self) -> Progress {
        Progress {
            outside: self.outside.clone(),
            seq: self.seq,
        }
    }

    async fn ack(&self) -> Result<(), AckError> {
        let seq = self.seq;
        self.outside
            .send(Service::Broker, move |sim| sim.acknowledge(seq));
        Ok(())
    }

    async fn nak(&self, delay: Option<Duration>) -> Result<(), AckError> {
        let (seq, delay) = (self.seq, delay.unwrap_or_default());
        self.outside
            .send(Service::Broker, move |sim| sim.give_back_job(seq, delay));
        Ok(())
    }

    async fn nak_confirmed(&self, delay: Option<Duration>) -> Result<(), AckError> {
        let (seq, delay) = (self.seq, delay.unwrap_or_default());
        let given_back = self
            .outside
            .ask(Service::Broker, move |sim| sim.give_back_job(seq, delay));
        given_back.await.map_err(|Unanswered| AckError::Unknown)
    }

    async fn term(&self, _: &str) -> Result<(), AckError> {
        self.ack().await
    }
}

/// A job's message that is kept in progress.
pub(crate) struct Progress {
    outside: Outside,
    seq: u64,
}

impl InProgress for Progress {
    async fn in_progress(&self) -> Result<(), AckError> {
        let seq = self.seq;
        self.outside
            .send(Service::Broker, move |sim| sim.in_progress(seq));
        Ok(())
    }
}
