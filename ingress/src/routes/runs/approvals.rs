//! `GET /v1/runs/{id}/approvals` and `GET /v1/approvals`: the questions of runs that wait for a person.

pub(super) mod decide;
mod path;
pub(super) mod revoke;

use axum::Json;
use axum::extract::State;
use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, ApprovalScope, Decision, ReachedLimit, RequestedInput,
    RunId, RunStatus,
};
use baton_store::{ApprovalRecord, Store};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::path::RunPath;
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, list_params};

/// A question to a person, about one call of a tool or about a limit of the run.
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
    /// The call that waits; null for a limit.
    call: Option<CallView>,
    /// The limit that the run has reached; null for a call.
    budget: Option<ReachedLimit>,
    /// The input that the server of the tool asks for; null for other reasons.
    input: Option<InputView>,
    /// The possible decisions: `retry`, `result` and `fail` if the outcome is unknown, `approve` and `reject` if
    /// approval is required, `raise` and `stop` at a limit, `accept`, `decline` and `cancel` if a server asks for
    /// input.
    options: &'static [&'static str],
    /// The decision; null before.
    decision: Option<Decision>,
    /// The time of the decision.
    decided_at: Option<DateTime<Utc>>,
    /// The API key that decided; null if the question expired, or a signed-in person decided.
    decided_by: Option<ApiKeyId>,
    /// The approval of later calls of the tool, or null.
    grant: Option<GrantView>,
    created_at: DateTime<Utc>,
    /// The time at which the question is decided as `fail`, `reject`, `stop` or `cancel` if nobody has decided.
    expires_at: DateTime<Utc>,
}

/// An approval that holds for later calls of the same tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApprovalGrant)]
pub(crate) struct GrantView {
    /// The calls that need no other approval: those of the `run`, or of all runs of its `thread`.
    scope: ApprovalScope,
    /// The tool.
    tool: String,
    /// The time at which it was revoked; null while it holds.
    revoked_at: Option<DateTime<Utc>>,
}

/// The input that the server of a tool asks for in the middle of a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApprovalInput)]
pub(crate) struct InputView {
    #[serde(flatten)]
    asked: RequestedInput,
    /// The JSON Schema that the `content` of `accept` must match; null if it takes none. The content for several
    /// questions has a member for each, by its id.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
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
        let grant = approval.decided.as_ref().and_then(|decided| {
            let scope = decided.decision.scope();
            (scope != ApprovalScope::Once).then(|| GrantView {
                scope,
                tool: approval.name.clone(),
                revoked_at: decided.grant_revoked_at,
            })
        });
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
            call: approval.reached.is_none().then(|| CallView {
                id: approval.call_id,
                name: approval.name,
                arguments: approval.arguments,
                parameters: approval
                    .parameters
                    .and_then(|schema| RawValue::from_string(schema).ok()),
                step: approval.step,
            }),
            budget: approval.reached,
            input: approval.input.map(|asked| InputView {
                schema: asked.schema(),
                asked,
            }),
            options: approval.reason.options(),
            decision,
            decided_at,
            decided_by,
            grant,
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

list_params! {
    /// The page of a list of open questions.
    pub(crate) struct OpenParams {}
    cursor: format = Uuid
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
    let (cursor, limit) = params.page()?;
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
