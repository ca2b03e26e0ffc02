//! The response that a path names.

use axum::extract::{FromRequestParts, Path};
use baton_protocol::RunId;
use baton_responses::run_of_response;
use http::StatusCode;
use http::request::Parts;

use crate::error::ApiError;

/// The run of the response that the path names. An id of another form names none.
pub(super) struct ResponsePath(pub(super) RunId);

impl<S: Send + Sync> FromRequestParts<S> for ResponsePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| not_found("there is no response with this id"))?;
        run_of_response(&id)
            .map(Self)
            .map_err(|error| not_found(error.to_string()))
    }
}

pub(super) fn not_found(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "response_not_found", message)
}

/// Refuses the id of a response that its client did not want to be kept.
pub(super) fn not_kept() -> ApiError {
    not_found("this response is not kept: its request had `\"store\": false`")
}

/// Refuses the id of a run that another route made.
pub(super) fn not_a_response(run: RunId) -> ApiError {
    not_found(format!(
        "run {run} was not made by POST /v1/responses, so there is no response of it: GET /v1/runs/{run}"
    ))
}
