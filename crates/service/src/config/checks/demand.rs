//! Demands on values, and the origin that a mistake names.

use std::collections::BTreeSet;

use super::super::mistake::{Mistake, Origin, Origins};

/// The configuration's origins, and the mistakes found so far.
pub(super) struct Checks<'a> {
    pub(super) origins: &'a Origins,
    pub(super) refused: &'a BTreeSet<(String, String)>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Checks<'_> {
    /// Records a mistake unless `holds`. It names the first of `keys` that was set. If one of them
    /// was already refused, it records nothing, because the compared value is then only a default.
    pub(super) fn demand(
        &mut self,
        holds: bool,
        keys: &[(&str, &str)],
        message: String,
        instead: &str,
    ) {
        let owned = |(section, key): &(&str, &str)| ((*section).to_owned(), (*key).to_owned());
        if holds || keys.iter().any(|key| self.refused.contains(&owned(key))) {
            return;
        }
        let origin = keys.iter().find_map(|key| self.origins.get(&owned(key)));
        self.mistakes.push(Mistake {
            origin: origin.cloned().unwrap_or(Origin::Default),
            message,
            instead: Some(instead.to_owned()),
        });
    }

    pub(super) fn positive<T: PartialOrd + Default>(
        &mut self,
        section: &str,
        key: &str,
        value: &T,
    ) {
        let message = format!("{section}.{key} must be more than 0");
        self.demand(
            *value > T::default(),
            &[(section, key)],
            message,
            "write a positive value",
        );
    }

    pub(super) fn url(&mut self, section: &str, key: &str, value: Option<&str>, schemes: &[&str]) {
        let Some(value) = value else { return };
        // `nats.url` may have several, separated by commas.
        let holds = value.split(',').all(|url| {
            let parts = url.trim().split_once("://");
            parts.is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
        });
        let message = format!(
            "{section}.{key} is not a URL that begins with {}://",
            schemes[0]
        );
        let instead = format!("write for example {}://localhost", schemes[0]);
        self.demand(holds, &[(section, key)], message, &instead);
    }
}
