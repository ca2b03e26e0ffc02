//! The checks of a new API key's scopes, lists and limits: the same for every way to make one.

use crate::scopes::{ALL_SCOPES, SCOPES};

/// The highest limit of tokens, or of millionths of a currency unit; a billionth of one still fits
/// into the ledger's numbers.
const MOST: u64 = 9_000_000_000_000_000;
/// The most names in one list of a key.
pub const LONGEST_LIST: usize = 200;

/// The rights that a new key is to have.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyRights<'a> {
    /// Scopes; `*` is all.
    pub scopes: &'a [String],
    /// The models it may name; `None` for all.
    pub models: Option<&'a [String]>,
    /// The server-side tools it may use; `None` for all.
    pub tools: Option<&'a [String]>,
    /// Limits of requests per minute, requests per day and concurrent runs.
    pub counts: [Option<u32>; 3],
    /// Limits per month, of tokens and of millionths of a currency unit.
    pub monthly: [Option<u64>; 2],
}

/// Rights that no key can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRights {
    /// A scope has no meaning.
    #[error("`{0}` is no scope: they are {known}, and * for all", known = SCOPES.join(", "))]
    UnknownScope(String),
    /// A list is too long, or holds a name that nothing can have.
    #[error("`{0}` holds at most {LONGEST_LIST} names of 1 to 200 bytes")]
    List(&'static str),
    /// A limit is zero or too high.
    #[error("a limit is at least 1, and below 2^31; of tokens and cost at most 9e15")]
    Limit,
}

impl KeyRights<'_> {
    /// Checks names and numbers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidKeyRights> {
        let known = |scope: &&String| *scope == ALL_SCOPES || SCOPES.contains(&scope.as_str());
        if let Some(unknown) = self.scopes.iter().find(|scope| !known(scope)) {
            return Err(InvalidKeyRights::UnknownScope(unknown.clone()));
        }
        for (field, list) in [
            ("scopes", Some(self.scopes)),
            ("models", self.models),
            ("tools", self.tools),
        ] {
            if !list.is_none_or(fits) {
                return Err(InvalidKeyRights::List(field));
            }
        }
        let in_range = self
            .counts
            .into_iter()
            .flatten()
            .all(|limit| (1..=i32::MAX as u32).contains(&limit))
            && self
                .monthly
                .into_iter()
                .flatten()
                .all(|limit| (1..=MOST).contains(&limit));
        if in_range {
            Ok(())
        } else {
            Err(InvalidKeyRights::Limit)
        }
    }
}

fn fits(list: &[String]) -> bool {
    list.len() <= LONGEST_LIST
        && list.iter().all(|name| {
            !name.is_empty() && name.len() <= 200 && !name.chars().any(char::is_control)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scopes_and_limits_in_range_pass() {
        let scopes = ["*".to_owned(), "runs:read".to_owned()];
        let rights = KeyRights {
            scopes: &scopes,
            counts: [Some(1), None, Some(i32::MAX as u32)],
            monthly: [Some(MOST), None],
            ..KeyRights::default()
        };
        assert_eq!(rights.check(), Ok(()));
    }

    #[test]
    fn the_first_wrong_right_is_named() {
        let word = ["runs:red".to_owned()];
        let rights = KeyRights {
            scopes: &word,
            ..KeyRights::default()
        };
        assert_eq!(
            rights.check(),
            Err(InvalidKeyRights::UnknownScope(word[0].clone()))
        );
        for name in [String::new(), "a".repeat(201), "a\n".to_owned()] {
            let tools = [name];
            let rights = KeyRights {
                tools: Some(&tools),
                ..KeyRights::default()
            };
            assert_eq!(rights.check(), Err(InvalidKeyRights::List("tools")));
        }
        let models = vec!["m".to_owned(); LONGEST_LIST + 1];
        let rights = KeyRights {
            models: Some(&models),
            ..KeyRights::default()
        };
        assert_eq!(rights.check(), Err(InvalidKeyRights::List("models")));
        for (counts, monthly) in [
            ([Some(0), None, None], [None, None]),
            ([None, None, Some(1 << 31)], [None, None]),
            ([None; 3], [None, Some(0)]),
            ([None; 3], [Some(MOST + 1), None]),
        ] {
            let rights = KeyRights {
                counts,
                monthly,
                ..KeyRights::default()
            };
            assert_eq!(rights.check(), Err(InvalidKeyRights::Limit));
        }
    }
}
