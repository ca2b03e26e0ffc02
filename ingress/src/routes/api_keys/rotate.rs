//! `POST /v1/api-keys/{id}/rotate`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use baton_identity::ApiKey;
use baton_protocol::ApiKeyId;
use baton_service::SharedClock;
use baton_store::{AuditEntry, FreshKey, Store};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::KeyEnvironment;
use super::path::{KeyPath, no_such_key};
use super::view::{CreatedKey, check_may_have_made};
use crate::access::body::JsonBody;
use crate::access::{Authorized, KeysWrite, Origin};
use crate::error::{ApiError, Problem};

/// The default time for which the old key stays valid, in seconds: a day.
const USUAL_OVERLAP: u32 = 24 * 60 * 60;
/// The longest time for which the old key may stay valid, in seconds: thirty days.
const LONGEST_OVERLAP: u32 = 30 * USUAL_OVERLAP;

/// The end of the old key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateKey {
    /// The time for which the old key stays valid alongside the new one, in seconds; at most thirty
    /// days.
    #[serde(default = "usual_overlap")]
    #[schema(default = usual_overlap, maximum = 2_592_000)]
    overlap_seconds: u32,
}

const fn usual_overlap() -> u32 {
    USUAL_OVERLAP
}

/// Creates a key with the same permissions, and lets the old one expire.
#[utoipa::path(
    post,
    path = "/v1/api-keys/{id}/rotate",
    tag = "Keys",
    params(("id" = String, Path, description = "The old key", format = Uuid)),
    request_body = RotateKey,
    responses(
        (status = 201, description = "The new key", body = CreatedKey),
        (status = 403, description = "Lacks the scope, or the key may do more than the one who asks", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such key, or it is refused already", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn rotate_key(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(KeyEnvironment(usual)): State<KeyEnvironment>,
    authorized: Authorized<KeysWrite>,
    origin: Origin,
    KeyPath(old): KeyPath,
    JsonBody(request): JsonBody<RotateKey>,
) -> Result<(StatusCode, Json<CreatedKey>), ApiError> {
    if request.overlap_seconds > LONGEST_OVERLAP {
        let message = format!("`overlap_seconds` is at most {LONGEST_OVERLAP}");
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_overlap", message);
        return Err(error.param("overlap_seconds"));
    }
    let caller = authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.api_key(old).await?.ok_or_else(no_such_key)?;
    // The caller sees the new secret, which is as good as creating such a key.
    check_may_have_made(&caller, &record)?;
    caller.hold(&mut tx).await?;
    let environment = record.prefix.split('_').nth(1).unwrap_or(&usual);
    let key = ApiKey::from_random(environment, rand::random())
        .map_err(|error| ApiError::internal(&error))?;
    let fresh = FreshKey {
        id: ApiKeyId::new(clock.now()),
        hash: key.hash(),
        prefix: key.hint().to_owned(),
        expires_at: record.expires_at,
        created_by: Some(caller.actor().to_string()),
    };
    let overlap = Duration::from_secs(u64::from(request.overlap_seconds));
    if !tx.rotate_api_key(old, &fresh, overlap).await? {
        return Err(no_such_key());
    }
    let record = tx.api_key(fresh.id).await?.ok_or_else(no_such_key)?;
    let entry = AuditEntry {
        target: Some(format!("key:{old}")),
        detail: Some(format!("by key:{}", fresh.id)),
        ..origin.entry(caller.actor(), Some(caller.tenant), "key.rotated")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    let created = CreatedKey {
        key: key.expose().to_owned(),
        view: record.into(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}
