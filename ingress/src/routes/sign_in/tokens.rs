//! A session's tokens: issued at sign-in, and again at each refresh.

use baton_identity::{NewAccess, OpaqueToken, TokenKind};
use baton_protocol::{SessionId, TenantId, UserId};
use baton_service::SharedClock;
use baton_store::{NewSession, OneCommit};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Origin;
use crate::access::SignIn;
use crate::error::ApiError;

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// For `Authorization: Bearer`; names one tenant.
    access_token: String,
    /// For `/v1/auth/refresh`, once: the answer has the next one.
    refresh_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    expires_in: u64,
}

impl SignIn {
    /// Opens a session and returns its tokens; `None` if the person does not belong to the tenant.
    /// The session exists once `one` is committed.
    pub(crate) async fn open_session(
        &self,
        clock: &SharedClock,
        one: &OneCommit<'_>,
        (user, tenant): (UserId, TenantId),
        origin: &Origin,
    ) -> Result<Option<(SessionId, Tokens)>, ApiError> {
        let refresh = OpaqueToken::from_random(TokenKind::Refresh, rand::random());
        let session = NewSession {
            id: SessionId::new(clock.now()),
            user,
            tenant,
            token_hash: refresh.hash(),
            life: self.session_life,
            ip: origin.ip.clone(),
            user_agent: origin.user_agent.clone(),
        };
        if one.system().open_session(&session).await?.is_none() {
            return Ok(None);
        }
        let access = NewAccess {
            user,
            session: session.id,
            tenant,
        };
        Ok(Some((session.id, self.answer(clock, access, &refresh)?)))
    }

    /// Returns tokens as they are sent.
    pub(crate) fn answer(
        &self,
        clock: &SharedClock,
        access: NewAccess,
        refresh: &OpaqueToken,
    ) -> Result<Tokens, ApiError> {
        let (access_token, expires_in) = self.access_token(clock, access)?;
        Ok(Tokens {
            access_token,
            refresh_token: refresh.expose().to_owned(),
            token_type: "Bearer",
            expires_in,
        })
    }

    /// Issues an access token; returns it with its lifetime in seconds.
    pub(crate) fn access_token(
        &self,
        clock: &SharedClock,
        access: NewAccess,
    ) -> Result<(String, u64), ApiError> {
        let tokens = self.tokens()?;
        let token = tokens
            .issue(access, clock.now(), Uuid::new_v4())
            .map_err(|error| ApiError::internal(&error))?;
        Ok((token, tokens.life().as_secs()))
    }
}
