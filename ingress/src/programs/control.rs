//! Performs programs' requests to cancel a run, to decide what a parked run waits for, or to send a
//! run a message.

use std::sync::Arc;

use baton_nats::{Answer, ControlRequest, ControlRequests, JobHeaders, Verb};
use baton_protocol::{ControlMessage, MessageId, RunId, RunStatus, SteerMode, TenantId};
use baton_store::{AuditEntry, CancelRequest, Store};
use futures_util::{StreamExt as _, stream};

use super::Programs;
use super::requests::{audit_entry, authorize};
use crate::access::{ApprovalsWrite, RunsWrite};
use crate::error::ApiError;
use crate::metrics::Door;
use crate::run::decide::{Wish, words};
use crate::run::follow_up::FollowUp;
use crate::run::inputs;
use crate::run::ledger::find_run;

/// The most requests in work at a time; the rest wait in the subscription.
const AT_ONCE: usize = 32;

/// The reason of a cancel request without one.
const BUS_REQUEST: &str = "bus_request";

/// Takes requests until this process stops; finishes those that it began.
pub(super) async fn take_requests(programs: Arc<Programs>, requests: ControlRequests) {
    let stop = programs.stopping.native.clone();
    stream::unfold(requests, |mut requests| async move {
        let request = requests.next().await?;
        Some((request, requests))
    })
    .take_until(stop.cancelled_owned())
    .for_each_concurrent(AT_ONCE, |request| answer(&programs, request))
    .await;
}

async fn answer(programs: &Programs, request: ControlRequest) {
    let answer = match perform(programs, &request).await {
        Ok(status) => Answer::Done { status },
        Err(error) => Answer::Refused(error.to_refusal()),
    };
    if let Err(error) = programs.runs.bus.answer_control(&request, &answer).await {
        tracing::debug!(%error, run.id = ?request.run(), "an answer was not sent");
    }
}

/// Performs the request, and returns the run's state afterwards.
async fn perform(programs: &Programs, request: &ControlRequest) -> Result<RunStatus, ApiError> {
    let (tenant, key) = (request.tenant, request.key);
    // Before the message is read, so that a key without the scope learns nothing else.
    let caller = match request.verb {
        Verb::Cancel | Verb::Steer => {
            authorize::<RunsWrite>(&programs.authenticator, tenant, key).await?
        }
        Verb::Decide => authorize::<ApprovalsWrite>(&programs.authenticator, tenant, key).await?,
    };
    let message = request.message.as_ref().map_err(ApiError::bad_message)?;
    let run = message.run_id();
    let now = programs.runs.clock.now();
    let entry = |action| AuditEntry {
        request_id: message.request_id().map(str::to_owned),
        ..audit_entry(now, &caller, action, format!("run:{run}"))
    };
    match message {
        ControlMessage::Cancel(cancel) => {
            let reason = cancel.reason.as_deref().unwrap_or(BUS_REQUEST);
            let entry = entry("run.cancelled");
            match programs
                .canceller
                .cancel(tenant, run, reason, Some(&entry))
                .await?
            {
                CancelRequest::NotFound => Err(ApiError::no_such_run()),
                CancelRequest::Ended(ended) => Ok(ended.outcome.status()),
                CancelRequest::Requested { .. } => Ok(RunStatus::Running),
            }
        }
        ControlMessage::Decide(decide) => {
            let (approval, decision) = (decide.approval_id, &decide.decision);
            let by = caller.grant.api_key;
            let audit = AuditEntry {
                detail: Some(format!("{approval}: {}, over NATS", words(decision))),
                ..entry("approval.decided")
            };
            let wish = Wish {
                approval,
                decision,
                audit,
            };
            programs.decider.decide(tenant, run, by, wish).await?;
            status(&programs.runs.store, tenant, run).await
        }
        ControlMessage::Steer(steer) => {
            match steer.mode {
                SteerMode::Steer { message_id } => {
                    let id = message_id.unwrap_or_else(|| MessageId::new(now));
                    let actor = caller.actor().to_string();
                    inputs::send(&programs.runs, tenant, run, id, &steer.content, &actor).await?;
                }
                SteerMode::FollowUp { message_id } => {
                    let route = format!("control.steer {run}");
                    let follow_up = FollowUp {
                        caller,
                        run,
                        id: message_id,
                        content: &steer.content,
                        key: FollowUp::key(message_id, &route, steer.content.get().as_bytes()),
                        held: None,
                        headers: JobHeaders {
                            request_id: steer.request_id.clone(),
                            traceparent: None,
                        },
                        door: Door::Bus,
                    };
                    follow_up.send(&programs.submitter).await?;
                }
            }
            status(&programs.runs.store, tenant, run).await
        }
    }
}

async fn status(store: &Store, tenant: TenantId, run: RunId) -> Result<RunStatus, ApiError> {
    let record = find_run(store, tenant, run).await?;
    record
        .map(|record| record.status)
        .ok_or_else(ApiError::no_such_run)
}
