//! `POST /v1/auth/refresh`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_identity::{NewAccess, OpaqueToken, TokenKind};
use baton_protocol::TenantId;
use baton_service::SharedClock;
use baton_store::{AuditEntry, AuditResult, Refresh, Refreshed, Store};
use serde::Deserialize;
use utoipa::ToSchema;

use super::tokens::Tokens;
use crate::access::body::JsonBody;
use crate::access::{Actor, Origin, Revoker, SignIn};
use crate::error::{ApiError, Problem};
use crate::metrics;

/// The time for which a used token gets the same answer again: a client may have lost the answer,
/// and a client with several tabs asks several times.
const GRACE: Duration = Duration::from_secs(10);

/// A session's newest refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    #[schema(pattern = "^(br)_[0-9A-Za-z]+_[0-9A-Za-z]+$")]
    refresh_token: String,
    /// The tenant to act for from now on. Default: the session's.
    #[schema(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
}

/// Returns the next tokens of a session.
///
/// A refresh token can be used once; within ten seconds it gets the same answer again. If it is
/// used again later, the session ends, because somebody has a copy.
#[utoipa::path(
    post,
    path = "/v1/auth/refresh",
    tag = "Sign-in",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "The next tokens", body = Tokens),
        (status = 401, description = "The token is not good, or the session over", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "No member of this tenant", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn refresh(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(sign_in): State<Arc<SignIn>>,
    State(revoker): State<Revoker>,
    origin: Origin,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, ApiError> {
    sign_in.tokens()?;
    let over = || ApiError::invalid_token("this refresh token is not good: sign in");
    let presented = OpaqueToken::parse_as(TokenKind::Refresh, request.refresh_token.trim())
        .map_err(|_| over())?;
    // With several keys configured, an earlier one may have derived the session's newest token.
    let successors: Vec<_> = sign_in
        .succession
        .iter()
        .map(|key| presented.successor(key))
        .collect();
    let Some(next) = successors.first() else {
        return Err(over());
    };
    let refresh = Refresh {
        presented: presented.hash(),
        successor: next.hash(),
        grace: GRACE,
    };
    let one = store.one_commit().await?;
    let system = one.system();
    let (session, user, tenant, role, newest) = match system.refresh_session(&refresh).await? {
        Refreshed::Goes {
            session,
            user,
            tenant,
            role,
            newest,
            ..
        } => (session, user, tenant, role, newest),
        Refreshed::Reused {
            session,
            user,
            tenant,
            newly,
        } => {
            if newly {
                metrics::refresh_reused();
                tracing::warn!(session.id = %session, user.id = %user, "a used refresh token was presented");
                let entry = AuditEntry {
                    target: Some(format!("session:{session}")),
                    result: AuditResult::Refused,
                    detail: Some("refresh_token_reused".to_owned()),
                    ..origin.entry(Actor::user(user), Some(tenant), "session.ended")
                };
                system.record_audit(&entry).await?;
                one.commit().await?;
                revoker.evict_everywhere(session.as_uuid()).await;
            } else {
                one.rollback().await?;
            }
            return Err(over());
        }
        Refreshed::Over | Refreshed::Unknown => {
            one.rollback().await?;
            return Err(over());
        }
    };
    let Some(next) = successors.into_iter().find(|next| next.hash() == newest) else {
        one.rollback().await?;
        return Err(over());
    };
    let (tenant, role) = match request.tenant.filter(|wanted| *wanted != tenant) {
        Some(wanted) => {
            let switched = system.switch_session(user, session, wanted).await?;
            let role = switched.map(|(role, _)| role);
            let entry = AuditEntry {
                target: Some(format!("session:{session}")),
                ..origin.entry(Actor::user(user), Some(wanted), "session.switched")
            };
            if switched.is_some_and(|(_, newly)| newly) {
                system.record_audit(&entry).await?;
            }
            (wanted, role)
        }
        None => (tenant, role),
    };
    one.commit().await?;
    if role.is_none() {
        let message = "you do not belong to this tenant: name another in `tenant`";
        return Err(ApiError::forbidden("not_a_member", message));
    }
    let access = NewAccess {
        user,
        session,
        tenant,
    };
    Ok(Json(sign_in.answer(&clock, access, &next)?).into_response())
}
