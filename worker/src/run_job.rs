//! Handles one job: claims the run, works, and settles the message according to the ledger.
//!
//! The message is only a nudge. The ledger decides whether there is work, who may do it and whether
//! it is done. A worker acknowledges the message only if the ledger says that no further delivery
//! is needed, and only if it holds the run or knows that the run has ended.

use std::time::Duration;

use baton_nats::JobHeaders;
use baton_protocol::{Job, Outcome, RunError, RunId, RunSpec, TenantId};
use baton_run_log::{repair_end, repair_questions};
use baton_store::{Claim, ClaimOutcome, ClaimedRun, StoreError};
use tracing::Instrument as _;

use crate::attempt::{Attempt, Ending, publish_queued};
use crate::job_action::JobAction;
use crate::keep_lease::DeliveryOf;
use crate::lease::Lease;
use crate::metrics;
use crate::runner::JobRunner;
use crate::world::{Broker as _, Delivery, Ledger as _, World};

/// The delay of a redelivery if the database could not be asked.
const DATABASE_RETRY: Duration = Duration::from_secs(1);

/// The delay of a run that cannot be served here: until a worker can read it, or the broker stores
/// its events again.
const UNSERVED_RETRY: Duration = Duration::from_secs(5);

/// The end of a job, as the puller needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// The ledger answered, and the message was settled.
    Settled,
    /// The ledger did not answer: pull nothing until it does.
    DatabaseDown,
    /// The runner itself failed.
    Panicked,
}

impl<W: World> JobRunner<W> {
    /// Handles one delivery. Never fails: an error is recorded with the run, or the message is left
    /// to be redelivered.
    pub async fn run_job(&self, delivery: DeliveryOf<W>) -> JobEnd {
        let run = match delivery.job() {
            Ok(Job::Run { run_id }) => *run_id,
            Err(bad) => {
                let reason = bad.reason.clone();
                return self.quarantine(&delivery, &reason).await;
            }
        };
        let span = tracing::info_span!(
            "run",
            tenant.id = %delivery.tenant(),
            run.id = %run,
            attempt = tracing::field::Empty,
            request.id = delivery.headers().request_id.as_deref(),
            trace.id = tracing::field::Empty,
        );
        self.claim_and_work(&delivery, run).instrument(span).await
    }

    async fn claim_and_work(&self, delivery: &DeliveryOf<W>, run: RunId) -> JobEnd {
        let claim = Claim {
            tenant: delivery.tenant(),
            run,
            worker: self.worker,
            token: self.store.new_token(),
            lease: self.config.lease,
            job_seq: delivery.stream_seq(),
            max_failures: self.config.max_failures,
        };
        let sent = self.clock.monotonic();
        let action = match self.claim(&claim).await {
            Ok(outcome) => JobAction::from(outcome),
            Err(error) => {
                tracing::warn!(%error, "the claim could not be made; the job will come again");
                let _ = delivery.nak(Some(DATABASE_RETRY)).await;
                return JobEnd::DatabaseDown;
            }
        };
        match action {
            JobAction::Work(claimed) => {
                let lease = Lease::granted(sent, self.config.lease);
                self.work(delivery, *claimed, lease).await
            }
            JobAction::RepairEnd(ended) => {
                if ended.newly {
                    let status = ended.outcome.status().as_str();
                    tracing::info!(status, "run ended by the claim");
                    metrics::run_ended(&ended.outcome);
                    if let Some(latency) = ended.cancel_latency {
                        metrics::run_cancelled(latency);
                    }
                    self.promote(delivery.tenant(), run).await;
                }
                match repair_end(
                    &self.bus,
                    &self.store,
                    self.clock.now(),
                    delivery.tenant(),
                    run,
                    &ended,
                )
                .await
                {
                    Ok(_) => {
                        self.cancel_tasks(delivery.tenant(), run).await;
                        match &ended.outcome {
                            Outcome::Failed(error) if error.is_poisoned() => {
                                self.give_up(delivery, run, error, ended.newly).await
                            }
                            _ => settled(delivery.ack().await),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the terminal event is not stored yet");
                        settled(delivery.nak(Some(DATABASE_RETRY)).await)
                    }
                }
            }
            // Its worker may have died between parking the run and asking the questions.
            JobAction::RepairQuestions(parked) => {
                let (bus, store, now) = (&self.bus, &self.store, self.clock.now());
                match repair_questions(bus, store, now, delivery.tenant(), run, parked).await {
                    Ok(_) => settled(delivery.ack().await),
                    Err(error) => {
                        tracing::warn!(%error, "what a person is asked is not stored yet");
                        settled(delivery.nak(Some(DATABASE_RETRY)).await)
                    }
                }
            }
            JobAction::ComeAgain(wait) => settled(delivery.nak(Some(wait)).await),
            JobAction::Acknowledge => settled(delivery.ack().await),
        }
    }

    /// Cancels the tasks of an ended run at their servers. The scheduler publishes the job again if that fails.
    async fn cancel_tasks(&self, tenant: TenantId, run: RunId) {
        let open = match self.store.open_tasks(tenant, run).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(%error, "the tasks of an ended run are not known yet");
                return;
            }
        };
        let settings = self.settings.load_full();
        for task in open {
            if let Err(error) = settings.tools.cancel_task(&task.name, &task.id).await {
                tracing::warn!(
                    tool.name = task.name,
                    error,
                    "a task of an ended run is not cancelled yet"
                );
                continue;
            }
            tracing::info!(
                tool.name = task.name,
                step = task.step,
                "a task of an ended run was cancelled"
            );
            if let Err(error) = self.store.close_task(tenant, run, task.step).await {
                tracing::warn!(%error, "a cancelled task will be cancelled again");
            }
        }
    }

    /// Publishes the job of the next run of the thread.
    async fn promote(&self, tenant: TenantId, ended: RunId) {
        match self.store.next_after(tenant, ended).await {
            Ok(Some(next)) => publish_queued(self, next).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the next run of the thread is not known yet"),
        }
    }

    /// Claims the run. If the answer is lost, repeats the claim once with the same token: the
    /// ledger then returns the result of the first.
    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        match self.store.claim_run(claim).await {
            Err(error) if error.is_transient() => self.store.claim_run(claim).await,
            outcome => outcome,
        }
    }

    async fn work(
        &self,
        delivery: &DeliveryOf<W>,
        mut claimed: ClaimedRun,
        lease: Lease,
    ) -> JobEnd {
        let fence = claimed.fence;
        // The run keeps one copy of its request: this one ends with the statement.
        let mut spec: RunSpec = match serde_json::from_str(&std::mem::take(&mut claimed.spec_json))
        {
            Ok(spec) => spec,
            // Written by a newer version: a newer worker can read it.
            Err(error) => {
                tracing::error!(%error, "the run's stored form is not readable by this version");
                let last = claimed.last_event_id;
                return match self.store.hand_over(&fence, last).await {
                    Ok(()) => settled(delivery.nak(Some(UNSERVED_RETRY)).await),
                    Err(_) => JobEnd::Settled,
                };
            }
        };
        let waited = (claimed.started_at - claimed.queued_at)
            .to_std()
            .unwrap_or_default();
        metrics::run_claimed(fence.attempt, waited);
        tracing::Span::current().record("attempt", fence.attempt);
        let headers = headers_of(delivery, &mut claimed, &mut spec);
        let _active = metrics::ActiveRun::begin();
        let hold = self
            .leases
            .hold(fence, lease, delivery.in_progress_handle());
        let created_at = claimed.created_at;
        match Box::pin(Attempt::run(self, claimed, spec, &hold, &headers)).await {
            Ending::Ended => {
                metrics::run_duration((self.clock.now() - created_at).to_std().unwrap_or_default());
                settled(delivery.ack().await)
            }
            // The decision, or the end of another run, publishes a new job.
            Ending::Parked | Ending::AwaitsBudget => settled(delivery.ack().await),
            Ending::HandedOver => {
                metrics::run_handed_over();
                settled(delivery.nak_confirmed(None).await)
            }
            Ending::GivenBack => {
                metrics::run_handed_over();
                settled(delivery.nak_confirmed(Some(UNSERVED_RETRY)).await)
            }
            // This worker no longer holds the run: the holder settles the message.
            Ending::Lost => {
                metrics::lease_lost();
                JobEnd::Settled
            }
            // As if the job had come again: if the run has ended, its followers see the end now,
            // not only when the broker redelivers.
            Ending::PerhapsEnded => Box::pin(self.claim_and_work(delivery, fence.run)).await,
        }
    }

    /// Keeps the job of a run that crashed its workers, for an operator to inspect.
    async fn give_up(
        &self,
        delivery: &DeliveryOf<W>,
        run: RunId,
        error: &RunError,
        newly: bool,
    ) -> JobEnd {
        let reason = format!("{}: {}", error.code, error.message);
        match self.bus.quarantine_run(delivery, run, &reason).await {
            Ok(_) => {
                if newly {
                    tracing::warn!(reason, "a run was given up");
                    metrics::job_quarantined();
                }
                settled(delivery.ack().await)
            }
            Err(error) => {
                tracing::warn!(%error, "the job of a run that was given up could not be kept yet");
                settled(delivery.nak(Some(DATABASE_RETRY)).await)
            }
        }
    }

    async fn quarantine(&self, delivery: &DeliveryOf<W>, reason: &str) -> JobEnd {
        tracing::warn!(tenant.id = %delivery.tenant(), reason, "a job was quarantined");
        metrics::job_quarantined();
        match self.bus.quarantine(delivery, reason).await {
            Ok(_) => settled(delivery.term(reason).await),
            Err(error) => {
                tracing::warn!(%error, "the quarantined job could not be kept yet");
                settled(delivery.nak(Some(DATABASE_RETRY)).await)
            }
        }
    }
}

/// Returns the request id and the trace that the run was accepted with, else those of the job. A job
/// that is published again has neither.
fn headers_of(
    delivery: &impl Delivery,
    claimed: &mut ClaimedRun,
    spec: &mut RunSpec,
) -> JobHeaders {
    let accepted = JobHeaders {
        request_id: spec.request_id.take(),
        traceparent: claimed.traceparent.take(),
    }
    .kept();
    let published = delivery.headers();
    let headers = JobHeaders {
        request_id: accepted.request_id.or_else(|| published.request_id.clone()),
        traceparent: accepted
            .traceparent
            .or_else(|| published.traceparent.clone()),
    };
    let span = tracing::Span::current();
    if published.request_id.is_none()
        && let Some(id) = headers.request_id.as_deref()
    {
        span.record("request.id", id);
    }
    if let Some(trace) = headers.trace_id() {
        span.record("trace.id", trace);
    }
    headers
}

/// Returns the end of a job. If the broker does not get the settlement, it delivers the message again.
fn settled<E: std::fmt::Display>(result: Result<(), E>) -> JobEnd {
    if let Err(error) = result {
        tracing::debug!(%error, "a message could not be settled and will come again");
    }
    JobEnd::Settled
}

#[cfg(test)]
mod approval_tests;
#[cfg(test)]
mod broken_turn_tests;
#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod parked_limit_tests;
#[cfg(test)]
mod tests;
