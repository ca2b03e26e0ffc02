//! The keys, passwords and rules for signing in.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_identity::{
    AccessTokens, KeyAlgorithm, PasswordError, Passwords, SigningKey, SuccessionKey, TokenRules,
};
use baton_service::config::{AuthConfig, Registration, SigningAlgorithm, weakness};

use crate::error::ApiError;

/// The state that all sign-in routes share.
pub(crate) struct SignIn {
    /// `None` if no key is configured: then people cannot sign in here.
    pub(crate) tokens: Option<AccessTokens>,
    /// The keys that derive each refresh token from the one before: first that of the key that
    /// signs, then those of its predecessors.
    pub(crate) succession: Vec<SuccessionKey>,
    pub(crate) passwords: Passwords,
    pub(crate) registration: Registration,
    pub(crate) session_life: Duration,
    pub(crate) invite_life: Duration,
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

    /// Returns the keys for tokens; refuses if people cannot sign in here.
    pub(crate) fn tokens(&self) -> Result<&AccessTokens, ApiError> {
        self.tokens.as_ref().ok_or_else(|| {
            ApiError::forbidden(
                "sign_in_off",
                "people cannot sign in here: the operator has configured no JWT_SECRET",
            )
        })
    }

    /// Returns the hash of a new password.
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
