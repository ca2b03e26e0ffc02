//! `POST /v1/auth/password` and `POST /v1/auth/password/reset`: set a new password with the old
//! one, or with a one-time token.

use std::sync::Arc;

use axum::extract::State;
use baton_identity::{OpaqueToken, TokenKind, check_new_password};
use baton_store::{AuditEntry, AuditResult, Store};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::login::{Tried, check_password};
use super::register::TOKEN_REFUSED;
use super::tries::Try;
use crate::access::body::JsonBody;
use crate::access::{Actor, Origin, Revoker, SignIn, SignedIn, record_unchanged};
use crate::error::{ApiError, Problem};

/// The old password and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePassword {
    #[schema(min_length = 1, max_length = 1024, format = Password)]
    current_password: String,
    /// At least 10 characters.
    #[schema(min_length = 10, max_length = 1024, format = Password)]
    new_password: String,
}

/// A one-time token and the new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetPassword {
    /// `bp_…`, from an administrator.
    #[schema(pattern = "^(bp)_[0-9A-Za-z]+_[0-9A-Za-z]+$")]
    token: String,
    /// At least 10 characters.
    #[schema(min_length = 10, max_length = 1024, format = Password)]
    new_password: String,
}

fn acceptable(password: &str, email: &str) -> Result<(), ApiError> {
    check_new_password(password, email).map_err(|error| {
        let (status, message) = (StatusCode::BAD_REQUEST, error.to_string());
        ApiError::new(status, "unacceptable_password", message).param("new_password")
    })
}

/// Sets a new password. The caller's other sessions end.
#[utoipa::path(
    post,
    path = "/v1/auth/password",
    tag = "Sign-in",
    request_body = ChangePassword,
    responses(
        (status = 204, description = "It is changed"),
        (status = 401, description = "The current password is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not for keys", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many tries; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn change_password(
    State(store): State<Store>,
    State(sign_in): State<Arc<SignIn>>,
    State(revoker): State<Revoker>,
    signed_in: SignedIn,
    origin: Origin,
    JsonBody(request): JsonBody<ChangePassword>,
) -> Result<StatusCode, ApiError> {
    let system = store.system();
    let Some(user) = system.user(signed_in.user).await? else {
        return Err(ApiError::invalid_token("this session is over: sign in"));
    };
    acceptable(&request.new_password, &user.email)?;
    let current = request.current_password;
    let tried = Tried {
        counted: Try::count_signed_in(&store, signed_in.session).await?,
        email: &user.email,
        action: "password.changed",
    };
    check_password(&store, &sign_in, &origin, tried, current).await?;
    let hash = sign_in.hash(request.new_password).await?;
    let one = store.one_commit().await?;
    let ended = one
        .system()
        .set_password(user.id, &hash, Some(signed_in.session))
        .await?
        .unwrap_or_default();
    let caller = &signed_in.caller;
    let entry = AuditEntry {
        target: Some(format!("user:{}", user.id)),
        ..origin.entry(caller.actor(), Some(caller.tenant), "password.changed")
    };
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    for session in &ended {
        revoker.evict_everywhere(session.as_uuid()).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Sets a new password with a one-time token. All sessions of its owner end.
#[utoipa::path(
    post,
    path = "/v1/auth/password/reset",
    tag = "Sign-in",
    request_body = ResetPassword,
    responses(
        (status = 204, description = "It is set: sign in"),
        (status = 400, description = "The request is wrong, or the token not good", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "People cannot sign in here", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many tries; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn reset_password(
    State(store): State<Store>,
    State(sign_in): State<Arc<SignIn>>,
    State(revoker): State<Revoker>,
    origin: Origin,
    JsonBody(request): JsonBody<ResetPassword>,
) -> Result<StatusCode, ApiError> {
    sign_in.tokens()?;
    acceptable(&request.new_password, "")?;
    let refused = || {
        let status = StatusCode::BAD_REQUEST;
        ApiError::new(status, "token_refused", TOKEN_REFUSED).param("token")
    };
    let token = OpaqueToken::parse_as(TokenKind::PasswordReset, request.token.trim())
        .map_err(|_| refused())?;
    // Computing a hash is work, so tries are limited.
    Try::count(&store, "", &origin).await?;
    let hash = sign_in.hash(request.new_password).await?;
    let one = store.one_commit().await?;
    let reset = one.system().reset_password(&token.hash(), &hash).await?;
    let Some((user, ended)) = reset else {
        let entry = AuditEntry {
            result: AuditResult::Refused,
            detail: Some("token_refused".to_owned()),
            ..origin.entry(Actor::nobody(None), None, "password.reset")
        };
        one.rollback().await?;
        record_unchanged(&store, origin.network, entry).await?;
        return Err(refused());
    };
    let entry = AuditEntry {
        target: Some(format!("user:{user}")),
        ..origin.entry(Actor::user(user), None, "password.reset")
    };
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    for session in &ended {
        revoker.evict_everywhere(session.as_uuid()).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
