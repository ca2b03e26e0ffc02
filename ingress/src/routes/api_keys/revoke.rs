//! `DELETE /v1/api-keys/{id}`.

use axum::extract::State;
use baton_store::{AuditEntry, Store};
use http::StatusCode;

use super::path::{KeyPath, no_such_key};
use super::view::check_may_have_made;
use crate::access::{Authorized, Credential, KeysWrite, Origin, Revoker};
use crate::error::{ApiError, Problem};

/// Revokes a key. Within seconds it is refused everywhere, and the streams that it opened are
/// closed. The caller must be allowed to create such a key; a key may always revoke itself.
/// Revoking a key again changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{id}",
    tag = "Keys",
    params(("id" = String, Path, description = "The key", format = Uuid)),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 403, description = "Lacks the scope, or the key may do more than the one who asks", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such key", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn revoke_key(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    authorized: Authorized<KeysWrite>,
    origin: Origin,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, ApiError> {
    let caller = authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.api_key(key).await?.ok_or_else(no_such_key)?;
    if caller.credential != Credential::ApiKey(key) {
        check_may_have_made(&caller, &record)?;
    }
    caller.hold(&mut tx).await?;
    if !tx.revoke_api_key(key).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let entry = AuditEntry {
        target: Some(format!("key:{key}")),
        ..origin.entry(caller.actor(), Some(caller.tenant), "key.revoked")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    revoker.evict_everywhere(key.as_uuid()).await;
    Ok(StatusCode::NO_CONTENT)
}
