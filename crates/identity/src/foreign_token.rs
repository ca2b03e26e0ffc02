//! Tokens of other issuers: their keys from a JWK set, and their claims unchanged.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::access_token::{TokenError, header, in_time, strict};

/// An algorithm that another issuer may use: only asymmetric ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum ForeignAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl ForeignAlgorithm {
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }

    const fn fits(self, key: &AlgorithmParameters) -> bool {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                matches!(key, AlgorithmParameters::RSA(_))
            }
            Self::Es256 | Self::Es384 => matches!(key, AlgorithmParameters::EllipticCurve(_)),
            Self::EdDsa => matches!(key, AlgorithmParameters::OctetKeyPair(_)),
        }
    }
}

/// The requirements for an issuer's tokens.
#[derive(Debug, Clone)]
pub struct ForeignRules {
    /// `iss`.
    pub issuer: String,
    /// `aud`, or one of its values.
    pub audience: String,
    /// The only algorithm.
    pub algorithm: ForeignAlgorithm,
    /// The accepted difference between clocks.
    pub leeway: Duration,
}

/// The claims of another issuer's token.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignClaims {
    /// The subject, in the issuer's words.
    pub subject: String,
    /// The time from which it is refused.
    pub expires_at: DateTime<Utc>,
    /// All claims.
    pub all: Map<String, Value>,
}

/// A reason for which a JWK set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJwks {
    /// Not a JWK set.
    #[error("this is no JWK set")]
    Unreadable(#[source] serde_json::Error),
    /// It has no key for the issuer's algorithm.
    #[error("the set has no key for the issuer's algorithm")]
    NoKey,
}

/// The keys of another issuer that fit its algorithm, by name.
pub struct ForeignKeys(BTreeMap<String, DecodingKey>);

impl std::fmt::Debug for ForeignKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Returns the key id that a token names.
pub fn key_id_of(token: &str) -> Option<String> {
    header(token).ok()?.kid
}

impl ForeignKeys {
    /// Reads a JWK set. Skips keys of another kind or purpose, keys without a name, and keys that
    /// this version cannot read.
    ///
    /// # Errors
    /// If it is no JWK set, or no key remains.
    pub fn read(json: &[u8], algorithm: ForeignAlgorithm) -> Result<Self, InvalidJwks> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }

        let set: Set = serde_json::from_slice(json).map_err(InvalidJwks::Unreadable)?;
        let keys: BTreeMap<_, _> = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter(|key| {
                matches!(
                    key.common.public_key_use,
                    None | Some(PublicKeyUse::Signature)
                ) && algorithm.fits(&key.algorithm)
            })
            .filter_map(|key| {
                Some((
                    key.common.key_id.clone()?,
                    DecodingKey::from_jwk(&key).ok()?,
                ))
            })
            .collect();
        if keys.is_empty() {
            return Err(InvalidJwks::NoKey);
        }
        Ok(Self(keys))
    }

    /// Returns whether there is a key of this name.
    pub fn knows(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// Returns the claims of a token, if the issuer signed it for us and it is valid at `now`.
    /// `nbf` is optional, because many issuers omit it.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn verify(
        &self,
        token: &str,
        rules: &ForeignRules,
        now: DateTime<Utc>,
    ) -> Result<ForeignClaims, TokenError> {
        let key = header(token)?
            .kid
            .and_then(|kid| self.0.get(&kid))
            .ok_or(TokenError::Key)?;
        let mut validation = strict(rules.algorithm.algorithm());
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.set_issuer(&[&rules.issuer]);
        validation.set_audience(&[&rules.audience]);
        let all = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation)?.claims;
        // An array of issuers identifies none of them.
        let text = |name: &str| all.get(name).and_then(Value::as_str);
        if text("iss") != Some(&rules.issuer) {
            return Err(TokenError::Claims);
        }
        let subject = text("sub").ok_or(TokenError::Claims)?.to_owned();
        let seconds = |name: &str| match all.get(name) {
            None => Ok(None),
            Some(value) => whole_seconds(value).map(Some).ok_or(TokenError::Claims),
        };
        let exp = seconds("exp")?.ok_or(TokenError::Claims)?;
        in_time(exp, seconds("nbf")?.unwrap_or(0), now, rules.leeway)?;
        let expires_at = i64::try_from(exp)
            .ok()
            .and_then(|exp| DateTime::from_timestamp(exp, 0))
            .ok_or(TokenError::Claims)?;
        Ok(ForeignClaims {
            subject,
            expires_at,
            all,
        })
    }
}

/// Reads a NumericDate, which may have a fraction.
fn whole_seconds(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..1e15).contains(seconds))?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|duration| duration.as_secs())
}
