//! The path of one question.

use axum::extract::{FromRequestParts, Path};
use baton_protocol::{ApprovalId, RunId};
use http::request::Parts;

use crate::error::ApiError;

/// The question that the path names. A malformed id names none.
pub(crate) struct ApprovalPath(pub(super) RunId, pub(super) ApprovalId);

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
