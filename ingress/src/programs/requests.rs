//! Identifies and authorizes the publishers of messages on the bus.
//!
//! ```text
//! message ──► its subject names the key (the broker says so) ──► alive? limits? scope? ──► as HTTP
//! ```
//!
//! The broker lets a key publish only to its own subjects, so the subject proves the key.
//! Everything else is checked here, by the same code as for HTTP. Answers go to subjects that
//! belong to the run, never to one that the publisher chose: this server may publish where the
//! publisher may not.

use std::sync::Arc;

use baton_protocol::{ApiKeyId, AuditId, TenantId};
use baton_store::{AuditEntry, AuditResult};
use chrono::{DateTime, Utc};

use crate::access::{Authenticator, Caller, Scope};
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};

/// The reason why a publisher may not act for the tenant.
#[derive(Debug)]
pub(super) enum Unknown {
    /// No key of this tenant is known to have published the message.
    Nobody(ApiError),
    /// The key could not be looked up.
    Unavailable(ApiError),
}

impl From<Unknown> for ApiError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Nobody(error) | Unknown::Unavailable(error) => error,
        }
    }
}

/// Returns the bearer of the key that a message was published with.
pub(super) async fn identify(
    authenticator: &Authenticator,
    tenant: TenantId,
    key: ApiKeyId,
) -> Result<Arc<Caller>, Unknown> {
    let found = authenticator.credentials.find_key(tenant, key).await;
    if let Some(caller) = found.map_err(Unknown::Unavailable)? {
        return Ok(caller);
    }
    metrics::auth_refusal(AuthRefusal::Unknown);
    let message = "the API key of this connection is not one of this tenant";
    Err(Unknown::Nobody(ApiError::unauthorized(message)))
}

/// Returns the publisher if its key is good, holds the scope and is within its limits.
pub(super) async fn authorize<S: Scope>(
    authenticator: &Authenticator,
    tenant: TenantId,
    key: ApiKeyId,
) -> Result<Arc<Caller>, ApiError> {
    let caller = identify(authenticator, tenant, key).await?;
    caller.check_alive(authenticator.clock.now())?;
    authenticator.rates.limit_caller(&caller).await?;
    caller.check(S::NAME, authenticator.clock.now())?;
    Ok(caller)
}

/// Returns an audit entry about an action of a publisher. The address is not known here: the entry
/// about the key's connection has it.
pub(super) fn audit_entry(
    now: DateTime<Utc>,
    caller: &Caller,
    action: &'static str,
    target: String,
) -> AuditEntry {
    let actor = caller.actor();
    AuditEntry {
        id: AuditId::new(now),
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
