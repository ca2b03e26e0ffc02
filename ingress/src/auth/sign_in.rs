//! What signing in needs: keys for tokens, passwords, and rules.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_identity::{
    AccessTokens, KeyAlgorithm, NewAccess, OpaqueToken, PasswordError, Passwords, SigningKey,
    SuccessionKey, TokenKind, TokenRules,
};
use baton_protocol::{SessionId, TenantId, UserId};
use baton_service::config::{AuthConfig, Registration, SigningAlgorithm, weakness};
use baton_store::{NewSession, TryRate};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::origin::Origin;
use crate::error::ApiError;
use crate::state::AppState;

/// Tries of a password for one account from one address.
const ACCOUNT_TRIES: TryRate = TryRate {
    burst: 10,
    every: Duration::from_secs(30),
};
/// Tries from one address for whatever account.
const ADDRESS_TRIES: TryRate = TryRate {
    burst: 100,
    every: Duration::from_secs(1),
};

/// Refusals from one network of somebody whom nobody knows that are recorded.
const STRANGERS: TryRate = TryRate {
    burst: 20,
    every: Duration::from_secs(30),
};

/// See the module.
pub(crate) struct SignIn {
    /// `None` where no key is configured: then people cannot sign in here.
    pub(crate) tokens: Option<AccessTokens>,
    /// By the key that signs, then by those before it.
    pub(crate) succession: Vec<SuccessionKey>,
    pub(crate) passwords: Passwords,
    pub(crate) registration: Registration,
    pub(crate) session_life: Duration,
    pub(crate) invite_life: Duration,
}

/// Tokens of a session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// For `Authorization: Bearer`; names one tenant.
    access_token: String,
    /// For `/v1/auth/refresh`, once: the answer has the next one.
    refresh_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// How long the access token is good for, in seconds.
    expires_in: u64,
}

impl SignIn {
    /// Reads the keys, and computes one password hash.
    pub(crate) fn new(config: &AuthConfig) -> anyhow::Result<Self> {
        let mut secrets = Vec::new();
        for key in &config.keys {
            let secret = match (&key.secret, &key.secret_file) {
                (Some(secret), _) => secret.expose().clone(),
                (None, Some(path)) => std::fs::read_to_string(path)
                    .with_context(|| format!("{} cannot be read", path.display()))?
                    .trim_end()
                    .to_owned(),
                (None, None) => bail!("the key `{}` has no secret", key.kid),
            };
            if key.algorithm == SigningAlgorithm::Hs256
                && let Some(weakness) = weakness(&secret)
            {
                bail!("the secret of the key `{}` {weakness}", key.kid);
            }
            let algorithm = match key.algorithm {
                SigningAlgorithm::Hs256 => KeyAlgorithm::Hs256,
                SigningAlgorithm::EdDsa => KeyAlgorithm::EdDsa,
            };
            secrets.push((Some(key.kid.as_str()), algorithm, secret));
        }
        if let Some(secret) = &config.jwt_secret {
            secrets.push((None, KeyAlgorithm::Hs256, secret.expose().clone()));
        }
        let keys: Vec<_> = secrets
            .iter()
            .map(|(kid, algorithm, secret)| SigningKey {
                kid: *kid,
                algorithm: *algorithm,
                secret: secret.as_bytes(),
            })
            .collect();
        let rules = TokenRules {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            life: config.access_token_life,
            leeway: config.leeway,
        };
        let tokens = if keys.is_empty() {
            None
        } else {
            Some(AccessTokens::new(&keys, rules).context("auth.keys")?)
        };
        Ok(Self {
            tokens,
            succession: keys
                .iter()
                .map(|key| SuccessionKey::derive(key.secret))
                .collect(),
            passwords: Passwords::new(config.password_parallelism, rand::random())?,
            registration: config.registration,
            session_life: config.refresh_token_life,
            invite_life: config.invite_life,
        })
    }

    /// The keys for tokens, where people can sign in.
    pub(crate) fn tokens(&self) -> Result<&AccessTokens, ApiError> {
        self.tokens.as_ref().ok_or_else(|| {
            ApiError::forbidden(
                "sign_in_off",
                "people cannot sign in here: the operator has configured no JWT_SECRET",
            )
        })
    }

    /// A new session's tokens, or `None` if the person does not belong to the tenant.
    pub(crate) async fn open_session(
        &self,
        state: &AppState,
        user: UserId,
        tenant: TenantId,
        origin: &Origin,
    ) -> Result<Option<(SessionId, Tokens)>, ApiError> {
        let refresh = OpaqueToken::from_random(TokenKind::Refresh, rand::random());
        let session = NewSession {
            id: SessionId::new(state.clock.now()),
            user,
            tenant,
            token_hash: refresh.hash(),
            life: self.session_life,
            ip: origin.ip.clone(),
            user_agent: origin.user_agent.clone(),
        };
        if state.store.system().open_session(&session).await?.is_none() {
            return Ok(None);
        }
        let access = NewAccess {
            user,
            session: session.id,
            tenant,
        };
        Ok(Some((session.id, self.answer(state, access, &refresh)?)))
    }

    /// Tokens as they are sent.
    pub(crate) fn answer(
        &self,
        state: &AppState,
        access: NewAccess,
        refresh: &OpaqueToken,
    ) -> Result<Tokens, ApiError> {
        let (access_token, expires_in) = self.access_token(state, access)?;
        Ok(Tokens {
            access_token,
            refresh_token: refresh.expose().to_owned(),
            token_type: "Bearer",
            expires_in,
        })
    }

    /// An access token, and how many seconds it is good for.
    pub(crate) fn access_token(
        &self,
        state: &AppState,
        access: NewAccess,
    ) -> Result<(String, u64), ApiError> {
        let tokens = self.tokens()?;
        let token = tokens
            .issue(access, state.clock.now(), Uuid::new_v4())
            .map_err(|error| ApiError::internal(&error))?;
        Ok((token, tokens.life().as_secs()))
    }

    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        Ok(self.passwords.hash(password, rand::random()).await?)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                let message = "too many people are signing in: try again";
                Self::unavailable("sign_in_busy", message)
            }
            error => Self::internal(&error),
        }
    }
}

/// Counts a try of a password before it is made, so that many at the same moment count too. The
/// counts are in the ledger: every server sees them.
pub(crate) struct Try {
    account: [u8; 32],
}

impl Try {
    /// Counts it. Whether there is such an account makes no difference.
    pub(crate) async fn count(
        state: &AppState,
        email: &str,
        origin: &Origin,
    ) -> Result<Self, ApiError> {
        let network = origin.network.map(|network| network.to_string());
        let network = network.as_deref().unwrap_or_default();
        let account = throttle_key(&["account", network, email]);
        let system = state.store.system();
        for (key, rate) in [
            (throttle_key(&["address", network]), ADDRESS_TRIES),
            (account, ACCOUNT_TRIES),
        ] {
            if let Some(wait) = system.count_try(&key, rate).await? {
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX) + 1;
                return Err(ApiError::new(
                    http::StatusCode::TOO_MANY_REQUESTS,
                    "too_many_tries",
                    "too many tries: wait before the next",
                )
                .retry_after(seconds)
                .do_not_retry());
            }
        }
        Ok(Self { account })
    }

    /// It was the right password: this account's tries are forgotten.
    pub(crate) async fn succeeded(self, state: &AppState) -> Result<(), ApiError> {
        Ok(state.store.system().forget_tries(&self.account).await?)
    }
}

/// Whether one more refusal of somebody whom nobody knows belongs into the audit log: it grows by
/// what strangers do, and must not grow as fast as they can.
pub(crate) async fn is_worth_recording(
    state: &AppState,
    network: Option<IpAddr>,
) -> Result<bool, ApiError> {
    let network = network.map(|network| network.to_string());
    let key = throttle_key(&["stranger", network.as_deref().unwrap_or_default()]);
    let wait = state.store.system().count_try(&key, STRANGERS).await?;
    Ok(wait.is_none())
}

fn throttle_key(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}
