//! API keys as text: `bt_<environment>_<random>_<checksum>`.
//!
//! The checksum distinguishes a mistyped key, or a string that only looks like one, from a real one
//! without a query. The prefix lets secret scanners recognise it. Only the SHA-256 of the whole
//! text is stored: 256 random bits need no stretching.

use sha2::{Digest, Sha256};

use crate::secret_text::{CHECKSUM_CHARS, RANDOM_CHARS, checksum, is_random_part, random_part};

/// An API key in clear: shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// A string that is not an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: it has the form bt_<environment>_<random>_<checksum>")]
pub struct InvalidApiKey;

impl ApiKey {
    /// Makes a key of 32 random bytes from a secure source. `environment` is a word such as `live`,
    /// 1 to 16 lower-case letters or digits.
    pub fn from_random(environment: &str, random: [u8; 32]) -> Result<Self, InvalidApiKey> {
        if !valid_environment(environment) {
            return Err(InvalidApiKey);
        }
        let body = format!("bt_{environment}_{}", random_part(random));
        let checksum = checksum(&body);
        Ok(Self(format!("{body}_{checksum}")))
    }

    /// Reads a key that a client sent. Cheap: it allocates only the key, and queries nothing.
    pub fn parse(given: &str) -> Result<Self, InvalidApiKey> {
        let (body, given_checksum) = given.rsplit_once('_').ok_or(InvalidApiKey)?;
        let mut parts = body.splitn(3, '_');
        let well_formed = parts.next() == Some("bt")
            && parts.next().is_some_and(valid_environment)
            && parts.next().is_some_and(is_random_part);
        if !well_formed || checksum(body) != given_checksum {
            return Err(InvalidApiKey);
        }
        Ok(Self(given.to_owned()))
    }

    /// Returns the key in clear.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the hash that is stored and looked up.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Returns the part for lists: enough to recognise the key, too little to use it.
    pub fn hint(&self) -> &str {
        let end = self.0.len() - CHECKSUM_CHARS - 1 - RANDOM_CHARS + 4;
        &self.0[..end]
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({}…)", self.hint())
    }
}

fn valid_environment(environment: &str) -> bool {
    (1..=16).contains(&environment.len())
        && environment
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey::from_random(
            "live",
            std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap()),
        )
        .unwrap()
    }

    #[test]
    fn a_made_key_reads_back() {
        let key = key();
        assert_eq!(ApiKey::parse(key.expose()).unwrap(), key);
        let smallest = ApiKey::from_random("t", [0; 32]).unwrap();
        assert_eq!(
            ApiKey::parse(smallest.expose()).unwrap().hash(),
            smallest.hash()
        );
        assert_ne!(key.hash(), smallest.hash());
    }

    #[test]
    fn a_mistyped_key_is_refused_without_a_look_up() {
        let key = key();
        let good = key.expose();
        for at in 0..good.len() {
            let mut bad = good.as_bytes().to_vec();
            bad[at] = if bad[at] == b'x' { b'y' } else { b'x' };
            assert!(
                ApiKey::parse(std::str::from_utf8(&bad).unwrap()).is_err(),
                "at {at}"
            );
        }
        for bad in [
            "",
            "bt",
            "bt___",
            "sk-abc",
            "bt_live_abc_000000",
            &good[..good.len() - 1],
        ] {
            assert!(ApiKey::parse(bad).is_err(), "{bad}");
        }
        assert!(ApiKey::from_random("Live!", [1; 32]).is_err());
    }

    #[test]
    fn debugging_shows_no_secret() {
        let key = key();
        let shown = format!("{key:?}");
        assert!(!shown.contains(key.expose()));
        assert!(key.hint().len() < 16, "{}", key.hint());
    }
}
