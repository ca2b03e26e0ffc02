//! Finds environment variables that look like settings and are not read.
//!
//! A wrong `BATON_…` name is a mistake, because nobody else uses it. Other names may belong to another
//! program of the same environment, so they are only warned about.

use super::mistake::{Mistake, Origin, nearest};
use super::sources::{SECRET_KEYS, Sources, USUAL_NAMES};

/// Names that people bring from other servers, and the replacement. A name that ends in `_` is a
/// prefix.
const FOREIGN_NAMES: [(&str, &str); 18] = [
    ("DB_", "write the whole address as DATABASE_URL"),
    ("LLM_API_BASE", "write LLM_BASE_URL"),
    ("LLM_KEY", "write LLM_API_KEY"),
    ("LLM_MODEL", "write LLM_DEFAULT_MODEL"),
    ("LLM_URL", "write LLM_BASE_URL"),
    ("LOG_FORMAT", "write BATON_LOG__FORMAT"),
    ("LOG_LEVEL", "write RUST_LOG"),
    ("MAX_CONNECTIONS", "write BATON_DATABASE__MAX_CONNECTIONS"),
    ("NATS_HOST", "write the whole address as NATS_URL"),
    ("NATS_PASSWORD", "write BATON_NATS__PASSWORD"),
    ("NATS_PORT", "write the whole address as NATS_URL"),
    ("NATS_USER", "write BATON_NATS__USER"),
    ("RATE_LIMIT_PER_DAY", "write BATON_LIMITS__PER_KEY_PER_DAY"),
    (
        "RATE_LIMIT_PER_MINUTE",
        "write BATON_LIMITS__PER_KEY_PER_MINUTE",
    ),
    (
        "REDIS_",
        "leave it out: there is no Redis here, NATS_URL names the broker",
    ),
    ("SERVER_HOST", "write BATON_HTTP__LISTEN"),
    ("SERVER_PORT", "write BATON_HTTP__LISTEN"),
    ("WORKER_CONCURRENCY", "write BATON_WORKER__SLOTS"),
];

impl Sources {
    /// Returns the environment variables that look like settings and are not read, each with the name
    /// to write instead.
    pub fn unread_variables(&self) -> Vec<Mistake> {
        let names = self.environment.keys();
        names
            .filter(|name| !name.starts_with("BATON_") && !is_read(name) && !self.is_foreign(name))
            .filter_map(|name| {
                Some(Mistake {
                    origin: Origin::Variable(name.clone()),
                    message: "it is not read".to_owned(),
                    instead: Some(replacement(name)?),
                })
            })
            .collect()
    }
}

fn is_read(name: &str) -> bool {
    let section_and_key = |name: &str| {
        let found = USUAL_NAMES.iter().find(|(usual, ..)| *usual == name);
        found.map(|(_, section, key)| (*section, *key))
    };
    let secret_file = name.strip_suffix("_FILE").and_then(section_and_key);
    section_and_key(name).is_some()
        || secret_file.is_some_and(|secret| SECRET_KEYS.contains(&secret))
}

fn replacement(name: &str) -> Option<String> {
    let foreign = FOREIGN_NAMES.iter().find(|(foreign, _)| {
        name == *foreign || (foreign.ends_with('_') && name.starts_with(foreign))
    });
    if let Some((_, instead)) = foreign {
        return Some((*instead).to_owned());
    }
    let meant = nearest(name, USUAL_NAMES.iter().map(|(usual, ..)| *usual))?;
    Some(format!("did you mean {meant}?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::variable_name;

    fn unread(name: &str, value: &str) -> Option<String> {
        let mut found = Sources::from_environment([(name, value)]).unread_variables();
        found.pop().map(|mistake| mistake.to_string())
    }

    #[test]
    fn a_foreign_or_mistyped_name_is_answered_with_the_right_one() {
        for (name, right) in [
            ("RATE_LIMIT_PER_MINUTE", "BATON_LIMITS__PER_KEY_PER_MINUTE"),
            ("SERVER_PORT", "BATON_HTTP__LISTEN"),
            ("DB_HOST", "DATABASE_URL"),
            ("REDIS_URL", "NATS_URL"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("JWT_SECRETS", "JWT_SECRET"),
        ] {
            let told = unread(name, "x").unwrap();
            assert!(told.contains(name) && told.contains(right), "{told}");
        }
    }

    #[test]
    fn names_of_others_and_names_that_are_read_are_left_alone() {
        let read = USUAL_NAMES.iter().map(|(name, ..)| *name);
        let others = [
            "PATH",
            "HOME",
            "HTTP_PORT",
            "POSTGRES_PASSWORD",
            "RUST_BACKTRACE",
        ];
        for name in read.chain(others).chain(["JWT_SECRET_FILE"]) {
            assert_eq!(unread(name, "x"), None, "{name}");
        }
        assert_eq!(unread("NATS_PORT", "tcp://10.0.0.1:4222"), None);
        assert_eq!(unread("BATON_FNORD", "x"), None, "this one is a mistake");
    }

    /// A replacement that does not exist would send people to the next error.
    #[test]
    fn every_replacement_is_a_setting() {
        let example = include_str!("../../../../deployments/baton.example.toml");
        for (_, instead) in FOREIGN_NAMES {
            let Some(name) = instead.split(' ').find(|word| word.starts_with("BATON_")) else {
                continue;
            };
            let (section, key) = name["BATON_".len()..].split_once("__").unwrap();
            let (section, key) = (section.to_lowercase(), key.to_lowercase());
            assert_eq!(variable_name(&section, &key), name);
            assert!(example.contains(&format!("[{section}]")), "{name}");
            assert!(example.contains(&format!("{key} =")), "{name}");
        }
    }
}
