//! `GET /v1/runs/{id}/approvals` and `POST /v1/runs/{id}/approvals/{approval}`.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use baton_protocol::{ApiKeyId, ApprovalId, ApprovalReason, Decision, RunId, RunStatus};
use baton_store::{ApprovalRecord, AuditEntry, Store};
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::path::RunPath;
use crate::access::body::WholeBody;
use crate::access::{ApprovalsWrite, Authorized, Origin, RunsRead};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, bad_cursor, page_size};
use crate::run::decide::{Decider, words};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// A question to a person, about one call of a tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Approval)]
pub(crate) struct ApprovalView {
    id: ApprovalId,
    /// `approval`.
    object: &'static str,
    run_id: RunId,
    status: ApprovalStatus,
    /// The reason for asking a person.
    reason: ApprovalReason,
    call: CallView,
    /// The possible decisions: `retry`, `result` and `fail` if the outcome is unknown, else `approve` and `reject`.
    options: &'static [&'static str],
    /// The decision; null before.
    decision: Option<Decision>,
    /// The time of the decision.
    decided_at: Option<DateTime<Utc>>,
    /// The API key that decided; null if the question expired, or a signed-in person decided.
    decided_by: Option<ApiKeyId>,
    created_at: DateTime<Utc>,
    /// The time at which the question is decided as `fail` or `reject` if nobody has decided.
    expires_at: DateTime<Utc>,
}

/// The state of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApprovalStatus {
    /// The run waits for a decision.
    Open,
    /// Somebody decided, or the time was over.
    Decided,
    /// The run ended without a decision.
    Void,
}

/// The call that waits for the decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApprovalCall)]
pub(crate) struct CallView {
    /// The call's id, as the model gave it.
    id: String,
    /// The tool.
    name: String,
    /// The arguments to decide about; they never change. They are as the model wrote them, unless a person
    /// approved others before the call began and its outcome is unknown.
    arguments: String,
    /// The JSON Schema that other arguments must match; null if none can be given.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Box<RawValue>>,
    /// The number of the step within the run.
    step: u32,
}

/// Questions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalList {
    data: Vec<ApprovalView>,
    /// `?cursor=` of the next page; null on the last, and for the questions of one run, which are one page.
    next_cursor: Option<String>,
}

impl ApprovalView {
    fn new(approval: ApprovalRecord, run: RunStatus) -> Self {
        let status = match &approval.decided {
            Some(_) => ApprovalStatus::Decided,
            None if run.is_terminal() => ApprovalStatus::Void,
            None => ApprovalStatus::Open,
        };
        let (decision, decided_at, decided_by) = match approval.decided {
            None => (None, None, None),
            Some(decided) => (Some(decided.decision), Some(decided.at), decided.by),
        };
        Self {
            id: approval.id,
            object: "approval",
            run_id: approval.run,
            status,
            reason: approval.reason,
            call: CallView {
                id: approval.call_id,
                name: approval.name,
                arguments: approval.arguments,
                parameters: approval
                    .parameters
                    .and_then(|schema| RawValue::from_string(schema).ok()),
                step: approval.step,
            },
            options: approval.reason.options(),
            decision,
            decided_at,
            decided_by,
            created_at: approval.created_at,
            expires_at: approval.expires_at,
        }
    }
}

/// Lists the questions that a run waits for or waited for, with their decisions.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/approvals",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 200, description = "Its questions, in the order in which they were asked", body = ApprovalList),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_approvals(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
) -> Result<Json<ApprovalList>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let approvals = tx.run_approvals(run).await?;
    Ok(Json(ApprovalList {
        data: approvals
            .into_iter()
            .map(|approval| ApprovalView::new(approval, record.status))
            .collect(),
        next_cursor: None,
    }))
}

/// The page of a list of open questions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OpenParams {
    /// The size of the page, 1 to 100. Default: 20.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(format = Uuid)]
    cursor: Option<String>,
}

/// Lists the questions that runs of the tenant wait for now, the newest first.
#[utoipa::path(
    get,
    path = "/v1/approvals",
    tag = "Runs",
    params(OpenParams),
    responses(
        (status = 200, description = "A page of open questions", body = ApprovalList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_open(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    QueryParams(params): QueryParams<OpenParams>,
) -> Result<Json<ApprovalList>, ApiError> {
    let limit = page_size(params.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor = params.cursor.map(|cursor| cursor.parse::<ApprovalId>());
    let cursor = cursor.transpose().map_err(|_| bad_cursor())?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let page = tx.open_approvals(cursor, limit).await?;
    let open = page.data.into_iter();
    Ok(Json(ApprovalList {
        data: open
            .map(|approval| ApprovalView::new(approval, RunStatus::AwaitingApproval))
            .collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// Decides a call that a run waits for.
///
/// A call that requires approval: `{"decision": "approve"}` makes it, with `"arguments": {…}` in place of the
/// model's if they are given; `{"decision": "reject", "reason": "…"}` does not, and the model reads why. A call
/// of unknown outcome: `{"decision": "retry"}` makes it again, once; `{"decision": "result", "result": "…"}`
/// gives the model this result; `{"decision": "fail", "reason": "…"}` reports to the model that the
/// call failed. The run continues after the last question is decided. The first decision is final;
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
        (status = 400, description = "`invalid_decision`: this is no decision, or one for the other kind of question; `text_too_long`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks `approvals:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or no such question", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_decided` otherwise, `approval_expired`, or `run_ended`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_arguments`: they do not match the tool's schema", body = Problem, content_type = "application/problem+json"),
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
    let tenant = authorized.caller.tenant;
    let by = authorized.caller.grant.api_key;
    let actor = authorized.caller.actor();
    let entry = AuditEntry {
        target: Some(format!("run:{run}")),
        detail: Some(format!("{approval}: {}", words(&decision))),
        ..origin.entry(actor, Some(tenant), "approval.decided")
    };
    decider
        .decide(tenant, run, approval, &decision, by, &entry)
        .await?;
    let mut tx = store.tenant(tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let decided = tx
        .run_approvals(run)
        .await?
        .into_iter()
        .find(|record| record.id == approval)
        .ok_or_else(ApiError::no_such_approval)?;
    Ok(Json(ApprovalView::new(decided, record.status)))
}

fn read_decision(body: &[u8]) -> Result<Decision, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "this is no decision ({error}): send {{\"decision\": \"approve\"}} or {{\"decision\": \
             \"reject\", \"reason\": \"…\"}}; about a call of unknown outcome {{\"decision\": \"retry\"}}, \
             {{\"decision\": \"result\", \"result\": \"…\"}} or {{\"decision\": \"fail\", \"reason\": \
             \"…\"}}"
        );
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_decision", message)
    })
}

/// The question that the path names. A malformed id names none.
pub(crate) struct ApprovalPath(RunId, ApprovalId);

impl<S: Send + Sync> FromRequestParts<S> for ApprovalPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let none = |_| ApiError::no_such_approval();
        let Path((run, approval)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(none)?;
        let run = run.parse().map_err(|_| ApiError::no_such_run())?;
        let approval = approval.parse().map_err(|_| ApiError::no_such_approval())?;
        Ok(Self(run, approval))
    }
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
