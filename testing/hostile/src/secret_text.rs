//! API keys and one-time tokens from any client.

use baton_identity::{ApiKey, OpaqueToken};

/// Checks that an accepted key or token is one of the specification, is written as it was read, and
/// shows no more than its hint. Everything that the specification allows is accepted.
pub fn secret_text(data: &[u8]) {
    let Ok(given) = std::str::from_utf8(data) else {
        return;
    };
    judge(given);
    // A fuzzer does not find a checksum by itself.
    if let Some((body, _)) = given.rsplit_once('_') {
        judge(&format!("{body}_{}", checksum(body)));
    }
}

fn judge(given: &str) {
    let key = ApiKey::parse(given);
    assert_eq!(key.is_ok(), is_key(given), "{given:?}");
    if let Ok(key) = key {
        assert_eq!(key.expose(), given);
        assert_eq!(
            ApiKey::parse(key.expose()).map(|key| key.hash()),
            Ok(key.hash())
        );
        assert!(given.starts_with(key.hint()));
        assert!(
            given.len() - key.hint().len() >= 40,
            "the hint says too much"
        );
        assert!(!format!("{key:?}").contains(given));
    }
    let token = OpaqueToken::parse(given);
    assert_eq!(token.is_ok(), is_token(given), "{given:?}");
    if let Ok(token) = token {
        assert_eq!(token.expose(), given);
        assert!(!format!("{token:?}").contains(given));
    }
}

/// Returns whether the text is `bt_<environment>_<random>_<checksum>`, as in docs/identity.md.
fn is_key(given: &str) -> bool {
    let parts: Vec<&str> = given.split('_').collect();
    let [prefix, environment, random, end] = parts[..] else {
        return false;
    };
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    prefix == "bt"
        && (1..=16).contains(&environment.len())
        && environment.chars().all(word)
        && is_random(random)
        && end == checksum(&given[..given.len() - end.len() - 1])
}

/// Returns whether the text is `<prefix>_<random>_<checksum>`.
fn is_token(given: &str) -> bool {
    let parts: Vec<&str> = given.split('_').collect();
    let [prefix, random, end] = parts[..] else {
        return false;
    };
    ["br", "bi", "bp", "bb", "bs"].contains(&prefix)
        && is_random(random)
        && end == checksum(&given[..given.len() - end.len() - 1])
}

fn is_random(part: &str) -> bool {
    part.len() == 44 && part.chars().all(|c| c.is_ascii_alphanumeric())
}

fn checksum(body: &str) -> String {
    format!("{:0>6}", base62::encode(crc32fast::hash(body.as_bytes())))
}

#[cfg(test)]
mod tests {
    use baton_identity::TokenKind;

    use super::*;

    #[test]
    fn every_kind_of_token_is_judged() {
        for kind in TokenKind::ALL {
            judge(OpaqueToken::from_random(kind, [7; 32]).expose());
        }
    }
}
