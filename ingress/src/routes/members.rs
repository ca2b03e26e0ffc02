//! `/v1/members`: the people of a tenant, and their roles.

mod legacy;

use axum::Json;
use axum::extract::{Path, State};
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::{InviteId, Role, UserId};
use baton_service::SharedClock;
use baton_store::{AuditEntry, AuditResult, Legacy, LegacyRule, MembershipChange, Store, TenantTx};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::legacy::MemberLegacy;
use crate::access::body::JsonBody;
use crate::access::{
    Authorized, Caller, KeysWrite, MembersRead, MembersWrite, Origin, Revoker, Scope, Scopes,
    record_unchanged,
};
use crate::error::{ApiError, Problem};
use crate::routes::AppState;
use crate::routes::api_keys::check_may_have_made;
use crate::routes::query::QueryParams;

/// The time for which a password reset can be used.
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
    /// The time at which an operator disabled the account.
    disabled_at: Option<DateTime<Utc>>,
}

/// The people in the tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberList {
    data: Vec<Member>,
}

/// A new role.
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

/// Lists the tenant's members, in the order of their registration.
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
    State(store): State<Store>,
    authorized: Authorized<MembersRead>,
) -> Result<Json<MemberList>, ApiError> {
    let members = store.system().members(authorized.caller.tenant).await?;
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

/// The fate of the API keys that a removed member created.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KeysAfter {
    /// They are revoked, because the member has seen them.
    #[default]
    End,
    /// They stay valid under the caller's responsibility: they end with the caller's membership.
    Keep,
}

/// The way of removing a member.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveMember {
    /// `end` (the default): the API keys that the member created are revoked. `keep`: they stay
    /// valid under the caller's responsibility; only for a caller who could create each of them.
    #[serde(default)]
    #[param(inline, required = false)]
    api_keys: KeysAfter,
}

/// Changes a member's role. A caller can neither give nor change a role above their own, and one
/// owner must remain. Invites, password resets and API keys that the member created end if they
/// exceed the new role.
#[utoipa::path(
    patch,
    path = "/v1/members/{id}",
    tag = "People",
    params(("id" = String, Path, description = "The person", format = Uuid)),
    request_body = ChangeMember,
    responses(
        (status = 200, description = "It is changed; the things that the member made", body = MemberLegacy),
        (status = 403, description = "Lacks the scope, or the role is above one's own", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last owner", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn change_member(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ChangeMember>,
) -> Result<Json<MemberLegacy>, ApiError> {
    let change = Change::Role(request.role);
    apply(&store, &revoker, &authorized.caller, &origin, &id, change).await
}

/// Removes a member from the tenant. Their sessions here end within seconds, as do the invites,
/// password resets and API keys that they created; the answer lists them.
#[utoipa::path(
    delete,
    path = "/v1/members/{id}",
    tag = "People",
    params(("id" = String, Path, description = "The person", format = Uuid), RemoveMember),
    responses(
        (status = 200, description = "Removed; the things that the member made", body = MemberLegacy),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Lacks the scope, the role is above one's own, or a key to keep goes beyond one's own rights", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The last owner", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn remove_member(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<RemoveMember>,
) -> Result<Json<MemberLegacy>, ApiError> {
    let change = Change::Removal(query.api_keys);
    apply(&store, &revoker, &authorized.caller, &origin, &id, change).await
}

/// A change of a membership.
#[derive(Clone, Copy)]
enum Change {
    Role(Role),
    Removal(KeysAfter),
}

async fn apply(
    store: &Store,
    revoker: &Revoker,
    caller: &Caller,
    origin: &Origin,
    id: &str,
    change: Change,
) -> Result<Json<MemberLegacy>, ApiError> {
    let user: UserId = id.parse().map_err(|_| unknown())?;
    let (role, action) = match change {
        Change::Role(role) => (Some(role), "member.changed"),
        Change::Removal(_) => (None, "member.removed"),
    };
    let mut tx = store.tenant(caller.tenant).await?;
    let highest = caller.role_to_give().ok_or_else(ApiError::role_too_low)?;
    let changed = tx
        .change_membership(user, role, caller.maker(), highest)
        .await?;
    let entry = AuditEntry {
        target: Some(format!("user:{user}")),
        ..origin.entry(caller.actor(), Some(caller.tenant), action)
    };
    let refusal = match changed {
        MembershipChange::Done { before } => {
            let legacy = settle(&mut tx, caller, user, change).await?;
            if role != Some(before) {
                let after = role.map_or("nothing", Role::as_str);
                let detail = format!("from {before} to {after}; {}", legacy.summary());
                let entry = AuditEntry {
                    detail: Some(detail),
                    ..entry
                };
                tx.record_audit(&entry).await?;
            }
            tx.commit().await?;
            for key in &legacy.ended_keys {
                revoker.evict_everywhere(key.id.as_uuid()).await;
            }
            return Ok(Json(legacy.into()));
        }
        MembershipChange::NotFound => return Err(unknown()),
        MembershipChange::MakerChanged => return Err(ApiError::authority_changed()),
        MembershipChange::Above => ApiError::role_too_low(),
        MembershipChange::LastOwner => {
            let message = "the tenant would be without an owner: make another one first";
            ApiError::new(StatusCode::CONFLICT, "last_owner", message)
        }
    };
    tx.rollback().await?;
    let entry = refused(entry, &refusal.code);
    record_unchanged(store, origin.network, entry).await?;
    Err(refusal)
}

/// Revokes or hands over what the member created, now that they have another role or none.
async fn settle(
    tx: &mut TenantTx,
    caller: &Caller,
    user: UserId,
    change: Change,
) -> Result<Legacy, ApiError> {
    let (by, scopes);
    let rule = match change {
        Change::Role(role) => {
            scopes = Scopes::of_role(role).to_strings();
            LegacyRule::Within(role, &scopes)
        }
        Change::Removal(KeysAfter::End) => LegacyRule::EndKeys,
        Change::Removal(KeysAfter::Keep) => {
            if !caller.scopes.has(KeysWrite::NAME) {
                let message = "keeping keys takes the scope `keys:write`";
                return Err(ApiError::forbidden("scope_missing", message));
            }
            for key in &tx.lock_keys_made_by(user).await? {
                check_may_have_made(caller, key)?;
            }
            by = caller.actor().to_string();
            LegacyRule::KeepKeys(&by)
        }
    };
    Ok(tx.settle_legacy(user, rule).await?)
}

fn refused(entry: AuditEntry, why: &str) -> AuditEntry {
    AuditEntry {
        result: AuditResult::Refused,
        detail: Some(why.to_owned()),
        ..entry
    }
}

/// Creates a token with which a member sets a new password.
///
/// Only for members who belong to no other tenant and have a role that is not above the caller's.
/// For others an operator must run `baton users reset-password`. The conditions are checked again
/// when the token is used, and a change of the member's role revokes it.
#[utoipa::path(
    post,
    path = "/v1/members/{id}/password-reset",
    tag = "People",
    params(("id" = String, Path, description = "The person", format = Uuid)),
    responses(
        (status = 201, description = "The token, shown once", body = PasswordReset),
        (status = 403, description = "Lacks the scope, or is not for this tenant alone to do", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such member", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn reset_member_password(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<MembersWrite>,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<PasswordReset>), ApiError> {
    let user: UserId = id.parse().map_err(|_| unknown())?;
    let caller = authorized.caller;
    let system = store.system();
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
    // A person who sets a password can act in all of its owner's tenants.
    if memberships.len() > 1 || Some(here.role) > caller.role_to_give() {
        let entry = refused(entry, "not_here_alone");
        record_unchanged(&store, origin.network, entry).await?;
        let message = "they belong to another tenant too, or their role is above yours: this takes \
                       the operator, `baton users reset-password`";
        return Err(ApiError::forbidden("not_here_alone", message));
    }
    let token = OpaqueToken::from_random(TokenKind::PasswordReset, rand::random());
    let now = clock.now();
    let id = InviteId::new(now);
    let by = caller.actor().to_string();
    let life = caller.life_of_made(RESET_LIFE, now);
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let expires_at = tx
        .create_member_reset(id, &token.hash(), user, &by, life)
        .await?;
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    let reset = PasswordReset {
        token: token.expose().to_owned(),
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(reset)))
}
