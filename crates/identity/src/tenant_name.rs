//! Names of tenants: one spelling each, in two name spaces.

use baton_protocol::TenantId;
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::{GeneralSecurityProfile as _, MixedScript as _, skeleton};

/// The first character of the name of every self-registered tenant, and of no other.
pub const SELF_MADE: char = '~';
/// The default tenant of operators' commands.
pub const USUAL_TENANT: &str = "default";
/// The most characters; a stored name has at most one more.
const LONGEST: usize = 190;

/// A tenant's name in its only spelling: NFKC, trimmed, case folded, of one script.
///
/// Operators give such names. The name of a self-registered tenant begins with [`SELF_MADE`]: no
/// operator's command finds it by name, and every display shows the mark.
///
/// ```
/// # use baton_identity::TenantName;
/// let name = TenantName::parse(" ACME GmbH ")?;
/// assert_eq!(name.as_str(), "acme gmbh");
/// assert_eq!(name.self_made(), "~acme gmbh");
/// assert!(TenantName::parse("g1obex")?.looks_like("globex"));
/// # Ok::<_, baton_identity::InvalidTenantName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantName(String);

/// A reason for which a text is not a tenant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantName {
    /// Empty, or too long.
    #[error("a tenant's name has 1 to {LONGEST} characters")]
    Length,
    /// A control character, an invisible one, or one that Unicode advises against in names.
    #[error("a tenant's name is made of letters, digits, spaces and ASCII punctuation")]
    Character,
    /// Letters of several scripts, which can look like those of one.
    #[error("a tenant's name is written in one script")]
    MixedScripts,
    /// The mark of another name space.
    #[error("a tenant's name does not begin with {SELF_MADE}")]
    Marked,
    /// A tenant's id, which would be read as that tenant.
    #[error("a tenant's name is not written like an id")]
    Id,
}

impl TenantName {
    /// Reads a name.
    pub fn parse(given: &str) -> Result<Self, InvalidTenantName> {
        // A longer text is not worth normalising.
        if given.chars().count() > 2 * LONGEST {
            return Err(InvalidTenantName::Length);
        }
        let name = fold(given);
        if name.is_empty() || name.chars().count() > LONGEST {
            return Err(InvalidTenantName::Length);
        }
        let allowed = |c: char| c == ' ' || c.is_ascii_graphic() || c.identifier_allowed();
        if !name.chars().all(allowed) {
            return Err(InvalidTenantName::Character);
        }
        if !name.as_str().is_single_script() {
            return Err(InvalidTenantName::MixedScripts);
        }
        if name.starts_with(SELF_MADE) {
            return Err(InvalidTenantName::Marked);
        }
        if name.parse::<TenantId>().is_ok() {
            return Err(InvalidTenantName::Id);
        }
        Ok(Self(name))
    }

    /// Returns the name that an operator gave.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of a self-registered tenant.
    pub fn self_made(&self) -> String {
        format!("{SELF_MADE}{}", self.0)
    }

    /// Returns whether a reader could mistake it for this stored name.
    pub fn looks_like(&self, stored: &str) -> bool {
        skeleton(&self.0).eq(skeleton(&fold(stored)))
    }
}

/// Applies NFKC and full case folding, which are stable after the second pass, and collapses
/// spaces.
fn fold(given: &str) -> String {
    let folded: String = caseless::default_case_fold_str(&given.nfkc().collect::<String>());
    let words: Vec<_> = folded.split_whitespace().collect();
    words.join(" ").nfkc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for spelling in [
            "Straße 7",
            " STRASSE  7 ",
            "ｓｔｒａｓｓｅ 7",
            "straſse\u{a0}7",
        ] {
            assert_eq!(TenantName::parse(spelling).unwrap().as_str(), "strasse 7");
        }
        assert_eq!(TenantName::parse("Ελλάδα").unwrap().as_str(), "ελλάδα");
        assert_eq!(
            TenantName::parse("東京タワー").unwrap().as_str(),
            "東京タワー"
        );
    }

    #[test]
    fn a_name_that_could_be_taken_for_another_is_refused_or_seen() {
        use InvalidTenantName::*;
        for (name, why) in [
            ("", Length),
            ("  ", Length),
            (&"x".repeat(191), Length),
            (&"x".repeat(100_000), Length),
            ("\u{fdfa}".repeat(20).as_str(), Length),
            ("a\u{200b}b", Character),
            ("a\u{202e}b", Character),
            ("a\nb\u{1b}", Character),
            ("d\u{435}fault", MixedScripts),
            ("gl\u{3bf}bex", MixedScripts),
            ("~acme", Marked),
            (" \u{ff5e}acme", Marked),
            ("01890000-0000-7000-8000-000000000000", Id),
        ] {
            assert_eq!(TenantName::parse(name).unwrap_err(), why, "{name:?}");
        }
        // All letters are Cyrillic.
        assert!(
            TenantName::parse("\u{441}\u{43e}\u{440}")
                .unwrap()
                .looks_like("cop")
        );
        for other in ["defau1t", "DEFAULT", "default"] {
            assert!(
                TenantName::parse(other).unwrap().looks_like("Default"),
                "{other}"
            );
        }
        assert!(!TenantName::parse("defaults").unwrap().looks_like("default"));
    }

    proptest! {
        #[test]
        fn a_parsed_name_parses_to_itself(given in "\\PC{0,40}") {
            if let Ok(name) = TenantName::parse(&given) {
                let again = TenantName::parse(name.as_str()).unwrap();
                prop_assert_eq!(&again, &name);
                prop_assert!(name.looks_like(again.as_str()));
                prop_assert!(name.self_made().chars().count() <= 200);
            }
        }
    }
}
