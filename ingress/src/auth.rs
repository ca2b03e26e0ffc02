//! Who is asking, and what they may do: one extractor for every credential carrier.
//!
//! ```text
//! headers ──► presented ──► credentials (a key's row | a session's standing | an issuer's keys)
//!                                  │ remembered for seconds, forgotten when revoked
//!                                  ▼
//!                               Caller ──► scope ──► handler
//! ```
//!
//! A route names the scope that it needs in its signature, as `Authorized<RunsWrite>`; without a
//! scope there is only [`SignedIn`], for what people do with their own account. Below are the routes
//! of sign-in itself, one file each.

mod caller;
mod credentials;
mod issuers;
mod origin;
mod scopes;
mod sign_in;
mod watch;

mod accept_invite;
mod jwks;
mod login;
mod logout;
mod me;
mod password;
mod refresh;
mod register;
mod sessions;
mod switch;

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use baton_protocol::{SessionId, UserId};
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use caller::{Actor, Caller, Credential};
pub(crate) use credentials::{Credentials, Presented};
pub(crate) use issuers::Issuers;
pub(crate) use origin::Origin;
pub(crate) use register::{email, name};
pub use scopes::SCOPES;
pub(crate) use scopes::{
    ALL, ApprovalsWrite, KeysRead, KeysWrite, MembersRead, MembersWrite, ModelsRead, RunsRead,
    RunsWrite, Scope, Scopes, UsageRead,
};
pub(crate) use sign_in::{SignIn, is_worth_recording};
pub(crate) use watch::{CredentialWatch, Guard};

use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
use crate::rate::limit_request_of;
use crate::state::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(register::register))
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(me::me))
        .routes(routes!(switch::switch))
        .routes(routes!(accept_invite::accept_invite))
        .routes(routes!(password::change_password))
        .routes(routes!(password::reset_password))
        .routes(routes!(sessions::list_sessions))
        .routes(routes!(sessions::revoke_session))
        .routes(routes!(sessions::revoke_other_sessions))
        .routes(routes!(jwks::jwks))
}

/// Whoever sent a good credential, within their rate limits.
async fn caller(parts: &Parts, state: &AppState) -> Result<Arc<Caller>, ApiError> {
    let presented = credentials::presented(&parts.headers).map_err(|(reason, message)| {
        metrics::auth_refusal(reason);
        ApiError::unauthorized(message)
    })?;
    let found = state.credentials.find(&presented).await?;
    let caller = found.ok_or_else(|| {
        metrics::auth_refusal(AuthRefusal::Unknown);
        presented.unknown()
    })?;
    caller.check_alive(state.clock.now())?;
    limit_request_of(&caller, parts, state).await?;
    Ok(caller)
}

/// A caller whose credential is good and holds the scope.
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

/// Anybody with a good credential, whatever it may do: for asking who one is.
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

/// A person who signed in here, for what they do with their own account.
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
