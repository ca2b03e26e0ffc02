//! `POST /v1/runs/{id}/approvals/{approval}` and `POST /v1/runs/{id}/approvals`: decisions.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use baton_admission::{check_shape, read_json};
use baton_protocol::{ApprovalId, Decision, RunId};
use baton_store::{AuditEntry, Store};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApprovalView;
use super::path::ApprovalPath;
use crate::access::body::WholeBody;
use crate::access::{ApprovalsWrite, Authorized, Caller, Origin};
use crate::error::{ApiError, Problem};
use crate::routes::runs::path::RunPath;
use crate::run::decide::{Decider, Wish, words};

/// Decides a question that a run waits for.
///
/// A call that requires approval: `{"decision": "approve"}` makes it, with `"arguments": {…}` in place of the
/// model's if they are given; with `"scope": "run"` or `"thread"`, later calls of the tool need no other approval; `{"decision": "reject", "reason": "…"}` does not, and the model reads why. A call
/// of unknown outcome: `{"decision": "retry"}` makes it again, once; `{"decision": "result", "result": "…"}`
/// gives the model this result; `{"decision": "fail", "reason": "…"}` reports to the model that the
/// call failed. A run at a limit of its own: `{"decision": "raise", "limits": {…}}` lets it go on, as
/// `PATCH /v1/runs/{id}` does; `{"decision": "stop"}` ends it. The server of a tool that asks for input:
/// `{"decision": "accept", "content": {…}}` gives it; `{"decision": "decline"}` and `{"decision": "cancel"}`
/// do not. The run continues after the last question is decided. The first decision is final;
/// repeating it changes nothing.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/approvals/{approval}",
    tag = "Runs",
    request_body = Decision,
    params(
        ("id" = String, Path, description = "The run", format = Uuid),
        ("approval" = String, Path, description = "The question", format = Uuid),
    ),
    responses(
        (status = 200, description = "Decided so, now or before", body = ApprovalView),
        (status = 400, description = "`invalid_decision`: this is no decision, or one for another kind of question; `invalid_limit`: a limit does not let the run go on; `no_thread`: the run has none for the `scope`; `text_too_long`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks `approvals:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or no such question", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_decided` otherwise, `approval_expired`, or `run_ended`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_arguments`: they do not match the tool's schema; `invalid_content`: it does not match the schema of the question", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn decide_approval(
    State(store): State<Store>,
    State(decider): State<Decider>,
    authorized: Authorized<ApprovalsWrite>,
    origin: Origin,
    ApprovalPath(run, approval): ApprovalPath,
    WholeBody {
        bytes: body,
        held: _held,
    }: WholeBody,
) -> Result<Json<ApprovalView>, ApiError> {
    let decision = read_decision(&body)?;
    let caller = &authorized.caller;
    let wish = wish(caller, &origin, run, approval, &decision);
    let by = caller.grant.api_key;
    decider.decide(caller.tenant, run, by, wish).await?;
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let decided = tx
        .run_approvals(run)
        .await?
        .into_iter()
        .find(|record| record.id == approval)
        .ok_or_else(ApiError::no_such_approval)?;
    Ok(Json(ApprovalView::new(decided, record.status)))
}

/// The most decisions in one request.
const MOST: usize = 100;

/// Decisions about several questions of one run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"decisions": [
    {"approval_id": "01890a5d-ac96-774b-bcce-b302099a8058", "decision": "approve"},
    {"approval_id": "01890a5d-ac96-774b-bcce-b302099a8059", "decision": "reject", "reason": "too much"},
]}))]
pub(crate) struct DecideApprovals {
    /// The decisions, each about another question.
    #[schema(min_items = 1, max_items = 100)]
    decisions: Vec<DecideApproval>,
}

/// A decision about one question.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DecideApproval {
    /// The question.
    approval_id: ApprovalId,
    #[serde(flatten)]
    decision: Decision,
}

/// The outcomes of several decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionOutcomes {
    /// One for each decision, in their order.
    data: Vec<DecisionOutcome>,
}

/// The outcome of one decision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionOutcome {
    approval_id: ApprovalId,
    /// The question, if it is decided so, now or before; null if the decision was refused.
    approval: Option<ApprovalView>,
    /// The refusal, or null.
    error: Option<Refusal>,
}

/// The refusal of one decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DecisionRefusal)]
pub(crate) struct Refusal {
    /// The status that the same decision has at `POST /v1/runs/{id}/approvals/{approval}`.
    #[schema(minimum = 400, maximum = 499)]
    status: u16,
    /// The kind of error, for a program.
    code: String,
    /// This occurrence of the error, for a person.
    message: String,
}

/// Decides several calls that a run waits for.
///
/// All decisions are one commit, and each has its own outcome: a refused one leaves the others as they are.
/// A body that cannot be read decides nothing.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/approvals",
    tag = "Runs",
    request_body = DecideApprovals,
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 200, description = "The outcome of each decision, in their order", body = DecisionOutcomes),
        (status = 400, description = "The body is wrong, or names a question twice; nothing is decided", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks `approvals:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn decide_approvals(
    State(store): State<Store>,
    State(decider): State<Decider>,
    authorized: Authorized<ApprovalsWrite>,
    origin: Origin,
    RunPath(run): RunPath,
    WholeBody {
        bytes: body,
        held: _held,
    }: WholeBody,
) -> Result<Json<DecisionOutcomes>, ApiError> {
    check_shape(&body)?;
    let DecideApprovals { decisions } = read_json(&body)?;
    check_decisions(&decisions)?;
    let caller = &authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    drop(tx);
    let wishes = decisions
        .iter()
        .map(|item| wish(caller, &origin, run, item.approval_id, &item.decision));
    let wishes: Vec<_> = wishes.collect();
    let by = caller.grant.api_key;
    let outcomes = decider.decide_all(caller.tenant, run, by, &wishes).await?;
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let mut asked = tx.run_approvals(run).await?;
    let data = decisions.iter().zip(outcomes).map(|(item, outcome)| {
        let id = item.approval_id;
        let at = asked.iter().position(|asked| asked.id == id);
        let (approval, error) = match outcome {
            Ok(()) => (at.map(|at| asked.swap_remove(at)), None),
            Err(error) => (None, Some(Refusal::of(error))),
        };
        DecisionOutcome {
            approval_id: id,
            approval: approval.map(|approval| ApprovalView::new(approval, record.status)),
            error,
        }
    });
    Ok(Json(DecisionOutcomes {
        data: data.collect(),
    }))
}

impl Refusal {
    fn of(error: ApiError) -> Self {
        Self {
            status: error.status.as_u16(),
            code: error.code.into_owned(),
            message: error.message,
        }
    }
}

/// Refuses too many decisions, none, and two about one question.
fn check_decisions(decisions: &[DecideApproval]) -> Result<(), ApiError> {
    let invalid = |message: String| {
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        Err(error.param("decisions"))
    };
    if decisions.is_empty() || decisions.len() > MOST {
        return invalid(format!("`decisions` takes 1 to {MOST} decisions"));
    }
    let mut seen = HashSet::new();
    match decisions.iter().find(|item| !seen.insert(item.approval_id)) {
        None => Ok(()),
        Some(twice) => invalid(format!(
            "`decisions` names the question {} twice",
            twice.approval_id
        )),
    }
}

fn wish<'a>(
    caller: &Caller,
    origin: &Origin,
    run: RunId,
    approval: ApprovalId,
    decision: &'a Decision,
) -> Wish<'a> {
    let audit = AuditEntry {
        target: Some(format!("run:{run}")),
        detail: Some(format!("{approval}: {}", words(decision))),
        ..origin.entry(caller.actor(), Some(caller.tenant), "approval.decided")
    };
    Wish {
        approval,
        decision,
        audit,
    }
}

fn read_decision(body: &[u8]) -> Result<Decision, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "this is no decision ({error}): send {{\"decision\": \"approve\"}} or {{\"decision\": \
             \"reject\", \"reason\": \"…\"}}; about a call of unknown outcome {{\"decision\": \"retry\"}}, \
             {{\"decision\": \"result\", \"result\": \"…\"}} or {{\"decision\": \"fail\", \"reason\": \
             \"…\"}}; at a limit {{\"decision\": \"raise\", \"limits\": {{…}}}} or {{\"decision\": \"stop\"}}; \
             to the server of a tool {{\"decision\": \"accept\", \"content\": {{…}}}}, {{\"decision\": \
             \"decline\"}} or {{\"decision\": \"cancel\"}}"
        );
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_decision", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_decision_is_refused_with_those_that_are() {
        for body in [
            "",
            "{}",
            r#"{"decision":"allow"}"#,
            r#"{"decision":"approve","arguments":"{}"}"#,
            r#"{"decision":"approve","arguments":[7]}"#,
            r#"{"decision":"result"}"#,
        ] {
            let error = read_decision(body.as_bytes()).unwrap_err();
            assert_eq!(error.status, 400, "{body}");
            for name in Decision::NAMES {
                assert!(error.message.contains(name), "{body}: {name}");
            }
        }
        let decision = read_decision(br#"{"decision":"result","result":"7"}"#).unwrap();
        assert_eq!(
            decision,
            Decision::Result {
                result: "7".to_owned()
            }
        );
    }
}
