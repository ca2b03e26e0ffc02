//! Passwords: hashed with argon2id outside the async runtime's threads, and only a few at a time,
//! because each takes 19 MiB.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// Memory of one hash, in KiB.
const MEMORY: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes of one hash.
const LANES: u32 = 1;
/// The longest wait for a turn before the answer is "too busy".
const PATIENCE: Duration = Duration::from_secs(10);

/// The shortest password, in characters.
pub const MIN_CHARS: usize = 10;
/// The longest password, in bytes.
pub const MAX_BYTES: usize = 1_024;

/// A hasher and verifier of passwords.
#[derive(Debug, Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// The hash of a random password. An unknown user's password is compared with it, so that the
    /// answer takes as long.
    nobody: Arc<str>,
}

/// A reason for which a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many other passwords are being checked.
    #[error("too many passwords are being checked")]
    Busy,
    /// The algorithm refused.
    #[error("a password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    /// The task failed.
    #[error("a password's task failed")]
    Task(#[from] JoinError),
}

/// A reason for which a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Too short.
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    /// Too long.
    #[error("a password has at most {MAX_BYTES} bytes")]
    TooLong,
    /// It is the e-mail address.
    #[error("the password must not be the e-mail address")]
    IsEmail,
}

/// Checks a new password. Only its length counts; classes of characters do not.
///
/// # Errors
/// The reason for the refusal.
pub fn check_new(password: &str, email: &str) -> Result<(), Unacceptable> {
    if password.chars().count() < MIN_CHARS {
        Err(Unacceptable::TooShort)
    } else if password.len() > MAX_BYTES {
        Err(Unacceptable::TooLong)
    } else if password.eq_ignore_ascii_case(email) {
        Err(Unacceptable::IsEmail)
    } else {
        Ok(())
    }
}

fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &[u8], salt: [u8; 16]) -> Result<String, PasswordError> {
    argon2()
        .and_then(|argon2| argon2.hash_password_with_salt(password, &salt))
        .map(|hash| hash.to_string())
        .map_err(PasswordError::Hash)
}

/// Returns whether the password matches. None matches a hash that cannot be read.
fn fits_now(password: &[u8], hash: &str) -> bool {
    match (argon2(), PasswordHash::new(hash)) {
        (Ok(argon2), Ok(hash)) => argon2.verify_password(password, &hash).is_ok(),
        _ => false,
    }
}

impl Passwords {
    /// Makes a hasher with at most `parallel` hashes at a time; each takes a processor for some 20
    /// ms and 19 MiB. Computes one hash, of `random`.
    ///
    /// # Errors
    /// If the algorithm refuses its own parameters.
    pub fn new(parallel: usize, random: [u8; 32]) -> Result<Self, PasswordError> {
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[..16]);
        Ok(Self {
            turns: Arc::new(Semaphore::new(parallel.max(1))),
            nobody: hash_now(&random[16..], salt)?.into(),
        })
    }

    /// Returns the hash to store, in PHC form.
    ///
    /// # Errors
    /// If there is no turn in time, or the algorithm fails.
    pub async fn hash(&self, password: String, salt: [u8; 16]) -> Result<String, PasswordError> {
        self.in_turn(move || hash_now(password.as_bytes(), salt))
            .await?
    }

    /// Returns whether the password matches the hash. Without a hash (for an unknown user) it takes
    /// as long and returns false.
    ///
    /// # Errors
    /// If there is no turn in time.
    pub async fn fits(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        let nobody = Arc::clone(&self.nobody);
        self.in_turn(move || {
            let fits = fits_now(password.as_bytes(), hash.as_deref().unwrap_or(&nobody));
            fits && hash.is_some()
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(PasswordError::Busy);
        };
        // The work owns its turn: a client that disconnects frees it only when its hash is done.
        Ok(tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_and_nobody_has_one() {
        let passwords = Passwords::new(2, [3; 32]).unwrap();
        let hash = passwords
            .hash("correct horse".into(), [1; 16])
            .await
            .unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let fits = |password: &str, hash: Option<String>| {
            let (passwords, password) = (passwords.clone(), password.to_owned());
            async move { passwords.fits(password, hash).await.unwrap() }
        };
        assert!(fits("correct horse", Some(hash.clone())).await);
        assert!(!fits("wrong horse", Some(hash.clone())).await);
        assert!(!fits("correct horse", None).await);
        assert!(!fits("correct horse", Some("nonsense".into())).await);
        let other = passwords
            .hash("correct horse".into(), [2; 16])
            .await
            .unwrap();
        assert_ne!(hash, other);
    }

    #[tokio::test]
    async fn an_unknown_users_password_is_compared_with_nobodys_and_does_not_fit_even_if_it_is_it()
    {
        let passwords = Passwords::new(1, [b'a'; 32]).unwrap();
        assert!(!passwords.fits("a".repeat(16), None).await.unwrap());
    }

    #[test]
    fn length_is_what_counts() {
        assert_eq!(check_new("short", "a@b.c"), Err(Unacceptable::TooShort));
        assert_eq!(
            check_new(&"x".repeat(1_025), "a@b.c"),
            Err(Unacceptable::TooLong)
        );
        assert_eq!(
            check_new("ANNA@example.org", "anna@example.org"),
            Err(Unacceptable::IsEmail)
        );
        assert_eq!(check_new("ten chars.", "a@b.c"), Ok(()));
    }
}
