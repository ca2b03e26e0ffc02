//! Extractors with which a handler's signature demands a caller.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use baton_protocol::{SessionId, UserId};
use http::request::Parts;

use super::caller::{Caller, Credential};
use super::credentials;
use crate::access::rate::limit_request_of;
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
use crate::state::AppState;
use baton_identity::scopes::Scope;

/// Returns the sender of a good credential if their rate limits allow the request. Makes the caller
/// available to later extractors.
async fn caller(parts: &mut Parts, state: &AppState) -> Result<Arc<Caller>, ApiError> {
    let presented = credentials::presented(&parts.headers).map_err(|(reason, message)| {
        metrics::auth_refusal(reason);
        ApiError::unauthorized(message)
    })?;
    let found = state.credentials.find(&presented).await?;
    let caller = found.ok_or_else(|| {
        metrics::auth_refusal(AuthRefusal::Unknown);
        presented.unknown()
    })?;
    let span = tracing::Span::current();
    span.record("caller", tracing::field::display(caller.actor()));
    span.record("tenant.id", tracing::field::display(caller.tenant));
    caller.check_alive(state.clock.now())?;
    limit_request_of(&caller, parts, state).await?;
    parts.extensions.insert(Arc::clone(&caller));
    Ok(caller)
}

/// A caller with a good credential that holds the scope.
pub(crate) struct Authorized<S> {
    pub(crate) caller: Arc<Caller>,
    scope: PhantomData<S>,
}

impl<S: Scope> FromRequestParts<AppState> for Authorized<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = caller(parts, state).await?;
        caller.check(S::NAME, state.clock.now())?;
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

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = caller(parts, state).await?;
        Ok(Self { caller })
    }
}

/// A person who signed in here, for routes about their own account.
pub(crate) struct SignedIn {
    pub(crate) caller: Arc<Caller>,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
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
