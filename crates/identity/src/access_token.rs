//! Access tokens: signed JWTs of type `at+jwt` (RFC 9068) that live for minutes.
//!
//! Each key has one algorithm, from the configuration: the token's header selects a key by `kid`
//! and decides nothing else. Every claim is required and must have its exact type.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_protocol::{SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The header's `typ`, so that no other kind of JWT is accepted as an access token.
const TYPE: &str = "at+jwt";
/// The longest token, in bytes.
const LONGEST: usize = 8 * 1024;

/// An algorithm that signs our own tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// A secret that every server has.
    Hs256,
    /// An Ed25519 key pair with a published public half.
    EdDsa,
}

/// One of our own keys, as configured.
pub struct SigningKey<'a> {
    /// Its name in tokens; derived from the key if absent.
    pub kid: Option<&'a str>,
    /// Its only algorithm.
    pub algorithm: KeyAlgorithm,
    /// The bytes of the secret, or the private key in PEM (PKCS #8).
    pub secret: &'a [u8],
}

/// A reason for which a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No key is configured.
    #[error("there is no key to sign access tokens with")]
    None,
    /// Two have one name.
    #[error("two keys are named `{0}`")]
    SameName(String),
    /// It does not have the form of its algorithm.
    #[error(
        "the key `{kid}` cannot be read: an EdDSA key is an Ed25519 private key in PEM (PKCS #8)"
    )]
    Unreadable {
        /// Its name.
        kid: String,
        /// The cause.
        source: jsonwebtoken::errors::Error,
    },
}

/// The claims that every token must have.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The lifetime of a token.
    pub life: Duration,
    /// The accepted difference between clocks.
    pub leeway: Duration,
}

/// The claims of a new token.
#[derive(Debug, Clone, Copy)]
pub struct NewAccess {
    /// The person.
    pub user: UserId,
    /// The sign-in that it belongs to, and ends with.
    pub session: SessionId,
    /// The only tenant that its bearer acts for.
    pub tenant: TenantId,
}

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    iss: String,
    aud: String,
    /// The person.
    pub sub: UserId,
    /// The sign-in.
    pub sid: SessionId,
    /// The tenant.
    pub tenant: TenantId,
    /// The time from which it is refused, in seconds since 1970.
    pub exp: u64,
    nbf: u64,
    iat: u64,
    /// Its own id.
    pub jti: Uuid,
}

impl AccessClaims {
    /// Returns the time from which it is refused.
    pub fn expires_at(&self) -> DateTime<Utc> {
        i64::try_from(self.exp)
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// A reason for which a token is refused. For logs and metrics: the client learns only that it is
/// refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, or not of this type.
    #[error("this is no access token")]
    Malformed,
    /// It names no key of ours, or another algorithm than the key's.
    #[error("the token names no key of this server, or the wrong algorithm for it")]
    Key,
    /// The signature does not match.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing, or has another type or value.
    #[error("a claim of the token is missing or wrong")]
    Claims,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet")]
    TooEarly,
}

impl From<jsonwebtoken::errors::Error> for TokenError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Self::Key,
            ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience
            | ErrorKind::InvalidSubject
            | ErrorKind::InvalidClaimFormat(_)
            | ErrorKind::Json(_) => Self::Claims,
            _ => Self::Malformed,
        }
    }
}

struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
    public: Option<Jwk>,
}

/// An issuer and verifier of our own access tokens.
pub struct AccessTokens {
    rules: TokenRules,
    signing: (String, Algorithm, EncodingKey),
    keys: BTreeMap<String, Key>,
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokens")
            .field("rules", &self.rules)
            .field("keys", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// Makes an issuer. The first key signs; the others are accepted as long as tokens that they
    /// signed may exist.
    ///
    /// # Errors
    /// If there is no key, or one cannot be used.
    pub fn new(keys: &[SigningKey<'_>], rules: TokenRules) -> Result<Self, KeyError> {
        let mut signing = None;
        let mut known = BTreeMap::new();
        for key in keys {
            let (kid, key, encoding) = read(key)?;
            signing.get_or_insert((kid.clone(), key.algorithm, encoding));
            if known.insert(kid.clone(), key).is_some() {
                return Err(KeyError::SameName(kid));
            }
        }
        Ok(Self {
            rules,
            signing: signing.ok_or(KeyError::None)?,
            keys: known,
        })
    }

    /// Returns our issuer name, the claim `iss`.
    pub fn issuer(&self) -> &str {
        &self.rules.issuer
    }

    /// Returns the lifetime of a token.
    pub const fn life(&self) -> Duration {
        self.rules.life
    }

    /// Makes a token, signed by the first key.
    ///
    /// # Errors
    /// If the key cannot sign, which reading it has already checked.
    pub fn issue(
        &self,
        access: NewAccess,
        now: DateTime<Utc>,
        jti: Uuid,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let (kid, algorithm, key) = &self.signing;
        let now = u64::try_from(now.timestamp()).unwrap_or(0);
        let claims = AccessClaims {
            iss: self.rules.issuer.clone(),
            aud: self.rules.audience.clone(),
            sub: access.user,
            sid: access.session,
            tenant: access.tenant,
            exp: now + self.rules.life.as_secs(),
            nbf: now,
            iat: now,
            jti,
        };
        let mut header = Header::new(*algorithm);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(kid.clone());
        jsonwebtoken::encode(&header, &claims, key)
    }

    /// Returns the claims of a token, if it is ours and valid at `now`.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<AccessClaims, TokenError> {
        let header = header(token)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Malformed);
        }
        let key = header
            .kid
            .and_then(|kid| self.keys.get(&kid))
            .ok_or(TokenError::Key)?;
        let mut validation = strict(key.algorithm);
        validation.set_issuer(&[&self.rules.issuer]);
        validation.set_audience(&[&self.rules.audience]);
        let claims =
            jsonwebtoken::decode::<AccessClaims>(token, &key.decoding, &validation)?.claims;
        in_time(claims.exp, claims.nbf, now, self.rules.leeway)?;
        Ok(claims)
    }

    /// Returns the public keys as JWKs. Shared secrets have none.
    pub fn public_keys(&self) -> Vec<serde_json::Value> {
        self.keys
            .values()
            .filter_map(|key| serde_json::to_value(key.public.as_ref()?).ok())
            .collect()
    }
}

/// Returns a validation for one algorithm that requires every registered claim. [`in_time`] checks
/// times, because they are compared with a clock that is a parameter.
pub(crate) fn strict(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

/// Returns the header. Refuses critical extensions, because none is supported.
pub(crate) fn header(token: &str) -> Result<Header, TokenError> {
    within_bounds(token)?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() || header.extras.inner().contains_key("b64") {
        return Err(TokenError::Malformed);
    }
    Ok(header)
}

pub(crate) fn within_bounds(token: &str) -> Result<(), TokenError> {
    if token.len() <= LONGEST {
        Ok(())
    } else {
        Err(TokenError::Malformed)
    }
}

pub(crate) fn in_time(
    exp: u64,
    nbf: u64,
    now: DateTime<Utc>,
    leeway: Duration,
) -> Result<(), TokenError> {
    let now = u64::try_from(now.timestamp()).unwrap_or(0);
    let leeway = leeway.as_secs();
    if exp.saturating_add(leeway) <= now {
        Err(TokenError::Expired)
    } else if nbf > now.saturating_add(leeway) {
        Err(TokenError::TooEarly)
    } else {
        Ok(())
    }
}

fn read(given: &SigningKey<'_>) -> Result<(String, Key, EncodingKey), KeyError> {
    let unreadable = |source| KeyError::Unreadable {
        kid: given.kid.unwrap_or("?").to_owned(),
        source,
    };
    match given.algorithm {
        KeyAlgorithm::Hs256 => {
            let kid = given
                .kid
                .map_or_else(|| name_of_secret(given.secret), str::to_owned);
            let key = Key {
                algorithm: Algorithm::HS256,
                decoding: DecodingKey::from_secret(given.secret),
                public: None,
            };
            Ok((kid, key, EncodingKey::from_secret(given.secret)))
        }
        KeyAlgorithm::EdDsa => {
            let encoding = EncodingKey::from_ed_pem(given.secret).map_err(unreadable)?;
            let mut public =
                Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).map_err(unreadable)?;
            let decoding = DecodingKey::from_jwk(&public).map_err(unreadable)?;
            let kid = match given.kid {
                Some(kid) => kid.to_owned(),
                None => public
                    .thumbprint(ThumbprintHash::SHA256)
                    .map_err(unreadable)?,
            };
            public.common.key_id = Some(kid.clone());
            public.common.public_key_use = Some(PublicKeyUse::Signature);
            let key = Key {
                algorithm: Algorithm::EdDSA,
                decoding,
                public: Some(public),
            };
            Ok((kid, key, encoding))
        }
    }
}

/// Derives a name from a secret, which reveals nothing else about it.
fn name_of_secret(secret: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"baton key name v1\0");
    hash.update(secret);
    let digest: [u8; 32] = hash.finalize().into();
    let name = u64::from_be_bytes(std::array::from_fn(|i| digest[i]));
    format!("s-{name:016x}")
}

#[cfg(test)]
mod tests;
