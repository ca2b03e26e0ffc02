//! Approval requests about calls of MCP servers' tools, and the answers that a request brings.

use baton_protocol::{ApprovalReason, Decision, RunStatus};
use baton_responses::{CreateResponse, Settings, WaitingCall};
use baton_store::{Answers, ApprovalRecord, AuditEntry, RunRecord, Store};
use chrono::{DateTime, Utc};

use super::earlier::{Earlier, conversation};
use super::path::not_found;
use super::record::recorded_head;
use crate::access::{ApprovalsWrite, Caller, Origin, Scope as _};
use crate::error::ApiError;

/// Returns the questions that a parked run waits for, if a request for a response can answer them all.
pub(super) fn open_questions<'a>(
    run: &RunRecord,
    settings: &Settings,
    asked: &'a [ApprovalRecord],
) -> Vec<&'a ApprovalRecord> {
    if run.status != RunStatus::AwaitingApproval || settings.conversation.is_some() {
        return Vec::new();
    }
    let open = asked.iter().filter(|asked| asked.decided.is_none());
    let open: Vec<_> = open.collect();
    if open.iter().all(|asked| is_of_wire(settings, asked)) {
        open
    } else {
        Vec::new()
    }
}

/// Returns whether a question is about the approval of an MCP server's tool.
fn is_of_wire(settings: &Settings, asked: &ApprovalRecord) -> bool {
    asked.reason == ApprovalReason::ApprovalRequired
        && settings
            .mcp_tools
            .iter()
            .any(|tool| tool.offered == asked.name)
}

/// Applies the answers of a request. Returns them for the ledger, which decides whether they are in time, with the
/// conversation that the run goes on from; `None` if the request answers nothing.
pub(super) async fn answered(
    request: &mut CreateResponse,
    store: &Store,
    caller: &Caller,
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<Option<(Answers, Earlier)>, ApiError> {
    let Some(first) = request.answers.first() else {
        return Ok(None);
    };
    caller.check(ApprovalsWrite::NAME, now)?;
    let (run, path) = (first.run, first.path.clone());
    let unknown = |path: &str| {
        let message = format!("`{path}`: there is no approval request with this id");
        not_found(message).param(path)
    };
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(|| unknown(&path))?;
    let asked = tx.run_approvals(run).await?;
    drop(tx);
    let settings = recorded_head(&record).map_err(|_| unknown(&path))?.settings;
    let last = asked.iter().map(|asked| asked.attempt).max().unwrap_or(0);
    let asked = asked.into_iter().filter(|asked| asked.attempt == last);
    let asked: Vec<_> = asked.filter(|asked| is_of_wire(&settings, asked)).collect();
    let strange = request.answers.iter().find(|answer| {
        settings.conversation.is_some() || asked.iter().all(|asked| asked.step != answer.step)
    });
    if let Some(strange) = strange {
        return Err(unknown(&strange.path));
    }
    let waiting: Vec<_> = asked
        .iter()
        .map(|asked| WaitingCall {
            step: asked.step,
            call_id: asked.call_id.clone(),
            offered: asked.name.clone(),
            arguments: asked.arguments.clone(),
        })
        .collect();
    request.apply_answers(&waiting)?;
    let mut answers = Answers {
        run,
        decisions: Vec::with_capacity(asked.len()),
        audit: Vec::with_capacity(asked.len()),
    };
    for asked in &asked {
        let of_it = request
            .answers
            .iter()
            .find(|answer| answer.step == asked.step);
        let Some(answer) = of_it else { continue };
        let decision = if answer.approve {
            Decision::Approve {
                arguments: None,
                scope: baton_protocol::ApprovalScope::Once,
            }
        } else {
            let reason = answer.reason.clone().unwrap_or_default();
            Decision::Reject { reason }
        };
        answers.audit.push(AuditEntry {
            target: Some(format!("run:{run}")),
            detail: Some(format!("{}: {}", asked.id, decision.as_str())),
            ..origin.entry(caller.actor(), Some(caller.tenant), "approval.decided")
        });
        answers.decisions.push((asked.id, decision));
    }
    let earlier = if request.previous.is_some() {
        let calls: Vec<_> = waiting.into_iter().map(|call| call.call_id).collect();
        conversation(store, caller.tenant, run, &calls).await?
    } else {
        Earlier::default()
    };
    Ok(Some((answers, earlier)))
}
