//! Applies the rate limits to requests, and reports them in the headers of answers.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baton_nats::Limited;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{ClientAddress, Decision, RateLimits, Standing};
use crate::access::{Caller, Credential};
use crate::error::ApiError;
use crate::metrics::{self, RateRefusal};
use crate::state::AppState;

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

/// Limits requests from one address before they are authenticated, and adds the rate-limit headers
/// to every answer to a counted request.
pub(crate) async fn limit_requests(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = Shown::default();
    let client = state
        .proxies
        .client(request.headers(), request.extensions());
    if let Some(address) = client {
        request.extensions_mut().insert(ClientAddress(address));
        tracing::Span::current().record("client.address", tracing::field::display(address));
        let limits = state.settings.load().address;
        let asked = state.rates.ask(Limited::Address(address), limits);
        if let Some(decision) = asked.await {
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

/// Counts a request of a known caller, and has its answer report the caller's limit.
pub(crate) async fn limit_request_of(
    caller: &Caller,
    parts: &Parts,
    state: &AppState,
) -> Result<(), ApiError> {
    limit(caller, state, parts.extensions.get::<Shown>()).await
}

/// Counts something that a known caller asks for by other means than a request.
pub(crate) async fn limit_caller(caller: &Caller, state: &AppState) -> Result<(), ApiError> {
    limit(caller, state, None).await
}

async fn limit(caller: &Caller, state: &AppState, shown: Option<&Shown>) -> Result<(), ApiError> {
    let or_default = |own: Option<u32>, default| own.unwrap_or(default);
    let defaults = state.settings.load().caller;
    let limits = RateLimits {
        per_minute: or_default(caller.limits.per_minute, defaults.per_minute),
        per_day: or_default(caller.limits.per_day, defaults.per_day),
    };
    let Some(decision) = state.rates.ask(limited(caller), limits).await else {
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
