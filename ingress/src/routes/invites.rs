//! `/v1/invites`: invites to join a tenant. Baton sends no mail: the creator of an invite hands its
//! token over.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::{InviteId, Role};
use baton_service::SharedClock;
use baton_store::{AuditEntry, NewInvite, Store};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::body::JsonBody;
use crate::access::{Authorized, MembersRead, MembersWrite, Origin, SignIn};
use crate::error::{ApiError, Problem};
use crate::routes::AppState;
use crate::routes::sign_in::email;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create_invite, list_invites))
        .routes(routes!(revoke_invite))
}

/// The person to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateInvite {
    /// The role that they will have; not above the caller's own.
    role: Role,
    /// The only address that may use the invite. Default: any address.
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
}

/// A new invite, with its token.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedInvite {
    id: InviteId,
    /// `bi_…`, for `/v1/auth/register` or `/v1/auth/accept-invite`; shown once.
    token: String,
    role: Role,
    email: Option<String>,
    expires_at: DateTime<Utc>,
}

/// An invite that can still be used.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invite {
    id: InviteId,
    role: Role,
    email: Option<String>,
    /// The creator.
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

/// The invites that can still be used.
#[derive(Serialize, ToSchema)]
pub(crate) struct InviteList {
    data: Vec<Invite>,
}

/// Creates an invite to the tenant. Its token is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/v1/invites",
    tag = "People",
    request_body = CreateInvite,
    responses(
        (status = 201, description = "The invite with its token", body = CreatedInvite),
        (status = 403, description = "Lacks the scope, or the role is above one's own", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_invite(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(sign_in): State<Arc<SignIn>>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    JsonBody(request): JsonBody<CreateInvite>,
) -> Result<(StatusCode, Json<CreatedInvite>), ApiError> {
    let caller = authorized.caller;
    if Some(request.role) > caller.role_to_give() {
        return Err(ApiError::role_too_low().param("role"));
    }
    let address = request.email.as_deref().map(email).transpose()?;
    let token = OpaqueToken::from_random(TokenKind::Invite, rand::random());
    let now = clock.now();
    let invite = NewInvite {
        id: InviteId::new(now),
        hash: token.hash(),
        email: address.clone(),
        role: request.role,
        created_by: caller.actor().to_string(),
        life: caller.life_of_made(sign_in.invite_life, now),
    };
    let entry = AuditEntry {
        target: Some(format!("invite:{}", invite.id)),
        detail: Some(format!(
            "{} for {}",
            invite.role,
            address.as_deref().unwrap_or("anybody")
        )),
        ..origin.entry(caller.actor(), Some(caller.tenant), "invite.created")
    };
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let expires_at = tx.create_invite(&invite).await?;
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    let created = CreatedInvite {
        id: invite.id,
        token: token.expose().to_owned(),
        role: invite.role,
        email: address,
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists the tenant's usable invites, the oldest first.
#[utoipa::path(
    get,
    path = "/v1/invites",
    tag = "People",
    responses(
        (status = 200, description = "The invites", body = InviteList),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_invites(
    State(store): State<Store>,
    authorized: Authorized<MembersRead>,
) -> Result<Json<InviteList>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let data = tx
        .invites()
        .await?
        .into_iter()
        .map(|invite| Invite {
            id: invite.id,
            role: invite.role,
            email: invite.email,
            created_by: invite.created_by,
            created_at: invite.created_at,
            expires_at: invite.expires_at,
        })
        .collect();
    Ok(Json(InviteList { data }))
}

/// Revokes an unused invite. The caller must be allowed to create it.
#[utoipa::path(
    delete,
    path = "/v1/invites/{id}",
    tag = "People",
    params(("id" = String, Path, description = "The invite", format = Uuid)),
    responses(
        (status = 204, description = "It is refused from now on"),
        (status = 403, description = "Lacks the scope, or the invite's role is above one's own", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such invite, or it was used", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn revoke_invite(
    State(store): State<Store>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let unknown = || {
        let message = "the tenant has no invite with this id that could be used";
        ApiError::new(StatusCode::NOT_FOUND, "invite_not_found", message)
    };
    let id: InviteId = id.parse().map_err(|_| unknown())?;
    let caller = authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let role = tx.lock_invite(id).await?.ok_or_else(unknown)?;
    if Some(role) > caller.role_to_give() {
        return Err(ApiError::role_too_low());
    }
    if !tx.revoke_invite(id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let entry = AuditEntry {
        target: Some(format!("invite:{id}")),
        ..origin.entry(caller.actor(), Some(caller.tenant), "invite.revoked")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
