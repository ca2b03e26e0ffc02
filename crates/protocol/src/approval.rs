//! A tool call that waits for a person, and the person's decision.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reason for which a person must decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ApprovalReason {
    /// The worker was lost after it began the call and before it recorded the result, and the tool
    /// cannot recognise a repetition.
    #[serde(rename = "outcome unknown")]
    OutcomeUnknown,
}

impl ApprovalReason {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::OutcomeUnknown];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutcomeUnknown => "outcome unknown",
        }
    }
}

/// A decision about the call. As JSON, `{"decision": "retry"}`,
/// `{"decision": "result", "result": "…"}` or `{"decision": "fail", "reason": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// It did not happen, or may happen twice: the call is made again, once.
    Retry {},
    /// It happened, with this result: the model gets the result, and the tool is not called.
    Result {
        /// The text for the model.
        #[schema(max_length = 65536)]
        result: String,
    },
    /// It is given up: the model gets a failure, and the tool is not called.
    Fail {
        /// The text for the model.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schema(max_length = 65536)]
        reason: String,
    },
}

impl Decision {
    /// The longest result or reason, in bytes: as for the result of a tool.
    pub const MAX_TEXT: usize = 64 << 10;

    /// The names in JSON and SQL.
    pub const NAMES: [&str; 3] = ["retry", "result", "fail"];

    /// The name in JSON and SQL.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Retry {} => "retry",
            Self::Result { .. } => "result",
            Self::Fail { .. } => "fail",
        }
    }

    /// Returns the result or reason that comes with it.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Retry {} => None,
            Self::Result { result: text } | Self::Fail { reason: text } => Some(text),
        }
    }

    /// Returns the decision of this name; `None` if no decision has it.
    pub fn from_parts(name: &str, text: Option<String>) -> Option<Self> {
        let text = text.unwrap_or_default();
        match name {
            "retry" => Some(Self::Retry {}),
            "result" => Some(Self::Result { result: text }),
            "fail" => Some(Self::Fail { reason: text }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_written_as_documented_and_nothing_else_is_taken() {
        for (json, decision) in [
            (r#"{"decision":"retry"}"#, Decision::Retry {}),
            (
                r#"{"decision":"result","result":"done"}"#,
                Decision::Result {
                    result: "done".into(),
                },
            ),
            (
                r#"{"decision":"fail","reason":"no"}"#,
                Decision::Fail {
                    reason: "no".into(),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Decision>(json).unwrap(), decision);
            assert_eq!(serde_json::to_string(&decision).unwrap(), json);
            let text = decision.text().map(str::to_owned);
            let again = Decision::from_parts(decision.as_str(), text);
            assert_eq!(again, Some(decision));
        }
        for json in [
            "{}",
            r#"{"decision":"approve"}"#,
            r#"{"decision":"result"}"#,
            r#"{"decision":"retry","result":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Decision>(json).is_err(), "{json}");
        }
    }
}
