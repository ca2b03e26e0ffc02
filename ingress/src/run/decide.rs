//! Decides the approvals and tool calls that a parked run waits for. The row decides; the job that
//! follows only saves time.

use baton_admission::tool_arguments;
use baton_nats::{Bus, JobHeaders};
use baton_protocol::{ApiKeyId, ApprovalId, Decision, RunId, TenantId};
use baton_store::{ApprovalRecord, AuditEntry, DecideOutcome, Store};
use http::StatusCode;
use serde_json::{Map, Value};

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
        if let Some(arguments) = decision.edited_arguments() {
            let asked = tx.run_approvals(run).await?;
            let asked = asked.into_iter().find(|asked| asked.id == approval);
            let asked = asked.ok_or_else(ApiError::no_such_approval)?;
            check_arguments(&asked, arguments)?;
        }
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
                    let headers = JobHeaders::default();
                    let published = self.bus.publish_or_leave(tenant, job.lane, run, &headers);
                    let _left = published.await;
                }
                Ok(())
            }
            DecideOutcome::NotFound => Err(ApiError::no_such_approval()),
            DecideOutcome::NotAnOption(reason) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_decision",
                format!(
                    "this call waits because: {}. Decide {}",
                    reason.as_str(),
                    reason.options().join(" or ")
                ),
            )),
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

/// Returns a decision in the words of the audit log.
pub(crate) const fn words(decision: &Decision) -> &'static str {
    match decision.edited_arguments() {
        Some(_) => "approve, with other arguments",
        None => decision.as_str(),
    }
}

/// A stored schema of a tool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the schema that was stored with a question cannot be used: {0}")]
struct UnusableSchema(String);

/// Checks arguments that a person gives in place of the model's: their length, and their match with the schema
/// that the tool had when the question was asked.
fn check_arguments(asked: &ApprovalRecord, arguments: &Map<String, Value>) -> Result<(), ApiError> {
    let invalid = |message: String| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Err(ApiError::new(status, "invalid_arguments", message).param("arguments"))
    };
    let arguments = Value::Object(arguments.clone());
    if arguments.to_string().len() > Decision::MAX_TEXT {
        let most = Decision::MAX_TEXT;
        return invalid(format!("`arguments` may be at most {most} bytes of JSON"));
    }
    let Some(parameters) = &asked.parameters else {
        return Ok(());
    };
    // The worker that asked has compiled it.
    let schema = serde_json::from_str(parameters)
        .map_err(|error| error.to_string())
        .and_then(|schema| tool_arguments::compile(&schema))
        .map_err(|error| ApiError::internal(&UnusableSchema(error)))?;
    match tool_arguments::mistakes(&schema, &arguments) {
        None => Ok(()),
        Some(mistakes) => invalid(format!(
            "`arguments` do not match the schema of `{}`:{mistakes}",
            asked.name
        )),
    }
}
