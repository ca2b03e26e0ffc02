//! Who says what comes over the bus, and whether they may.
//!
//! ```text
//! message ──► who published it? (the server says) ──► their key ──► alive? limits? scope? ──► as HTTP
//! ```
//!
//! The broker has checked who may publish for which tenant. Everything else is checked here, by the
//! same code as on HTTP. Answers go to subjects of the run's own, never to one that the asker chose:
//! this server may publish where the asker may not.

use std::sync::Arc;

use baton_nats::{NoPublisher, Publisher};
use baton_protocol::{AuditId, TenantId};
use baton_store::{AuditEntry, AuditResult};
use http::StatusCode;

use crate::auth::{Caller, Scope};
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
use crate::rate::limit_caller;
use crate::state::AppState;

/// Why a publisher is nobody who may speak for the tenant.
#[derive(Debug)]
pub(super) enum Unknown {
    /// Nobody is known to have published it, or nobody of this tenant.
    Nobody(ApiError),
    /// It could not be looked at.
    Unavailable(ApiError),
}

impl From<Unknown> for ApiError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Nobody(error) | Unknown::Unavailable(error) => error,
        }
    }
}

/// The key that a message was published with.
pub(super) async fn identify<'a>(
    state: &AppState,
    tenant: TenantId,
    publisher: &'a Result<Publisher, NoPublisher>,
) -> Result<(&'a Publisher, Arc<Caller>), Unknown> {
    let publisher = publisher.as_ref().map_err(|nobody| {
        metrics::auth_refusal(AuthRefusal::Missing);
        let message = nobody.to_string();
        Unknown::Nobody(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "publisher_unknown",
            message,
        ))
    })?;
    let found = state.credentials.find_key(tenant, publisher.api_key).await;
    if let Some(caller) = found.map_err(Unknown::Unavailable)? {
        return Ok((publisher, caller));
    }
    metrics::auth_refusal(AuthRefusal::Unknown);
    let message = "the API key of this connection is not one of this tenant";
    Err(Unknown::Nobody(ApiError::unauthorized(message)))
}

/// A publisher whose key is good, holds the scope and is within its limits.
pub(super) async fn authorize<'a, S: Scope>(
    state: &AppState,
    tenant: TenantId,
    publisher: &'a Result<Publisher, NoPublisher>,
) -> Result<(&'a Publisher, Arc<Caller>), ApiError> {
    let (publisher, caller) = identify(state, tenant, publisher).await?;
    caller.check_alive(state.clock.now())?;
    limit_caller(&caller, state).await?;
    caller.check(S::NAME, state.clock.now())?;
    Ok((publisher, caller))
}

/// An entry of the audit log about something that a publisher did.
pub(super) fn audit_entry(
    state: &AppState,
    (publisher, caller): (&Publisher, &Caller),
    action: &'static str,
    target: String,
) -> AuditEntry {
    let actor = caller.actor();
    AuditEntry {
        id: AuditId::new(state.clock.now()),
        tenant: Some(caller.tenant),
        actor_kind: actor.kind,
        actor: actor.id,
        action,
        target: Some(target),
        result: AuditResult::Done,
        detail: Some("over NATS".to_owned()),
        ip: publisher.ip.clone(),
        user_agent: None,
        request_id: None,
    }
}
