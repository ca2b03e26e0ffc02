//! Key sets from another issuer, or from an attacker in its place.

use std::time::Duration;

use baton_identity::{ForeignAlgorithm, ForeignKeys, ForeignRules};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;

const ALGORITHMS: [ForeignAlgorithm; 9] = [
    ForeignAlgorithm::Rs256,
    ForeignAlgorithm::Rs384,
    ForeignAlgorithm::Rs512,
    ForeignAlgorithm::Ps256,
    ForeignAlgorithm::Ps384,
    ForeignAlgorithm::Ps512,
    ForeignAlgorithm::Es256,
    ForeignAlgorithm::Es384,
    ForeignAlgorithm::EdDsa,
];

/// The member of a set that matters. The others may hold values that no [`Value`] can, such as
/// `1e999` or half of a surrogate pair.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// Checks that a set holds only keys of the issuer's kind, never a secret or one for encryption,
/// and that none of them verifies an unsigned token.
pub fn jwks(data: &[u8]) {
    for algorithm in ALGORITHMS {
        let Ok(keys) = ForeignKeys::read(data, algorithm) else {
            continue;
        };
        let set: Set = serde_json::from_slice(data).expect("a set has keys");
        let wanted = match algorithm {
            ForeignAlgorithm::Es256 | ForeignAlgorithm::Es384 => "EC",
            ForeignAlgorithm::EdDsa => "OKP",
            _ => "RSA",
        };
        let given = &set.keys;
        let fits =
            |key: &&Value| key["kty"] == wanted && (key["use"].is_null() || key["use"] == "sig");
        let mut some = false;
        for kid in given.iter().filter_map(|key| key["kid"].as_str()) {
            let known = keys.knows(kid);
            some |= known;
            let mut same = given.iter().filter(|key| key["kid"] == kid);
            assert!(
                !known || same.any(|key| fits(&key)),
                "{kid} is not for {algorithm:?}"
            );
        }
        assert!(some, "a set of nothing is refused");
        let rules = ForeignRules {
            issuer: "https://issuer.example".to_owned(),
            audience: "baton".to_owned(),
            algorithm,
            leeway: Duration::from_secs(30),
        };
        for token in UNSIGNED {
            assert!(keys.verify(token, &rules, DateTime::UNIX_EPOCH).is_err());
        }
    }
}

/// `{"alg":"none","kid":"a"}` and `{"alg":"HS256","kid":"a"}` over good claims, with no signature and
/// with a short one.
const UNSIGNED: [&str; 3] = [
    "eyJhbGciOiJub25lIiwia2lkIjoiYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiYmF0b24iLCJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.",
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiYmF0b24iLCJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiYmF0b24iLCJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.c2ln",
];
