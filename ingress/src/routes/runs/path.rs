//! The run that a path names.

use axum::extract::{FromRequestParts, Path};
use baton_protocol::RunId;
use http::request::Parts;

use crate::error::ApiError;

/// The run that the path names. A malformed id names no run.
pub(super) struct RunPath(pub(super) RunId);

impl<S: Send + Sync> FromRequestParts<S> for RunPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::no_such_run())?;
        // OpenAI routes write the id with a prefix, and people paste it here.
        let id = id.strip_prefix("chatcmpl-").unwrap_or(&id);
        id.parse().map(Self).map_err(|_| ApiError::no_such_run())
    }
}
