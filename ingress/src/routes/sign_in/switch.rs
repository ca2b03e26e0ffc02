//! `POST /v1/auth/switch`: act for another tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use baton_identity::NewAccess;
use baton_protocol::TenantId;
use baton_service::SharedClock;
use baton_store::{AuditEntry, Store};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::body::JsonBody;
use crate::access::{Origin, SignIn, SignedIn};
use crate::error::{ApiError, Problem};

/// The tenant to act for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchRequest {
    tenant: TenantId,
}

/// An access token for the other tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct SwitchedToken {
    /// For `Authorization: Bearer`; names the other tenant.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// The lifetime of the token, in seconds.
    expires_in: u64,
}

/// Makes this session act for another tenant of the person. Its refresh token stays the same.
#[utoipa::path(
    post,
    path = "/v1/auth/switch",
    tag = "Sign-in",
    request_body = SwitchRequest,
    responses(
        (status = 200, description = "An access token for the other tenant", body = SwitchedToken),
        (status = 403, description = "Not for keys, or no member of this tenant", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn switch(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(sign_in): State<Arc<SignIn>>,
    signed_in: SignedIn,
    origin: Origin,
    JsonBody(request): JsonBody<SwitchRequest>,
) -> Result<Json<SwitchedToken>, ApiError> {
    let SignedIn { user, session, .. } = signed_in;
    let tenant = request.tenant;
    let one = store.one_commit().await?;
    let switched = one.system().switch_session(user, session, tenant).await?;
    let Some((_, newly)) = switched else {
        one.rollback().await?;
        let message = "you do not belong to this tenant";
        return Err(ApiError::forbidden("not_a_member", message));
    };
    let entry = AuditEntry {
        target: Some(format!("session:{session}")),
        ..origin.entry(signed_in.caller.actor(), Some(tenant), "session.switched")
    };
    if newly {
        one.system().record_audit(&entry).await?;
    }
    one.commit().await?;
    let access = NewAccess {
        user,
        session,
        tenant,
    };
    let (access_token, expires_in) = sign_in.access_token(&clock, access)?;
    Ok(Json(SwitchedToken {
        access_token,
        token_type: "Bearer",
        expires_in,
    }))
}
