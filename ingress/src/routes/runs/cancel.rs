//! `POST /v1/runs/{id}/cancel`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_store::{AuditEntry, CancelRequest, Store};
use http::StatusCode;

use super::path::RunPath;
use super::read::load;
use super::view::RunView;
use crate::access::{Authorized, Origin, RunsWrite};
use crate::error::{ApiError, Problem, run_header};
use crate::run::cancel::Canceller;

/// Cancels a run. Cancelling a run that has ended changes nothing and is no error.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/cancel",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 200, description = "It has ended, now or before", body = RunView),
        (status = 202, description = "Its worker has been told to stop", body = RunView),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn cancel_run(
    State(store): State<Store>,
    State(canceller): State<Canceller>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    RunPath(run): RunPath,
) -> Result<Response, ApiError> {
    let caller = authorized.caller;
    let tenant = caller.tenant;
    let entry = AuditEntry {
        target: Some(format!("run:{run}")),
        ..origin.entry(caller.actor(), Some(tenant), "run.cancelled")
    };
    let cancelled = canceller
        .cancel(tenant, run, "api_request", Some(&entry))
        .await?;
    let status = match cancelled {
        CancelRequest::NotFound => return Err(ApiError::no_such_run()),
        CancelRequest::Ended(_) => StatusCode::OK,
        CancelRequest::Requested { .. } => StatusCode::ACCEPTED,
    };
    let view = load(&store, tenant, run).await?;
    Ok((status, run_header(run), Json(view)).into_response())
}
