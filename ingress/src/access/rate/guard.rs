//! Applies the rate limits to requests, and reports them in the headers of answers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baton_nats::Limited;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{ClientAddress, Decision, Proxies, RateLimiter, RateLimits, Standing};
use crate::access::{Caller, Credential};
use crate::error::ApiError;
use crate::metrics::{self, RateRefusal};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The limit that the answer will report: the caller's, or the address's if the caller is unknown.
#[derive(Debug, Clone, Default)]
struct Shown(Arc<Mutex<Option<Standing>>>);

impl Shown {
    fn set(&self, standing: Standing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    fn write(&self, headers: &mut HeaderMap) {
        let standing = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = standing {
            headers.insert(LIMIT, HeaderValue::from(standing.limit));
            headers.insert(REMAINING, HeaderValue::from(standing.remaining));
            headers.insert(RESET, HeaderValue::from(standing.reset));
        }
    }
}

/// The rate limits that apply before anything else of a request is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DefaultLimits {
    /// The limits of every address.
    pub(crate) address: RateLimits,
    /// The limits of a caller without limits of its own.
    pub(crate) caller: RateLimits,
}

/// Applies the rate limits to addresses and callers. Clones share the limits and the counts.
#[derive(Clone)]
pub(crate) struct RateGate(Arc<Shared>);

struct Shared {
    limiter: RateLimiter,
    proxies: Proxies,
    defaults: ArcSwap<DefaultLimits>,
}

impl RateGate {
    pub(crate) fn new(limiter: RateLimiter, proxies: Proxies, defaults: DefaultLimits) -> Self {
        Self(Arc::new(Shared {
            limiter,
            proxies,
            defaults: ArcSwap::from_pointee(defaults),
        }))
    }

    /// Replaces the default limits for later requests.
    pub(crate) fn set_defaults(&self, defaults: DefaultLimits) {
        self.0.defaults.store(Arc::new(defaults));
    }

    /// Returns the limiter, for limits of another kind.
    pub(crate) fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// Counts a request from an address; `None` if nothing limits it.
    pub(crate) async fn ask_for_address(&self, address: IpAddr) -> Option<Decision> {
        let limits = self.0.defaults.load().address;
        self.0.limiter.ask(Limited::Address(address), limits).await
    }

    /// Counts a request of a known caller, and has its answer report the caller's limit.
    pub(crate) async fn limit_request(
        &self,
        caller: &Caller,
        parts: &Parts,
    ) -> Result<(), ApiError> {
        self.limit(caller, parts.extensions.get::<Shown>()).await
    }

    /// Counts something that a known caller asks for by other means than a request.
    pub(crate) async fn limit_caller(&self, caller: &Caller) -> Result<(), ApiError> {
        self.limit(caller, None).await
    }

    async fn limit(&self, caller: &Caller, shown: Option<&Shown>) -> Result<(), ApiError> {
        let or_default = |own: Option<u32>, default| own.unwrap_or(default);
        let defaults = self.0.defaults.load().caller;
        let limits = RateLimits {
            per_minute: or_default(caller.limits.per_minute, defaults.per_minute),
            per_day: or_default(caller.limits.per_day, defaults.per_day),
        };
        let Some(decision) = self.0.limiter.ask(limited(caller), limits).await else {
            return Ok(());
        };
        if let Some(shown) = shown {
            shown.set(decision.standing);
        }
        if decision.admitted {
            Ok(())
        } else {
            Err(refuse(decision, RateRefusal::Caller))
        }
    }
}

/// Limits requests from one address before they are authenticated, and adds the rate-limit headers
/// to every answer to a counted request.
pub(crate) async fn limit_requests(
    State(gate): State<RateGate>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = Shown::default();
    let proxies = &gate.0.proxies;
    let client = proxies.client(request.headers(), request.extensions());
    if let Some(address) = client {
        request.extensions_mut().insert(ClientAddress(address));
        tracing::Span::current().record("client.address", tracing::field::display(address));
        if let Some(decision) = gate.ask_for_address(address).await {
            shown.set(decision.standing);
            if !decision.admitted {
                let refused = refuse(decision, RateRefusal::Address);
                let mut response = refused.into_answer(request.uri().path());
                shown.write(response.headers_mut());
                return response;
            }
        }
    }
    request.extensions_mut().insert(shown.clone());
    let mut response = next.run(request).await;
    shown.write(response.headers_mut());
    response
}

fn limited(caller: &Caller) -> Limited {
    let id = match &caller.credential {
        Credential::ApiKey(key) => key.as_uuid(),
        // All sessions of a person share one limit.
        Credential::Session { user, .. } => user.as_uuid(),
        Credential::Issuer { subject, .. } => {
            let hash = Sha256::digest(subject.as_bytes());
            let (half, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
            Uuid::from_bytes(*half)
        }
    };
    Limited::Caller {
        tenant: caller.tenant,
        caller: id,
    }
}

fn refuse(decision: Decision, whose: RateRefusal) -> ApiError {
    metrics::rate_refusal(whose);
    let Standing { limit, reset, .. } = decision.standing;
    let whose = match whose {
        RateRefusal::Address => "requests from this address",
        RateRefusal::Caller => "requests with this credential",
    };
    let message = format!("too many {whose}: the limit is {limit}; ask again in {reset} seconds");
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).retry_after(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size<A, B, F>(_: &impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_holds_little_of_its_limit() {
        let ask = size::<&'static RateGate, _, _>(&RateGate::ask_for_address);
        assert!(ask < 1 << 10);
    }
}
