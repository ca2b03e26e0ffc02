//! `POST /v1/responses/{id}/cancel`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use baton_openai::ErrorBody;
use baton_store::{AuditEntry, CancelRequest, Store};

use super::description::ResponseBody;
use super::path::{ResponsePath, not_found};
use super::record::ResponseRecord;
use crate::access::{Authorized, Origin, RunsWrite};
use crate::error::ApiError;
use crate::run::await_end::wait_for_end;
use crate::run::cancel::Canceller;
use crate::run::followers::Followers;

/// The longest wait for the worker to stop: SDKs expect the answer to be the cancelled response.
const WAIT: Duration = Duration::from_secs(10);

/// Cancels a response, whether it is in the background or not. One that has ended stays as it is.
///
/// The answer is the response after its worker has stopped. If that takes longer than ten seconds, the
/// status is still `in_progress`, and a later read shows the end.
#[utoipa::path(
    post,
    path = "/v1/responses/{id}/cancel",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The response", pattern = "^resp_[0-9a-f-]{36}$")),
    responses(
        (status = 200, description = "The response", body = ResponseBody),
        (status = 404, description = "No such response", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn cancel_response(
    State(store): State<Store>,
    State(canceller): State<Canceller>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    ResponsePath(run): ResponsePath,
) -> Result<Response, ApiError> {
    let caller = authorized.caller;
    let tenant = caller.tenant;
    let response = ResponseRecord::load(&store, tenant, run).await?;
    if response.run.outcome.is_some() {
        return response.answer();
    }
    let entry = AuditEntry {
        target: Some(format!("run:{run}")),
        ..origin.entry(caller.actor(), Some(tenant), "run.cancelled")
    };
    let cancelled = canceller
        .cancel(tenant, run, "api_request", Some(&entry))
        .await?;
    match cancelled {
        CancelRequest::NotFound => return Err(not_found("there is no response with this id")),
        CancelRequest::Ended(_) => {}
        CancelRequest::Requested { .. } => wait_for_end(&followers, &caller, run, None, WAIT).await,
    }
    ResponseRecord::load(&store, tenant, run).await?.answer()
}
