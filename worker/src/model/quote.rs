//! Passes on an upstream's own words.

use baton_openai::ErrorObject;
use baton_service::Secret;

/// The longest text that is passed on, in characters.
const MAX_MESSAGE: usize = 500;

/// The length of the shortest key that is removed. A shorter one protects nothing, and occurs by
/// chance in unrelated words.
const MIN_KEY: usize = 8;

/// Truncates an upstream's words, and removes the key from them, because some upstreams repeat it.
#[derive(Debug)]
pub(super) struct Quote {
    secrets: Vec<Secret<String>>,
}

impl Quote {
    pub(super) fn new(secrets: impl IntoIterator<Item = Secret<String>>) -> Self {
        let secrets = secrets.into_iter();
        Self {
            secrets: secrets
                .filter(|secret| secret.expose().len() >= MIN_KEY)
                .collect(),
        }
    }

    pub(super) fn apply(&self, mut error: ErrorObject) -> ErrorObject {
        for key in &self.secrets {
            let clear = |text: &mut String| *text = text.replace(key.expose(), "[key]");
            clear(&mut error.message);
            clear(&mut error.kind);
            error.param.iter_mut().for_each(clear);
            error.code.iter_mut().for_each(clear);
        }
        if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE) {
            error.message.truncate(end);
            error.message.push('…');
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_letter_masks_nothing() {
        let quote = Quote::new(Some(Secret::new("x".to_owned())));
        let words = ErrorObject::new("x", "context_exceeded", "the next box");
        assert_eq!(quote.apply(words.clone()), words);
    }

    #[test]
    fn an_upstreams_words_are_cut_and_cleared_of_the_key() {
        let quote = Quote::new(Some(Secret::new("sk-very-secret".to_owned())));
        let words = format!("bad key sk-very-secret {}", "é".repeat(1_000));
        let quoted = quote.apply(ErrorObject::new("t", "c", words)).message;
        assert!(quoted.starts_with("bad key [key] éé"), "{quoted}");
        assert_eq!(quoted.chars().count(), MAX_MESSAGE + 1);
        let everywhere = ErrorObject {
            param: Some("sk-very-secret".to_owned()),
            ..ErrorObject::new("sk-very-secret", "sk-very-secret", "")
        };
        let quoted = quote.apply(everywhere);
        assert_eq!(
            (
                quoted.kind.as_str(),
                quoted.code.as_deref(),
                quoted.param.as_deref()
            ),
            ("[key]", Some("[key]"), Some("[key]"))
        );
    }
}
