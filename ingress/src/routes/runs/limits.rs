//! `PATCH /v1/runs/{id}`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_protocol::{ApprovalReason, Decision, RequestLimits};
use baton_store::{AuditEntry, Store};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::path::RunPath;
use super::read::load;
use super::view::RunView;
use crate::access::body::JsonBody;
use crate::access::{ApprovalsWrite, Authorized, Origin};
use crate::error::{ApiError, Problem, run_header};
use crate::run::decide::{Decider, Wish, words};

/// A change of a run that waits at a limit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"limits": {"max_tokens": 40_000}}))]
pub(crate) struct ChangeRun {
    /// Higher limits, the reached one among them. The others stay as they are.
    limits: RequestLimits,
}

/// Raises limits of a run that waits at one of them, and lets it go on.
///
/// This decides the open question with the reason `budget`, as `raise` does. Repeating the same limits changes
/// nothing.
#[utoipa::path(
    patch,
    path = "/v1/runs/{id}",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    request_body = ChangeRun,
    responses(
        (status = 200, description = "The limits are raised, now or before", body = RunView),
        (status = 400, description = "`invalid_limit`: a limit does not let the run go on, or is above its key's monthly budget", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks `approvals:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`limit_not_reached`: the run does not wait at a limit; `already_decided` otherwise, `approval_expired`, or `run_ended`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn raise_limits(
    State(store): State<Store>,
    State(decider): State<Decider>,
    authorized: Authorized<ApprovalsWrite>,
    origin: Origin,
    RunPath(run): RunPath,
    JsonBody(body): JsonBody<ChangeRun>,
) -> Result<Response, ApiError> {
    let caller = &authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    if record.status.is_terminal() {
        let message = format!(
            "the run has ended ({}): its limits cannot be raised",
            record.status
        );
        return Err(ApiError::new(StatusCode::CONFLICT, "run_ended", message));
    }
    let asked = tx.run_approvals(run).await?;
    drop(tx);
    // The newest one, so that a repetition finds the question that it has decided.
    let mut limits = asked
        .into_iter()
        .filter(|asked| asked.reason == ApprovalReason::Budget);
    let Some(question) = limits.next_back() else {
        let message = "the run does not wait at a limit: limits can be raised while it does";
        let conflict = StatusCode::CONFLICT;
        return Err(ApiError::new(conflict, "limit_not_reached", message));
    };
    let decision = Decision::Raise {
        limits: body.limits,
    };
    let approval = question.id;
    let audit = AuditEntry {
        target: Some(format!("run:{run}")),
        detail: Some(format!("{approval}: {}", words(&decision))),
        ..origin.entry(caller.actor(), Some(caller.tenant), "approval.decided")
    };
    let wish = Wish {
        approval,
        decision: &decision,
        audit,
    };
    let by = caller.grant.api_key;
    decider.decide(caller.tenant, run, by, wish).await?;
    let view = load(&store, caller.tenant, run).await?;
    Ok((run_header(run), Json(view)).into_response())
}
