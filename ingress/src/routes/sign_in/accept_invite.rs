//! `POST /v1/auth/accept-invite`: a person with an account joins another tenant.

use axum::Json;
use axum::extract::State;
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::{Role, TenantId};
use baton_store::{AuditEntry, Store};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::register::TOKEN_REFUSED;
use crate::access::body::JsonBody;
use crate::access::{Origin, SignedIn};
use crate::error::{ApiError, Problem};

/// An invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptInvite {
    /// `bi_…`
    #[schema(pattern = "^(bi)_[0-9A-Za-z]+_[0-9A-Za-z]+$")]
    token: String,
}

/// The tenant that was joined, and the person's role there.
#[derive(Serialize, ToSchema)]
pub(crate) struct Joined {
    tenant: TenantId,
    role: Role,
}

/// Joins a tenant with an invite. To act there: `/v1/auth/switch`.
#[utoipa::path(
    post,
    path = "/v1/auth/accept-invite",
    tag = "Sign-in",
    request_body = AcceptInvite,
    responses(
        (status = 200, description = "Joined", body = Joined),
        (status = 400, description = "The request is wrong, or the invite not good", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not for keys", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn accept_invite(
    State(store): State<Store>,
    signed_in: SignedIn,
    origin: Origin,
    JsonBody(request): JsonBody<AcceptInvite>,
) -> Result<Json<Joined>, ApiError> {
    let refused = || {
        let status = StatusCode::BAD_REQUEST;
        ApiError::new(status, "token_refused", TOKEN_REFUSED).param("token")
    };
    let token =
        OpaqueToken::parse_as(TokenKind::Invite, request.token.trim()).map_err(|_| refused())?;
    let one = store.one_commit().await?;
    let (system, hash) = (one.system(), token.hash());
    let joined = system
        .accept_invite(signed_in.user, signed_in.session, &hash)
        .await?;
    let Some((tenant, role)) = joined else {
        one.rollback().await?;
        return Err(refused());
    };
    let entry = AuditEntry {
        target: Some(format!("user:{}", signed_in.user)),
        detail: Some(format!("{role} by invite")),
        ..origin.entry(signed_in.caller.actor(), Some(tenant), "member.joined")
    };
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    Ok(Json(Joined { tenant, role }))
}
