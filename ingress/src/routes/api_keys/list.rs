//! `GET /v1/api-keys`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use baton_store::Store;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::KeyView;
use crate::access::{Authorized, KeysRead};
use crate::error::ApiError;

/// Keys, the oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyList {
    data: Vec<KeyView>,
}

/// Lists the tenant's keys without their secrets; includes revoked and expired ones.
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    tag = "Keys",
    responses(
        (status = 200, description = "The keys", body = KeyList),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_keys(
    State(store): State<Store>,
    authorized: Authorized<KeysRead>,
) -> Result<Json<KeyList>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let keys = tx.list_api_keys().await?;
    let usage = tx.key_usage().await?;
    let usage: HashMap<_, _> = usage.iter().map(|usage| (usage.key, usage)).collect();
    let views = keys.into_iter().map(|key| {
        let usage = usage.get(&key.id).copied();
        KeyView::with_usage(key, usage)
    });
    Ok(Json(KeyList {
        data: views.collect(),
    }))
}
