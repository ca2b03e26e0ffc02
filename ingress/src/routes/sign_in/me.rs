//! `GET /v1/auth/me`.

use axum::Json;
use axum::extract::State;
use baton_protocol::{Role, SessionId, TenantId};
use baton_store::Store;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Authenticated, Credential};
use crate::error::ApiError;

/// The caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// `user`, `api_key` or `issuer`.
    kind: &'static str,
    /// The person's or the key's id, or the other issuer's URL and subject.
    id: String,
    /// The tenant that the credential acts for.
    tenant: TenantId,
    /// The person's role there; null for keys.
    role: Option<Role>,
    /// The permissions of the credential; `*` means all.
    scopes: Vec<String>,
    /// The time at which the credential expires.
    expires_at: Option<DateTime<Utc>>,
    /// The address that the person signs in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// The person's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// This session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    /// All tenants that the person belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    memberships: Option<Vec<Membership>>,
}

/// A tenant that a person belongs to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Membership {
    tenant: TenantId,
    tenant_name: String,
    role: Role,
}

/// Returns the caller and their permissions, for any kind of credential.
#[utoipa::path(
    get,
    path = "/v1/auth/me",
    tag = "Sign-in",
    responses(
        (status = 200, description = "Who is asking", body = Me),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn me(
    State(store): State<Store>,
    Authenticated { caller }: Authenticated,
) -> Result<Json<Me>, ApiError> {
    let actor = caller.actor();
    let mut me = Me {
        kind: actor.kind.as_str(),
        id: actor.id.unwrap_or_default(),
        tenant: caller.tenant,
        role: None,
        scopes: caller.scopes.to_strings(),
        expires_at: caller.expires_at,
        email: None,
        name: None,
        session: None,
        memberships: None,
    };
    match &caller.credential {
        Credential::ApiKey(_) => {}
        Credential::Issuer { role, .. } => me.role = Some(*role),
        Credential::Session {
            user,
            session,
            role,
        } => {
            me.role = Some(*role);
            me.session = Some(*session);
            let system = store.system();
            if let Some(user) = system.user(*user).await? {
                me.email = Some(user.email);
                me.name = user.name;
            }
            let memberships = system.memberships(*user).await?;
            me.memberships = Some(
                memberships
                    .into_iter()
                    .map(|one| Membership {
                        tenant: one.tenant,
                        tenant_name: one.tenant_name,
                        role: one.role,
                    })
                    .collect(),
            );
        }
    }
    Ok(Json(me))
}
