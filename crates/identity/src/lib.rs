//! Credentials as values: API keys, passwords, access tokens, refresh tokens and one-time tokens;
//! and names of tenants. Nothing here queries a database or a network; time and randomness are
//! parameters.
//!
//! ```text
//! API key          bt_<environment>_<random>_<checksum>   a machine; stored as SHA-256
//! access token     a JWT, for minutes                      a person, or another issuer's subject
//! refresh token    br_<random>_<checksum>                  the next access token; single use
//! one-time tokens  bi_…, bp_…, bb_…                        join, reset a password, bootstrap
//! ```

mod access_token;
mod api_key;
mod foreign_token;
mod key_rights;
mod opaque_token;
mod password;
pub mod scopes;
mod secret_text;
mod tenant_name;

pub use access_token::{
    AccessClaims, AccessTokens, KeyAlgorithm, KeyError, NewAccess, SigningKey, TokenError,
    TokenRules,
};
pub use api_key::{ApiKey, InvalidApiKey};
pub use foreign_token::{
    ForeignAlgorithm, ForeignClaims, ForeignKeys, ForeignRules, InvalidJwks, key_id_of,
};
pub use key_rights::{InvalidKeyRights, KeyRights, LONGEST_LIST};
pub use opaque_token::{InvalidToken, OpaqueToken, SuccessionKey, TokenKind};
pub use password::{
    MAX_BYTES as MAX_PASSWORD_BYTES, MIN_CHARS as MIN_PASSWORD_CHARS, PasswordError, Passwords,
    Unacceptable, check_new as check_new_password,
};
pub use tenant_name::{InvalidTenantName, SELF_MADE, TenantName, USUAL_TENANT};

/// Returns the issuer that a token claims, without verification. Use it only to choose between
/// known issuers' keys.
pub fn issuer_of(token: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Peek {
        iss: String,
    }

    access_token::within_bounds(token).ok()?;
    jsonwebtoken::dangerous::insecure_decode_claims::<Peek>(token)
        .ok()
        .map(|peek| peek.iss)
}
