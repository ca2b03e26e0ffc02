//! Opaque tokens: refresh tokens and one-time tokens.
//!
//! Written `<prefix>_<random>_<checksum>`. Only the SHA-256 of the whole text is stored: 256 random
//! bits need no stretching.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::secret_text::{checksum, is_random_part, random_part};

/// The purpose of a token. Its prefix shows it, so that one kind is never accepted as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Gets the next access token of a session: `br_`.
    Refresh,
    /// Lets a person join a tenant: `bi_`.
    Invite,
    /// Sets a new password: `bp_`.
    PasswordReset,
    /// Makes the first user of a fresh server: `bb_`.
    Bootstrap,
    /// Opens the event stream of one run: `bs_`.
    StreamTicket,
}

impl TokenKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Refresh,
        Self::Invite,
        Self::PasswordReset,
        Self::Bootstrap,
        Self::StreamTicket,
    ];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "br",
            Self::Invite => "bi",
            Self::PasswordReset => "bp",
            Self::Bootstrap => "bb",
            Self::StreamTicket => "bs",
        }
    }
}

/// A token in clear: shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct OpaqueToken {
    kind: TokenKind,
    text: String,
}

/// A string that is not such a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this server: it has the form <prefix>_<random>_<checksum>")]
pub struct InvalidToken;

impl OpaqueToken {
    /// Makes a token of 32 random bytes from a secure source.
    pub fn from_random(kind: TokenKind, random: [u8; 32]) -> Self {
        let body = format!("{}_{}", kind.prefix(), random_part(random));
        let checksum = checksum(&body);
        Self {
            kind,
            text: format!("{body}_{checksum}"),
        }
    }

    /// Reads a token that a client sent.
    ///
    /// # Errors
    /// If it is malformed, because no look-up could find it.
    pub fn parse(given: &str) -> Result<Self, InvalidToken> {
        let (body, given_checksum) = given.rsplit_once('_').ok_or(InvalidToken)?;
        let (prefix, random) = body.split_once('_').ok_or(InvalidToken)?;
        let kind = TokenKind::ALL
            .into_iter()
            .find(|kind| kind.prefix() == prefix)
            .ok_or(InvalidToken)?;
        if !is_random_part(random) || checksum(body) != given_checksum {
            return Err(InvalidToken);
        }
        Ok(Self {
            kind,
            text: given.to_owned(),
        })
    }

    /// Reads a token of this kind.
    ///
    /// # Errors
    /// If it is malformed, or of another kind.
    pub fn parse_as(kind: TokenKind, given: &str) -> Result<Self, InvalidToken> {
        Self::parse(given).and_then(|token| {
            if token.kind == kind {
                Ok(token)
            } else {
                Err(InvalidToken)
            }
        })
    }

    /// Returns its purpose.
    pub const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Returns the token in clear.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the hash that is stored and looked up.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// Returns the refresh token after this one. It is a function of this token and of a key that
    /// only the servers have. So a client that repeats a refresh within its grace gets the same
    /// answer, although neither token is stored.
    #[must_use]
    pub fn successor(&self, key: &SuccessionKey) -> Self {
        let mut mac = key.0.clone();
        mac.update(self.text.as_bytes());
        Self::from_random(self.kind, mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpaqueToken({}_…)", self.kind.prefix())
    }
}

/// The key that derives each refresh token from the one before.
#[derive(Clone)]
pub struct SuccessionKey(Hmac<Sha256>);

impl SuccessionKey {
    /// Derives a key from a secret that also serves another purpose.
    pub fn derive(secret: &[u8]) -> Self {
        // A separate key, so that no signature is ever a refresh token.
        let mut hash = Sha256::new();
        hash.update(b"baton refresh token succession v1\0");
        hash.update(secret);
        // HMAC pads a short key with zeros to the size of a block.
        let mut key = [0; 64];
        key[..32].copy_from_slice(&hash.finalize());
        Self(Hmac::new(&key.into()))
    }
}

impl std::fmt::Debug for SuccessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SuccessionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_its_kind_alone() {
        for kind in TokenKind::ALL {
            let token = OpaqueToken::from_random(kind, [9; 32]);
            for other in TokenKind::ALL {
                let read = OpaqueToken::parse_as(other, token.expose());
                assert_eq!(read.is_ok(), other == kind, "{kind:?} as {other:?}");
            }
            assert!(!format!("{token:?}").contains(&token.expose()[3..]));
        }
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let token = OpaqueToken::from_random(TokenKind::Refresh, [200; 32]);
        for at in 0..token.expose().len() {
            let mut bad = token.expose().as_bytes().to_vec();
            bad[at] = if bad[at] == b'x' { b'y' } else { b'x' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(OpaqueToken::parse(&bad).is_err(), "at {at}");
        }
        for bad in ["", "br", "br__", "bt_live_abc_000000", "eyJhbGciOi.a.b"] {
            assert!(OpaqueToken::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_successor_is_the_same_for_the_same_key_and_another_for_any_other() {
        let token = OpaqueToken::from_random(TokenKind::Refresh, [1; 32]);
        let (key, other) = (SuccessionKey::derive(b"a"), SuccessionKey::derive(b"b"));
        assert_eq!(token.successor(&key), token.successor(&key));
        assert_ne!(token.successor(&key), token.successor(&other));
        assert_ne!(token.successor(&key), token);
        let next = token.successor(&key);
        assert_ne!(next.successor(&key), next);
        assert!(OpaqueToken::parse_as(TokenKind::Refresh, next.expose()).is_ok());
    }
}
