//! `DELETE /v1/responses/{id}`.

use axum::Json;
use axum::extract::State;
use baton_openai::ErrorBody;
use baton_responses::response_id;
use baton_store::{AuditEntry, Store};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::path::{ResponsePath, not_found};
use super::record::ResponseRecord;
use crate::access::{Authorized, Origin, RunsWrite};
use crate::error::ApiError;

/// A response that is deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedResponse {
    id: String,
    /// `response`.
    object: &'static str,
    /// `true`.
    deleted: bool,
}

/// Deletes a response that has ended, with its run. No response can go on from it afterwards.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The response", pattern = "^resp_[0-9a-f-]{36}$")),
    responses(
        (status = 200, description = "It is deleted", body = DeletedResponse),
        (status = 404, description = "No such response", body = ErrorBody),
        (status = 409, description = "`response_in_progress`: it has not ended", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn delete_response(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    ResponsePath(run): ResponsePath,
) -> Result<Json<DeletedResponse>, ApiError> {
    let caller = authorized.caller;
    let tenant = caller.tenant;
    let response = ResponseRecord::load(&store, tenant, run).await?;
    if response.run.outcome.is_none() {
        let message = "the response has not ended: wait for it, or cancel it, then delete it";
        let error = ApiError::new(StatusCode::CONFLICT, "response_in_progress", message);
        return Err(error.do_not_retry());
    }
    let entry = AuditEntry {
        target: Some(format!("run:{run}")),
        ..origin.entry(caller.actor(), Some(tenant), "response.deleted")
    };
    let one = store.one_commit().await?;
    if !one.system().delete_run(tenant, run).await? {
        return Err(not_found("there is no response with this id"));
    }
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    Ok(Json(DeletedResponse {
        id: response_id(run),
        object: "response",
        deleted: true,
    }))
}
