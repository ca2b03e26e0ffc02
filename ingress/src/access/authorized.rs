//! Extractors with which a handler's signature demands a caller.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use baton_identity::scopes::Scope;
use baton_protocol::{SessionId, UserId};
use baton_service::SharedClock;
use http::request::Parts;

use super::caller::{Caller, Credential};
use super::credentials::{self, Credentials};
use crate::access::rate::RateGate;
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};

/// Finds the senders of requests, and counts their requests.
pub(crate) struct Authenticator {
    pub(crate) credentials: Credentials,
    pub(crate) rates: RateGate,
    pub(crate) clock: SharedClock,
}

impl Authenticator {
    /// Returns the sender of a good credential if their rate limits allow the request. Makes the
    /// caller available to later extractors.
    async fn caller(&self, parts: &mut Parts) -> Result<Arc<Caller>, ApiError> {
        let presented = credentials::presented(&parts.headers).map_err(|(reason, message)| {
            metrics::auth_refusal(reason);
            ApiError::unauthorized(message)
        })?;
        let found = self.credentials.find(&presented).await?;
        let caller = found.ok_or_else(|| {
            metrics::auth_refusal(AuthRefusal::Unknown);
            presented.unknown()
        })?;
        let span = tracing::Span::current();
        span.record("caller", tracing::field::display(caller.actor()));
        span.record("tenant.id", tracing::field::display(caller.tenant));
        caller.check_alive(self.clock.now())?;
        self.rates.limit_request(&caller, parts).await?;
        parts.extensions.insert(Arc::clone(&caller));
        Ok(caller)
    }
}

/// A caller with a good credential that holds the scope.
pub(crate) struct Authorized<S> {
    pub(crate) caller: Arc<Caller>,
    scope: PhantomData<S>,
}

impl<S: Scope, T> FromRequestParts<T> for Authorized<S>
where
    T: Send + Sync,
    Arc<Authenticator>: FromRef<T>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, ApiError> {
        let authenticator = Arc::<Authenticator>::from_ref(state);
        let caller = authenticator.caller(parts).await?;
        caller.check(S::NAME, authenticator.clock.now())?;
        Ok(Self {
            caller,
            scope: PhantomData,
        })
    }
}

/// A caller with a good credential, whatever its scopes: for routes that describe the caller.
pub(crate) struct Authenticated {
    pub(crate) caller: Arc<Caller>,
}

impl<T> FromRequestParts<T> for Authenticated
where
    T: Send + Sync,
    Arc<Authenticator>: FromRef<T>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, ApiError> {
        let authenticator = Arc::<Authenticator>::from_ref(state);
        let caller = authenticator.caller(parts).await?;
        Ok(Self { caller })
    }
}

/// A person who signed in here, for routes about their own account.
pub(crate) struct SignedIn {
    pub(crate) caller: Arc<Caller>,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl<T> FromRequestParts<T> for SignedIn
where
    T: Send + Sync,
    Arc<Authenticator>: FromRef<T>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, ApiError> {
        let Authenticated { caller } = Authenticated::from_request_parts(parts, state).await?;
        match caller.credential {
            Credential::Session { user, session, .. } => Ok(Self {
                caller,
                user,
                session,
            }),
            Credential::ApiKey(_) | Credential::Issuer { .. } => Err(ApiError::forbidden(
                "not_signed_in",
                "this is for people who signed in here: send an access token of `/v1/auth/login`",
            )),
        }
    }
}
