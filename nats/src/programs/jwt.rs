//! JWTs in nats-server's own form: signed by nkeys, with `alg` `ed25519-nkey`.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The only algorithm.
const ALGORITHM: &str = "ed25519-nkey";

/// A reason for which a seed belongs to no issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// It cannot be read.
    #[error("this is no seed: {0}")]
    Unreadable(#[from] nkeys::error::Error),
    /// It is the seed of another kind of key.
    #[error("the seed of an issuer begins with SA; this is one of another kind")]
    OtherKind,
}

/// The issuer that signs programs' permissions. The server's configuration names its public key.
pub struct Issuer(KeyPair);

impl Issuer {
    /// Makes a new one.
    pub fn generate() -> Self {
        Self(KeyPair::new_account())
    }

    /// Returns the issuer with this seed, `SA…`.
    pub fn from_seed(seed: &str) -> Result<Self, IssuerError> {
        let pair = KeyPair::from_seed(seed.trim())?;
        match pair.key_pair_type() {
            KeyPairType::Account => Ok(Self(pair)),
            _ => Err(IssuerError::OtherKind),
        }
    }

    /// Returns the public key, `A…`.
    pub fn public_key(&self) -> String {
        self.0.public_key()
    }

    /// Returns the seed. A holder of the seed can admit anyone.
    pub fn seed(&self) -> Result<String, IssuerError> {
        Ok(self.0.seed()?)
    }

    /// Returns the claims as a signed token.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, EncodeError> {
        let head = serde_json::json!({"typ": "JWT", "alg": ALGORITHM});
        let mut token = BASE64URL_NOPAD.encode(&serde_json::to_vec(&head)?);
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&serde_json::to_vec(claims)?));
        let signature = self.0.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&signature));
        Ok(token)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.public_key())
    }
}

/// A reason for which a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The claims have no JSON form.
    #[error("claims cannot be written: {0}")]
    Claims(#[from] serde_json::Error),
    /// The key cannot sign.
    #[error("the issuer's key does not sign: {0}")]
    Sign(#[from] nkeys::error::Error),
}

/// A reason for which a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not have three parts of base64url with JSON in two of them.
    #[error("it is no token")]
    Form,
    /// It is signed with another algorithm.
    #[error("it is signed in another way than {ALGORITHM}")]
    Algorithm,
    /// Its issuer is of a kind that may not make this claim.
    #[error("its issuer is no server")]
    Issuer,
    /// Its signature does not match its issuer.
    #[error("its signature is wrong")]
    Signature,
}

/// Returns the claims of a token signed by a server; `iss` is that server. Checks neither its
/// audience nor its expiry.
pub(crate) fn signed_by_server<T: DeserializeOwned>(token: &str) -> Result<T, DecodeError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(DecodeError::Form)?;
    let (head, claims) = signed.split_once('.').ok_or(DecodeError::Form)?;
    let decode = |part: &str| {
        BASE64URL_NOPAD
            .decode(part.as_bytes())
            .map_err(|_| DecodeError::Form)
    };
    let json = |part: &str| -> Result<Value, DecodeError> {
        serde_json::from_slice(&decode(part)?).map_err(|_| DecodeError::Form)
    };
    if json(head)?["alg"] != ALGORITHM {
        return Err(DecodeError::Algorithm);
    }
    let claims = json(claims)?;
    let issuer = claims["iss"].as_str().unwrap_or_default();
    let server = KeyPair::from_public_key(issuer).map_err(|_| DecodeError::Issuer)?;
    if server.key_pair_type() != KeyPairType::Server {
        return Err(DecodeError::Issuer);
    }
    server
        .verify(signed.as_bytes(), &decode(signature)?)
        .map_err(|_| DecodeError::Signature)?;
    serde_json::from_value(claims).map_err(|_| DecodeError::Form)
}

#[cfg(test)]
impl Issuer {
    /// Wraps a key of another kind, such as a server's.
    pub(crate) fn of(pair: KeyPair) -> Self {
        Self(pair)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(pair: KeyPair, claims: &Value) -> String {
        Issuer::of(pair).sign(claims).unwrap()
    }

    #[test]
    fn a_token_is_believed_if_the_server_that_it_names_has_signed_it() {
        let server = KeyPair::new_server();
        let claims = json!({"iss": server.public_key(), "x": 1});
        let good = token(server, &claims);
        assert_eq!(signed_by_server::<Value>(&good).unwrap(), claims);

        let forged = token(KeyPair::new_server(), &claims);
        assert!(matches!(
            signed_by_server::<Value>(&forged),
            Err(DecodeError::Signature)
        ));
        let account = KeyPair::new_account();
        let claims = json!({"iss": account.public_key()});
        let other = token(account, &claims);
        assert!(matches!(
            signed_by_server::<Value>(&other),
            Err(DecodeError::Issuer)
        ));
        let (head, rest) = good.split_once('.').unwrap();
        let none = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
        assert!(matches!(
            signed_by_server::<Value>(&format!("{none}.{rest}")),
            Err(DecodeError::Algorithm)
        ));
        for bad in ["", "a.b", "a.b.c", &format!("{head}.{rest}=")] {
            assert!(signed_by_server::<Value>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_is_known_by_its_seed_and_shown_without_it() {
        let issuer = Issuer::generate();
        let seed = issuer.seed().unwrap();
        let again = Issuer::from_seed(&format!("{seed}\n")).unwrap();
        assert_eq!(again.public_key(), issuer.public_key());
        assert!(!format!("{issuer:?}").contains(&seed));
        let user = KeyPair::new_user().seed().unwrap();
        assert!(matches!(
            Issuer::from_seed(&user),
            Err(IssuerError::OtherKind)
        ));
        assert!(Issuer::from_seed("SAnonsense").is_err());
    }
}
