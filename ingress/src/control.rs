//! What programs ask over the bus: to cancel a run, to decide what a parked one waits for.
//!
//! The broker has checked who may publish for which tenant; everything else is checked as on HTTP.
//! The answer goes to a subject of the run's own, never to one that the asker chose: this server
//! may publish where the asker may not.

use baton_nats::{ControlAnswer, ControlRequest, ControlRequests, ControlVerb};
use baton_protocol::{AuditId, RunStatus};
use baton_store::{ActorKind, AuditEntry, AuditResult, CancelRequest};
use futures_util::{StreamExt as _, stream};

use crate::error::ApiError;
use crate::state::AppState;

/// Requests in work at a time; the rest wait in the subscription.
const AT_ONCE: usize = 32;

/// The reason of a cancel that came without one.
const BUS_REQUEST: &str = "bus_request";

/// Takes requests until this process stops; those begun are finished.
pub(crate) async fn take_requests(state: AppState, requests: ControlRequests) {
    let stop = state.stopping.native.clone();
    stream::unfold(requests, |mut requests| async move {
        let request = requests.next().await?;
        Some((request, requests))
    })
    .take_until(stop.cancelled_owned())
    .for_each_concurrent(AT_ONCE, |request| answer(&state, request))
    .await;
}

async fn answer(state: &AppState, request: ControlRequest) {
    let answer = match perform(state, &request).await {
        Ok(status) => ControlAnswer::Done { status },
        Err(error) => ControlAnswer::Refused {
            code: error.code.into_owned(),
            message: error.message,
        },
    };
    if let Err(error) = state.bus.answer_control(&request, &answer).await {
        tracing::debug!(%error, run.id = %request.run, "an answer was not sent");
    }
}

/// Does what is asked; answers the run's state afterwards.
async fn perform(state: &AppState, request: &ControlRequest) -> Result<RunStatus, ApiError> {
    let (tenant, run) = (request.tenant, request.run);
    match &request.verb {
        Err(reason) => Err(ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "invalid_request",
            reason.clone(),
        )),
        Ok(ControlVerb::Cancel { reason }) => {
            let reason = reason.as_deref().unwrap_or(BUS_REQUEST);
            let entry = audit_entry(state, request, "run.cancelled");
            match state
                .canceller
                .cancel(tenant, run, reason, Some(&entry))
                .await?
            {
                CancelRequest::NotFound => Err(ApiError::no_such_run()),
                CancelRequest::Ended(ended) => Ok(ended.outcome.status()),
                CancelRequest::Requested { .. } => Ok(RunStatus::Running),
            }
        }
        Ok(ControlVerb::Decide { approval, decision }) => {
            state
                .decider
                .decide(tenant, run, *approval, decision, None)
                .await?;
            let entry = AuditEntry {
                detail: Some(format!("{approval}: {}", decision.as_str())),
                ..audit_entry(state, request, "approval.decided")
            };
            state.store.system().record_audit(&entry).await?;
            let record = crate::ledger::find_run(state, tenant, run).await?;
            record
                .map(|record| record.status)
                .ok_or_else(ApiError::no_such_run)
        }
    }
}

/// The broker has let the publisher write to this tenant's subjects; more is not known of it.
fn audit_entry(state: &AppState, request: &ControlRequest, action: &'static str) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(state.clock.now()),
        tenant: Some(request.tenant),
        actor_kind: ActorKind::Nobody,
        actor: None,
        action,
        target: Some(format!("run:{}", request.run)),
        result: AuditResult::Done,
        detail: Some("over NATS".to_owned()),
        ip: None,
        user_agent: None,
        request_id: None,
    }
}
