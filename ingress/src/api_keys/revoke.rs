//! `DELETE /v1/api-keys/{id}`.

use axum::extract::State;
use baton_store::AuditEntry;
use http::StatusCode;

use super::path::{KeyPath, no_such_key};
use crate::auth::{Authorized, KeysWrite, Origin};
use crate::error::{ApiError, Problem};
use crate::state::AppState;

/// Revokes a key. Within seconds it is refused everywhere, and the streams that it opened are closed.
/// Repeating it changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{id}",
    tag = "Keys",
    params(("id" = String, Path, description = "The key")),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "No such key", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn revoke_key(
    State(state): State<AppState>,
    authorized: Authorized<KeysWrite>,
    origin: Origin,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, ApiError> {
    let caller = authorized.caller;
    let mut tx = state.store.tenant(caller.tenant).await?;
    if !tx.revoke_api_key(key).await? {
        return Err(no_such_key());
    }
    let entry = AuditEntry {
        target: Some(format!("key:{key}")),
        ..origin.entry(caller.actor(), Some(caller.tenant), "key.revoked")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    state.revoked(key.as_uuid()).await;
    Ok(StatusCode::NO_CONTENT)
}
