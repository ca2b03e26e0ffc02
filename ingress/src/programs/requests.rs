//! Who says what comes over the bus, and whether they may.
//!
//! ```text
//! message ──► its subject names the key (the broker says so) ──► alive? limits? scope? ──► as HTTP
//! ```
//!
//! The broker lets a key publish to its own subjects and to no others, and so the subject is the
//! proof. Everything else is checked here, by the same code as on HTTP. Answers go to subjects of the
//! run's own, never to one that the asker chose: this server may publish where the asker may not.

use std::sync::Arc;

use baton_protocol::{ApiKeyId, AuditId, TenantId};
use baton_store::{AuditEntry, AuditResult};

use crate::access::rate::limit_caller;
use crate::access::{Caller, Scope};
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
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
pub(super) async fn identify(
    state: &AppState,
    tenant: TenantId,
    key: ApiKeyId,
) -> Result<Arc<Caller>, Unknown> {
    let found = state.credentials.find_key(tenant, key).await;
    if let Some(caller) = found.map_err(Unknown::Unavailable)? {
        return Ok(caller);
    }
    metrics::auth_refusal(AuthRefusal::Unknown);
    let message = "the API key of this connection is not one of this tenant";
    Err(Unknown::Nobody(ApiError::unauthorized(message)))
}

/// A publisher whose key is good, holds the scope and is within its limits.
pub(super) async fn authorize<S: Scope>(
    state: &AppState,
    tenant: TenantId,
    key: ApiKeyId,
) -> Result<Arc<Caller>, ApiError> {
    let caller = identify(state, tenant, key).await?;
    caller.check_alive(state.clock.now())?;
    limit_caller(&caller, state).await?;
    caller.check(S::NAME, state.clock.now())?;
    Ok(caller)
}

/// An entry of the audit log about something that a publisher did. The address is not known here: the
/// entry of the key's connection has it.
pub(super) fn audit_entry(
    state: &AppState,
    caller: &Caller,
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
        ip: None,
        user_agent: None,
        request_id: None,
    }
}
