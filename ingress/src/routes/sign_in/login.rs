//! `POST /v1/auth/login`.
//!
//! A refusal gives nothing away: an unknown address, a wrong password and a disabled person get the
//! same answer after the same work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_identity::MAX_PASSWORD_BYTES;
use baton_protocol::TenantId;
use baton_service::SharedClock;
use baton_store::{AuditEntry, AuditResult, Store, UserRecord};
use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use utoipa::ToSchema;

use super::register::email;
use super::tokens::Tokens;
use super::tries::Try;
use crate::access::body::JsonBody;
use crate::access::{Actor, Origin, SignIn, record_unchanged};
use crate::error::{ApiError, Problem};

/// The person who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// The address that they registered with.
    #[schema(example = "anna@example.org", format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 1024, format = Password)]
    password: String,
    /// The tenant to act for. Default: the one that they joined first.
    #[schema(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
}

/// Signs a person in.
#[utoipa::path(
    post,
    path = "/v1/auth/login",
    tag = "Sign-in",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "Signed in", body = Tokens),
        (status = 401, description = "The address or the password is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "No member of this tenant", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many tries; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn login(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(sign_in): State<Arc<SignIn>>,
    origin: Origin,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Response, ApiError> {
    sign_in.tokens()?;
    let email = email(&request.email)?;
    let counted = Try::count_sign_in(&store, &email, &origin).await?;
    let tried = Tried {
        counted,
        email: &email,
        action: "session.opened",
    };
    let user = check_password(&store, &sign_in, &origin, tried, request.password).await?;
    let tenant = if request.tenant.is_some() {
        request.tenant
    } else {
        let memberships = store.system().memberships(user.id).await?;
        memberships.first().map(|first| first.tenant)
    };
    let one = store.one_commit().await?;
    let opened = match tenant {
        Some(tenant) => sign_in
            .open_session(&clock, &one, (user.id, tenant), &origin)
            .await?
            .map(|opened| (tenant, opened)),
        None => None,
    };
    let actor = Actor::user(user.id);
    let Some((tenant, (session, tokens))) = opened else {
        let entry = AuditEntry {
            result: AuditResult::Refused,
            detail: Some("not_a_member".to_owned()),
            ..origin.entry(actor, tenant, "session.opened")
        };
        one.rollback().await?;
        record_unchanged(&store, origin.network, entry).await?;
        let message = "you do not belong to this tenant, or to none";
        return Err(ApiError::forbidden("not_a_member", message));
    };
    let entry = AuditEntry {
        target: Some(format!("session:{session}")),
        ..origin.entry(actor, Some(tenant), "session.opened")
    };
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    Ok(Json(tokens).into_response())
}

/// A try of a password that has been counted.
pub(super) struct Tried<'a> {
    pub(super) counted: Try,
    pub(super) email: &'a str,
    /// The action under which a refusal is recorded.
    pub(super) action: &'static str,
}

/// Returns the person that the password belongs to. Every refusal is the same.
pub(super) async fn check_password(
    store: &Store,
    sign_in: &SignIn,
    origin: &Origin,
    tried: Tried<'_>,
    password: String,
) -> Result<UserRecord, ApiError> {
    let Tried {
        counted,
        email,
        action,
    } = tried;
    let system = store.system();
    let user = system.user_by_email(email).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let fits =
        password.len() <= MAX_PASSWORD_BYTES && sign_in.passwords.fits(password, hash).await?;
    match user {
        Some(user) if fits && user.disabled_at.is_none() => {
            counted.succeeded(store).await?;
            Ok(user)
        }
        user => {
            let actor = match &user {
                Some(user) => Actor::nobody(Some(user.id.to_string())),
                None => Actor::nobody(Some(email.to_owned())),
            };
            let entry = AuditEntry {
                result: AuditResult::Refused,
                detail: Some("invalid_credentials".to_owned()),
                ..origin.entry(actor, None, action)
            };
            record_unchanged(store, origin.network, entry).await?;
            let message = "the e-mail address or the password is wrong";
            Err(
                ApiError::new(StatusCode::UNAUTHORIZED, "invalid_credentials", message).header(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"baton\""),
                ),
            )
        }
    }
}
