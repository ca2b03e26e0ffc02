//! Decides the approvals and tool calls that a parked run waits for. The row decides; the job that
//! follows only saves time.

use baton_nats::{Bus, JobHeaders};
use baton_protocol::{ApiKeyId, ApprovalId, Decision, Job, RunId, TenantId};
use baton_store::{AuditEntry, DecideOutcome, Store};
use http::StatusCode;

use crate::error::ApiError;
use crate::metrics;

/// The dependencies of a decision.
#[derive(Clone)]
pub(crate) struct Decider {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
}

impl Decider {
    /// Decides a question once; `audit` is committed with it. Repeating the same decision is
    /// neither an error nor another entry.
    pub(crate) async fn decide(
        &self,
        tenant: TenantId,
        run: RunId,
        approval: ApprovalId,
        decision: &Decision,
        by: Option<ApiKeyId>,
        audit: &AuditEntry,
    ) -> Result<(), ApiError> {
        if decision
            .text()
            .is_some_and(|text| text.len() > Decision::MAX_TEXT)
        {
            let message = format!("the text may be at most {} bytes long", Decision::MAX_TEXT);
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "text_too_long",
                message,
            ));
        }
        let mut tx = self.store.tenant(tenant).await?;
        let outcome = tx.decide(run, approval, decision, by).await?;
        if matches!(outcome, DecideOutcome::Decided { newly: true, .. }) {
            tx.record_audit(audit).await?;
        }
        tx.commit().await?;
        let conflict = |code, message: String| ApiError::new(StatusCode::CONFLICT, code, message);
        match outcome {
            DecideOutcome::Decided { newly, queued } => {
                if newly {
                    metrics::approval_decided(decision);
                    tracing::info!(run.id = %run, approval.id = %approval,
                                   decision = decision.as_str(), "a parked call was decided");
                }
                if let Some(job) = queued {
                    // If it is lost, the scheduler publishes it again.
                    let (message, headers) = (Job::Run { run_id: run }, JobHeaders::default());
                    if let Err(error) = self
                        .bus
                        .publish_job(tenant, job.lane, &message, &headers)
                        .await
                    {
                        tracing::warn!(%error, run.id = %run, "a decided run's job is not published yet");
                    }
                }
                Ok(())
            }
            DecideOutcome::NotFound => Err(ApiError::no_such_approval()),
            DecideOutcome::AlreadyDecided(earlier) => Err(conflict(
                "already_decided",
                format!("this was decided before: {}", earlier.as_str()),
            )),
            DecideOutcome::Expired => Err(conflict(
                "approval_expired",
                "nobody decided in time: the call is given up".to_owned(),
            )),
            DecideOutcome::Ended(status) => Err(conflict(
                "run_ended",
                format!("the run has ended ({status}): there is nothing to decide any more"),
            )),
        }
    }
}
