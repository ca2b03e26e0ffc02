//! Patterns of model names.

/// A model name, or a pattern with one `*` for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    before: String,
    /// The text after the `*`; none without one.
    after: Option<String>,
}

impl Pattern {
    /// Reads a pattern; `None` if it is empty or has several `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = match text.split_once('*') {
            None => (text, None),
            Some((before, after)) => (before, Some(after.to_owned())),
        };
        let is_valid = !text.is_empty() && after.as_ref().is_none_or(|rest| !rest.contains('*'));
        is_valid.then(|| Self {
            before: before.to_owned(),
            after,
        })
    }

    /// Returns the name if the pattern is one.
    pub fn name(&self) -> Option<&str> {
        self.after.is_none().then_some(&*self.before)
    }

    /// Returns the part of a name that the `*` matches, which is empty without one; `None` if the name
    /// does not match.
    pub fn matched<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = name.strip_prefix(&*self.before)?;
        match &self.after {
            None => rest.is_empty().then_some(rest),
            Some(after) => rest.strip_suffix(&**after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, name, matched) in [
            ("gpt-4o", "gpt-4o", Some("")),
            ("gpt-4o", "gpt-4o-mini", None),
            ("*", "any/model", Some("any/model")),
            ("gpt-*", "gpt-4o", Some("4o")),
            ("gpt-*", "gpt-", Some("")),
            ("gpt-*", "claude", None),
            ("*-mini", "gpt-4o-mini", Some("gpt-4o")),
            ("a*a", "a", None),
            ("openai/*", "openai/gpt", Some("gpt")),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.matched(name), matched, "{pattern} {name}");
        }
        assert_eq!(Pattern::parse(""), None);
        assert_eq!(Pattern::parse("a*b*"), None);
    }
}
