//! The origin of a request, for the audit log and for counting tries.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use baton_protocol::{AuditId, TenantId};
use baton_service::{RequestId, SharedClock};
use baton_store::{AuditEntry, AuditResult};
use chrono::{DateTime, Utc};
use http::header::USER_AGENT;
use http::request::Parts;

use super::caller::Actor;
use crate::access::rate::ClientAddress;
use crate::error::ApiError;

/// The longest `User-Agent` that is recorded; the rest is cut off.
const USER_AGENT_CHARS: usize = 200;

/// The origin of a request.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The client's address, as far as trusted proxies report it.
    pub(crate) ip: Option<String>,
    /// The network by which tries are counted.
    pub(crate) network: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
    request_id: Option<String>,
    now: DateTime<Utc>,
}

impl Origin {
    /// Returns an audit entry about an action that was done. The caller adds the details.
    pub(crate) fn entry(
        &self,
        actor: Actor,
        tenant: Option<TenantId>,
        action: &'static str,
    ) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(self.now),
            tenant,
            actor_kind: actor.kind,
            actor: actor.id,
            action,
            target: None,
            result: AuditResult::Done,
            detail: None,
            ip: self.ip.clone(),
            user_agent: self.user_agent.clone(),
            request_id: self.request_id.clone(),
        }
    }
}

impl<S> FromRequestParts<S> for Origin
where
    S: Send + Sync,
    SharedClock: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let address = parts.extensions.get::<ClientAddress>();
        let user_agent = parts
            .headers
            .get(USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(Self {
            ip: address.map(|address| address.0.to_string()),
            network: address.map(|address| address.network()),
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_CHARS).collect()),
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map(|id| id.as_str().to_owned()),
            now: SharedClock::from_ref(state).now(),
        })
    }
}
