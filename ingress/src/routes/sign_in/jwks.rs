//! `GET /.well-known/jwks.json`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::SignIn;

/// A JWK set (RFC 7517).
#[derive(Serialize, ToSchema)]
pub(crate) struct JwkSet {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
}

/// Returns the public keys of this server's access tokens, the newest and its predecessors. Empty
/// if tokens are signed with a secret.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "Sign-in",
    responses((status = 200, description = "The keys", body = JwkSet)),
)]
pub(crate) async fn jwks(State(sign_in): State<Arc<SignIn>>) -> Response {
    let keys = sign_in
        .tokens
        .as_ref()
        .map_or_else(Vec::new, baton_identity::AccessTokens::public_keys);
    let cache = [(CACHE_CONTROL, "public, max-age=300")];
    (cache, Json(JwkSet { keys })).into_response()
}
