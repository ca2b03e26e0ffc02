//! `GET /v1/auth/sessions`, `DELETE /v1/auth/sessions/{id}`, `POST
//! /v1/auth/sessions/revoke-others`: a person's sessions.

use axum::Json;
use axum::extract::{Path, State};
use baton_protocol::{SessionId, TenantId};
use baton_store::{AuditEntry, SessionEnd, Store};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Origin, Revoker, SignedIn};
use crate::error::{ApiError, Problem};

/// A session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    id: SessionId,
    /// Whether it is the session of this request.
    current: bool,
    /// The tenant of its next access token.
    tenant: TenantId,
    created_at: DateTime<Utc>,
    /// The time of the last refresh.
    last_used_at: DateTime<Utc>,
    /// The time from which it cannot be refreshed.
    expires_at: DateTime<Utc>,
    /// The address from which it was opened.
    ip: Option<String>,
    /// The client's `User-Agent`.
    user_agent: Option<String>,
}

/// A person's sessions.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionList {
    data: Vec<Session>,
}

/// The number of sessions that were ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    revoked: usize,
}

/// Lists the caller's own sessions, the newest first.
#[utoipa::path(
    get,
    path = "/v1/auth/sessions",
    tag = "Sign-in",
    responses(
        (status = 200, description = "The sessions that are not over", body = SessionList),
        (status = 403, description = "Not for keys", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn list_sessions(
    State(store): State<Store>,
    signed_in: SignedIn,
) -> Result<Json<SessionList>, ApiError> {
    let sessions = store.system().sessions(signed_in.user).await?;
    let data = sessions
        .into_iter()
        .map(|one| Session {
            id: one.id,
            current: one.id == signed_in.session,
            tenant: one.tenant,
            created_at: one.created_at,
            last_used_at: one.last_used_at,
            expires_at: one.expires_at,
            ip: one.ip,
            user_agent: one.user_agent,
        })
        .collect();
    Ok(Json(SessionList { data }))
}

/// Ends one of the caller's own sessions: its access tokens are refused and its streams closed
/// within seconds.
#[utoipa::path(
    delete,
    path = "/v1/auth/sessions/{id}",
    tag = "Sign-in",
    params(("id" = String, Path, description = "The session", format = Uuid)),
    responses(
        (status = 204, description = "It is over"),
        (status = 403, description = "Not for keys", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such session of yours", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn revoke_session(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    signed_in: SignedIn,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let unknown = || {
        let message = "you have no session with this id";
        ApiError::new(StatusCode::NOT_FOUND, "session_not_found", message)
    };
    let session: SessionId = id.parse().map_err(|_| unknown())?;
    let one = store.one_commit().await?;
    let ended = one
        .system()
        .end_session(signed_in.user, session, SessionEnd::Revoked)
        .await?;
    let Some(newly) = ended else {
        one.rollback().await?;
        return Err(unknown());
    };
    if !newly {
        one.rollback().await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let caller = &signed_in.caller;
    let entry = AuditEntry {
        target: Some(format!("session:{session}")),
        detail: Some("revoked".to_owned()),
        ..origin.entry(caller.actor(), Some(caller.tenant), "session.ended")
    };
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    revoker.evict_everywhere(session.as_uuid()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all of the caller's own sessions but the present one.
#[utoipa::path(
    post,
    path = "/v1/auth/sessions/revoke-others",
    tag = "Sign-in",
    responses(
        (status = 200, description = "They are over", body = Revoked),
        (status = 403, description = "Not for keys", body = Problem, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
pub(crate) async fn revoke_other_sessions(
    State(store): State<Store>,
    State(revoker): State<Revoker>,
    signed_in: SignedIn,
    origin: Origin,
) -> Result<Json<Revoked>, ApiError> {
    let one = store.one_commit().await?;
    let ended = one
        .system()
        .end_other_sessions(signed_in.user, signed_in.session)
        .await?;
    let caller = &signed_in.caller;
    let entry = AuditEntry {
        detail: Some(format!("{} others revoked", ended.len())),
        ..origin.entry(caller.actor(), Some(caller.tenant), "session.ended")
    };
    if !ended.is_empty() {
        one.system().record_audit(&entry).await?;
    }
    one.commit().await?;
    for session in &ended {
        revoker.evict_everywhere(session.as_uuid()).await;
    }
    Ok(Json(Revoked {
        revoked: ended.len(),
    }))
}
