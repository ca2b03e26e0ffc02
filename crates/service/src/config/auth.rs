//! Sign-in: the accepted tokens, and the rules for registration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::Secret;

/// `[auth]`: sign-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The key that signs access tokens (HS256), at least 32 bytes; `JWT_SECRET`. If `keys` is set,
    /// it signs nothing but is still accepted. Default: none; without it and `keys`, people cannot
    /// sign in.
    pub jwt_secret: Option<Secret<String>>,
    /// Keys instead of `jwt_secret`: the first signs, the others are still accepted. Default: none.
    pub keys: Vec<SigningKeyConfig>,
    /// The word in API keys that shows their purpose (`bt_<word>_…`), such as `live` or `staging`:
    /// at most 16 lower-case letters and digits. It is for people only, and nothing checks it.
    /// Default: live (`baton dev`: dev).
    pub key_environment: String,
    /// The `iss` of access tokens. Default: baton.
    pub issuer: String,
    /// The `aud` of access tokens. Default: baton.
    pub audience: String,
    /// The lifetime of an access token; at most 15m. Default: 10m.
    #[serde(with = "humantime_serde")]
    pub access_token_life: Duration,
    /// The time that a person stays signed in. Default: 30d.
    #[serde(with = "humantime_serde")]
    pub refresh_token_life: Duration,
    /// The accepted difference between the clocks of servers and issuers; at most 1m. Default: 30s.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// The rule for registration: `open`, everybody, each with a new tenant; `invited`, people with
    /// an invite; `closed`, nobody. Default: invited.
    pub registration: Registration,
    /// The lifetime of an invite. Default: 7d.
    #[serde(with = "humantime_serde")]
    pub invite_life: Duration,
    /// The most passwords that are checked at a time; each takes a processor for 20 ms, and 19 MiB.
    /// Default: 2.
    pub password_parallelism: usize,
    /// Other issuers of accepted tokens. Default: none.
    pub issuers: Vec<IssuerConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            jwt_secret: None,
            keys: Vec::new(),
            key_environment: "live".to_owned(),
            issuer: "baton".to_owned(),
            audience: "baton".to_owned(),
            access_token_life: Duration::from_mins(10),
            refresh_token_life: DAY * 30,
            leeway: Duration::from_secs(30),
            registration: Registration::Invited,
            invite_life: DAY * 7,
            password_parallelism: 2,
            issuers: Vec::new(),
        }
    }
}

/// The rule for registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody, each with a new tenant.
    Open,
    /// People with an invite.
    Invited,
    /// Nobody.
    Closed,
}

/// `[[auth.keys]]`: a key for access tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeyConfig {
    /// Its name in tokens. No default.
    pub kid: String,
    /// Its only algorithm: `EdDSA` or `HS256`. No default.
    pub algorithm: SigningAlgorithm,
    /// The secret, or an Ed25519 private key in PEM. One of this and `secret_file`.
    #[serde(default)]
    pub secret: Option<Secret<String>>,
    /// A file with the secret. One of this and `secret`.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// The algorithm that signs access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// A secret that every ingress has.
    #[serde(rename = "HS256")]
    Hs256,
    /// A key pair; `/.well-known/jwks.json` has its public half.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// `[[auth.issuers]]`: another issuer of accepted tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The `iss` of its tokens: its URL. No default.
    pub issuer: String,
    /// The `aud` that its tokens must have. No default.
    pub audience: String,
    /// The only accepted algorithm of its tokens. No default.
    pub algorithm: IssuerAlgorithm,
    /// The URL of its keys. Default: the one that `<issuer>/.well-known/openid-configuration`
    /// names.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The name of the tenant that its tokens are for. One of this and `tenant_claim`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The claim that names the tenant. One of this and `tenant`.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// The claim that holds a role, or a list with roles among other words. Default: none.
    #[serde(default)]
    pub role_claim: Option<String>,
    /// The role if no claim names one: `viewer`, `member` or `admin`. Default: viewer.
    #[serde(default = "viewer")]
    pub default_role: String,
}

fn viewer() -> String {
    "viewer".to_owned()
}

/// An algorithm of another issuer: only asymmetric ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum IssuerAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Words of examples that no random secret contains.
pub(super) const WELL_KNOWN: [&str; 10] = [
    "changeme",
    "change-me",
    "change_me",
    "secret",
    "password",
    "default",
    "example",
    "insecure",
    "placeholder",
    "development",
];

/// The shortest secret: 256 bits, the size of the hash.
const SECRET_BYTES: usize = 32;

/// Returns the reason why a secret is too weak to sign with, if it is.
pub fn weakness(secret: &str) -> Option<&'static str> {
    let mut bytes: Vec<u8> = secret.bytes().collect();
    bytes.sort_unstable();
    bytes.dedup();
    let lower = secret.to_ascii_lowercase();
    if secret.len() < SECRET_BYTES || bytes.len() < 8 {
        Some("is shorter than 32 bytes, or too plain")
    } else if WELL_KNOWN.iter().any(|word| lower.contains(word)) {
        Some("contains a word that stands in examples")
    } else {
        None
    }
}
