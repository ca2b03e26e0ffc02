//! The key that a path names.

use axum::extract::{FromRequestParts, Path};
use baton_protocol::ApiKeyId;
use http::StatusCode;
use http::request::Parts;

use crate::error::ApiError;

pub(super) fn no_such_key() -> ApiError {
    let message = "there is no API key with this id";
    ApiError::new(StatusCode::NOT_FOUND, "api_key_not_found", message)
}

/// The key that the path names. A malformed id names no key.
pub(super) struct KeyPath(pub(super) ApiKeyId);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_key())?;
        id.parse().map(Self).map_err(|_| no_such_key())
    }
}
