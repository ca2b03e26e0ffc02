//! Encryption of servers' questions, so that only ingresses can read them.
//!
//! A question contains the key that a program connects with. With `xkey` in its configuration, a
//! server seals it for that curve key, and names its own key in a header.

use std::fmt;

use nkeys::XKey;

/// The header with the key that the server sealed with.
pub(crate) const SEALED_BY: &str = "Nats-Server-Xkey";

/// A seed that belongs to no curve key.
#[derive(Debug, thiserror::Error)]
#[error("this is no seed of a curve key, which begins with SX: {0}")]
pub struct CurveError(#[from] nkeys::error::Error);

/// A reason for which a question cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is sealed, and this ingress has no curve key.
    #[error("it is encrypted, and nats.callout_xkey_seed is not set")]
    Sealed,
    /// It is sealed for or by another key, or it is no sealed question.
    #[error(
        "it cannot be decrypted: is nats.callout_xkey_seed the other half of the server's xkey? {0}"
    )]
    Unsealable(#[source] nkeys::error::Error),
    /// It is not sealed, and this ingress has a curve key.
    #[error("it is not encrypted: nats-server has no xkey, or somebody else asks")]
    Open,
}

/// The key that servers seal their questions for. Their configuration names its public half.
#[derive(Clone)]
pub struct CurveKey(XKey);

impl CurveKey {
    /// Makes a new one.
    pub fn generate() -> Self {
        Self(XKey::new())
    }

    /// Returns the key with this seed, `SX…`.
    pub fn from_seed(seed: &str) -> Result<Self, CurveError> {
        Ok(Self(XKey::from_seed(seed.trim())?))
    }

    /// Returns the public half, `X…`.
    pub fn public_key(&self) -> String {
        self.0.public_key()
    }

    /// Returns the seed. A reader of the seed can read servers' questions.
    pub fn seed(&self) -> Result<String, CurveError> {
        Ok(self.0.seed()?)
    }
}

impl fmt::Debug for CurveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurveKey({})", self.public_key())
    }
}

/// The keys that seal the answer to a sealed question.
#[derive(Debug, Clone)]
pub(crate) struct Seal {
    own: CurveKey,
    server: XKey,
    pub(crate) server_key: String,
}

impl Seal {
    pub(crate) fn close(&self, answer: &str) -> Result<Vec<u8>, nkeys::error::Error> {
        self.own.0.seal(answer.as_bytes(), &self.server)
    }
}

/// Returns the question in a message, and the seal for its answer. With a curve key, an ingress
/// refuses unsealed questions; without one, it cannot read sealed ones.
pub(crate) fn open(
    payload: &[u8],
    sealed_by: Option<&str>,
    own: Option<&CurveKey>,
) -> Result<(Vec<u8>, Option<Seal>), SealError> {
    match (own, sealed_by) {
        (None, None) => Ok((payload.to_vec(), None)),
        (None, Some(_)) => Err(SealError::Sealed),
        (Some(_), None) => Err(SealError::Open),
        (Some(own), Some(server_key)) => {
            let server = XKey::from_public_key(server_key).map_err(SealError::Unsealable)?;
            let question = own.0.open(payload, &server);
            let seal = Seal {
                own: own.clone(),
                server,
                server_key: server_key.to_owned(),
            };
            Ok((question.map_err(SealError::Unsealable)?, Some(seal)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_key_is_known_by_its_seed_and_shown_without_it() {
        let key = CurveKey::generate();
        let seed = key.seed().unwrap();
        let again = CurveKey::from_seed(&format!("{seed}\n")).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert!(!format!("{key:?}").contains(&seed));
        let issuer = crate::Issuer::generate().seed().unwrap();
        assert!(CurveKey::from_seed(&issuer).is_err());
    }

    #[test]
    fn what_was_sealed_for_another_or_by_another_is_not_opened() {
        let (own, server) = (CurveKey::generate(), XKey::new());
        let sealed = server.seal(b"who?", &own.0).unwrap();
        let by = server.public_key();
        let (question, seal) = open(&sealed, Some(&by), Some(&own)).unwrap();
        assert_eq!(question, b"who?");
        let answer = seal.unwrap().close("anna").unwrap();
        assert_eq!(server.open(&answer, &own.0).unwrap(), b"anna");

        let other = CurveKey::generate();
        let refused = open(&sealed, Some(&by), Some(&other));
        assert!(matches!(refused, Err(SealError::Unsealable(_))));
        let refused = open(&sealed, Some(&other.public_key()), Some(&own));
        assert!(matches!(refused, Err(SealError::Unsealable(_))));
        let refused = open(b"who?", None, Some(&own));
        assert!(matches!(refused, Err(SealError::Open)));
        let refused = open(&sealed, Some(&by), None);
        assert!(matches!(refused, Err(SealError::Sealed)));
    }
}
