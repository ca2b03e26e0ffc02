//! `POST /v1/auth/logout`.

use axum::extract::State;
use baton_identity::{OpaqueToken, TokenKind};
use baton_store::{AuditEntry, Store};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::access::body::JsonBody;
use crate::access::{Actor, Origin, Revoker};
use crate::error::ApiError;

/// Any refresh token of the session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogoutRequest {
    #[schema(pattern = "^(br)_[0-9A-Za-z]+_[0-9A-Za-z]+$")]
    refresh_token: String,
}

/// Ends a session.
///
/// Its access tokens are refused, and its streams closed, within seconds. A bad token gets the same
/// answer, because there is no session to end.
#[utoipa::path(
    post,
    path = "/v1/auth/logout",
    tag = "Sign-in",
    request_body = LogoutRequest,
    responses(
        (status = 204, description = "Signed out"),
    ),
)]
pub(crate) async fn logout(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    origin: Origin,
    JsonBody(request): JsonBody<LogoutRequest>,
) -> Result<StatusCode, ApiError> {
    let token = OpaqueToken::parse_as(TokenKind::Refresh, request.refresh_token.trim());
    if let Ok(token) = token {
        let one = store.one_commit().await?;
        let ended = one.system().end_session_of_token(&token.hash()).await?;
        if let Some((user, tenant, session)) = ended {
            let entry = AuditEntry {
                target: Some(format!("session:{session}")),
                detail: Some("logout".to_owned()),
                ..origin.entry(Actor::user(user), Some(tenant), "session.ended")
            };
            one.system().record_audit(&entry).await?;
            one.commit().await?;
            revoker.evict_everywhere(session.as_uuid()).await;
        } else {
            one.rollback().await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
