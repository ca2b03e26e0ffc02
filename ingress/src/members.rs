//! `/v1/members`: who may act in a tenant, and as what.

use axum::Json;
use axum::extract::{Path, State};
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::{InviteId, Role, UserId};
use baton_store::{AuditEntry, AuditResult, MembershipChange};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authorized, MembersRead, MembersWrite, Origin};
use crate::body::JsonBody;
use crate::error::{ApiError, Problem};
use crate::state::AppState;

/// How long a password reset can be used.
const RESET_LIFE: std::time::Duration = std::time::Duration::from_hours(24);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(change_member, remove_member))
        .routes(routes!(reset_member_password))
}

/// A person in the tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    id: UserId,
    email: String,
    name: Option<String>,
    role: Role,
    joined_at: DateTime<Utc>,
    /// Since when an operator keeps them out.
    disabled_at: Option<DateTime<Utc>>,
}

/// The people in the tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberList {
    data: Vec<Member>,
}

/// Another role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeMember {
    role: Role,
}

/// A token that sets a new password once.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasswordReset {
    /// `bp_…`, for `/v1/auth/password/reset`; shown once. No mail is sent: hand it over.
    token: String,
    expires_at: DateTime<Utc>,
}

fn unknown() -> ApiError {
    let message = "the tenant has no member with this id";
    ApiError::new(StatusCode::NOT_FOUND, "member_not_found", message)
}

/// The tenant's members, in the order of their registration.
#[utoipa::path(
    get,
    path = "/v1/members",
    tag = "People",
    responses(
        (status = 200, description = "The members", body = MemberList),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_members(
    State(state): State<AppState>,
    authorized: Authorized<MembersRead>,
) -> Result<Json<MemberList>, ApiError> {
    let members = state
        .store
        .system()
        .members(authorized.caller.tenant)
        .await?;
    let data = members
        .into_iter()
        .map(|member| Member {
            id: member.user,
            email: member.email,
            name: member.name,
            role: member.role,
            joined_at: member.joined_at,
            disabled_at: member.disabled_at,
        })
        .collect();
    Ok(Json(MemberList { data }))
}

/// Changes a member's role. Nobody gives a role above their own, nor changes one; somebody stays
/// owner.
#[utoipa::path(
    patch,
    path = "/v1/members/{id}",
    tag = "People",
    params(("id" = String, Path, description = "The person")),
    request_body = ChangeMember,
    responses(
        (status = 204, description = "It is changed"),
        (status = 403, description = "Lacks the scope, or the role is above one's own", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last owner", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn change_member(
    State(state): State<AppState>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ChangeMember>,
) -> Result<StatusCode, ApiError> {
    change(&state, authorized, origin, &id, Some(request.role)).await
}

/// Removes a member from the tenant. What they signed in here for ends within seconds.
#[utoipa::path(
    delete,
    path = "/v1/members/{id}",
    tag = "People",
    params(("id" = String, Path, description = "The person")),
    responses(
        (status = 204, description = "They are no member any more"),
        (status = 403, description = "Lacks the scope, or the role is above one's own", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last owner", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn remove_member(
    State(state): State<AppState>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    change(&state, authorized, origin, &id, None).await
}

async fn change(
    state: &AppState,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    id: &str,
    role: Option<Role>,
) -> Result<StatusCode, ApiError> {
    let user: UserId = id.parse().map_err(|_| unknown())?;
    let caller = authorized.caller;
    let action = match role {
        Some(_) => "member.changed",
        None => "member.removed",
    };
    let mut tx = state.store.tenant(caller.tenant).await?;
    let by = caller.role_to_give().ok_or_else(ApiError::role_too_low)?;
    let change = tx.change_membership(user, role, by).await?;
    let entry = AuditEntry {
        target: Some(format!("user:{user}")),
        ..origin.entry(caller.actor(), Some(caller.tenant), action)
    };
    let (entry, answer) = match change {
        MembershipChange::NotFound => return Err(unknown()),
        MembershipChange::Done { before } => {
            let after = role.map_or("nothing", Role::as_str);
            let detail = Some(format!("from {before} to {after}"));
            (AuditEntry { detail, ..entry }, Ok(StatusCode::NO_CONTENT))
        }
        MembershipChange::Above => {
            let error = ApiError::role_too_low();
            (refused(entry, "role_too_low"), Err(error))
        }
        MembershipChange::LastOwner => {
            let message = "the tenant would be without an owner: make another one first";
            let error = ApiError::new(StatusCode::CONFLICT, "last_owner", message);
            (refused(entry, "last_owner"), Err(error))
        }
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    answer
}

fn refused(entry: AuditEntry, why: &str) -> AuditEntry {
    AuditEntry {
        result: AuditResult::Refused,
        detail: Some(why.to_owned()),
        ..entry
    }
}

/// Makes a token by which a member sets a new password.
///
/// Only for members who belong to no other tenant and whose role is not above one's own: for
/// others it takes the operator, `baton users reset-password`.
#[utoipa::path(
    post,
    path = "/v1/members/{id}/password-reset",
    tag = "People",
    params(("id" = String, Path, description = "The person")),
    responses(
        (status = 201, description = "The token, shown once", body = PasswordReset),
        (status = 403, description = "Lacks the scope, or is not for this tenant alone to do", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn reset_member_password(
    State(state): State<AppState>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<PasswordReset>), ApiError> {
    let user: UserId = id.parse().map_err(|_| unknown())?;
    let caller = authorized.caller;
    let system = state.store.system();
    let memberships = system.memberships(user).await?;
    let here = memberships
        .iter()
        .find(|one| one.tenant == caller.tenant)
        .ok_or_else(unknown)?;
    let entry = AuditEntry {
        target: Some(format!("user:{user}")),
        ..origin.entry(
            caller.actor(),
            Some(caller.tenant),
            "password_reset.created",
        )
    };
    // Whoever sets a password can act wherever its owner can.
    if memberships.len() > 1 || Some(here.role) > caller.role_to_give() {
        let entry = refused(entry, "not_here_alone");
        system.record_audit(&entry).await?;
        let message = "they belong to another tenant too, or their role is above yours: this takes \
                       the operator, `baton users reset-password`";
        return Err(ApiError::forbidden("not_here_alone", message));
    }
    let token = OpaqueToken::from_random(TokenKind::PasswordReset, rand::random());
    let id = InviteId::new(state.clock.now());
    let by = caller.actor().to_string();
    let one = state.store.one_commit().await?;
    let expires_at = one
        .system()
        .create_password_reset(id, &token.hash(), user, &by, RESET_LIFE)
        .await?;
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    let reset = PasswordReset {
        token: token.expose().to_owned(),
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(reset)))
}
