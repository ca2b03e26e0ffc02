//! A change of the log filter of running roles, over NATS.

use serde::{Deserialize, Serialize};

/// A request to every process of a role to change its log filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelChange {
    /// A level, or directives such as `info,baton_worker=debug`.
    pub filter: String,
    /// The time after which the filter before it returns; without it, the change stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
}

/// The answer of a process to a [`LogLevelChange`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelAnswer {
    /// The role.
    pub role: String,
    /// The address of its admin port.
    pub admin: String,
    /// Its filter now.
    pub filter: String,
    /// The reason why it did not change its filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_answers_are_written_as_every_version_reads_them() {
        let change = LogLevelChange {
            filter: "debug".to_owned(),
            for_seconds: Some(600),
        };
        let json = r#"{"filter":"debug","for_seconds":600}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), json);
        assert_eq!(
            serde_json::from_str::<LogLevelChange>(json).unwrap(),
            change
        );
        let answer = LogLevelAnswer {
            role: "worker".to_owned(),
            admin: "127.0.0.1:9465".to_owned(),
            filter: "debug".to_owned(),
            error: None,
        };
        let json = r#"{"role":"worker","admin":"127.0.0.1:9465","filter":"debug"}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
        let newer = r#"{"role":"worker","admin":"127.0.0.1:9465","filter":"debug","since":1}"#;
        assert_eq!(
            serde_json::from_str::<LogLevelAnswer>(newer).unwrap(),
            answer
        );
    }
}
