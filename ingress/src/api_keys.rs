//! `/v1/api-keys`: machines' credentials. A key is shown once, when it is made or rotated; nobody
//! makes one that may do more than they may themselves.

mod create;
mod list;
mod revoke;
mod rotate;
mod view;

use axum::extract::{FromRequestParts, Path};
use baton_protocol::ApiKeyId;
use http::StatusCode;
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::state::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_key, list::list_keys))
        .routes(routes!(rotate::rotate_key))
        .routes(routes!(revoke::revoke_key))
}

fn no_such_key() -> ApiError {
    let message = "there is no API key with this id";
    ApiError::new(StatusCode::NOT_FOUND, "api_key_not_found", message)
}

/// The key that the path names. What is no id names no key.
struct KeyPath(ApiKeyId);

impl FromRequestParts<AppState> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_key())?;
        id.parse().map(Self).map_err(|_| no_such_key())
    }
}
