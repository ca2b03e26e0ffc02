//! A call or a run that waits for a person, and the person's decision.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::limits::RequestLimits;

/// A reason for which a person must decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ApprovalReason {
    /// The worker was lost after it began the call and before it recorded the result, and the tool
    /// cannot recognise a repetition.
    #[serde(rename = "outcome unknown")]
    OutcomeUnknown,
    /// The operator or the agent requires a person's yes before the tool is called. The call has not begun.
    #[serde(rename = "approval required")]
    ApprovalRequired,
    /// The run has reached a limit of its own, and waits for a higher one.
    #[serde(rename = "budget")]
    Budget,
    /// The tool's server asks for something in the middle of the call.
    #[serde(rename = "input")]
    Input,
}

impl ApprovalReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::OutcomeUnknown,
        Self::ApprovalRequired,
        Self::Budget,
        Self::Input,
    ];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutcomeUnknown => "outcome unknown",
            Self::ApprovalRequired => "approval required",
            Self::Budget => "budget",
            Self::Input => "input",
        }
    }

    /// Returns the names of the decisions that answer this question.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Self::OutcomeUnknown => &["retry", "result", "fail"],
            Self::ApprovalRequired => &["approve", "reject"],
            Self::Budget => &["raise", "stop"],
            Self::Input => &["accept", "decline", "cancel"],
        }
    }
}

/// The calls that an approval holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalScope {
    /// The call alone.
    #[default]
    Once,
    /// The call, and all later ones of the tool in this run.
    Run,
    /// The call, and all later ones of the tool in the runs of this run's thread.
    Thread,
}

impl ApprovalScope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Once, Self::Run, Self::Thread];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Run => "run",
            Self::Thread => "thread",
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    const fn is_once(&self) -> bool {
        matches!(self, Self::Once)
    }
}

/// A decision about a question. As JSON, `{"decision": "retry"}`, `{"decision": "result", "result": "…"}` or
/// `{"decision": "fail", "reason": "…"}` for a call of unknown outcome. `{"decision": "approve"}` or
/// `{"decision": "reject", "reason": "…"}` for a call that requires approval. `{"decision": "raise", "limits":
/// {…}}` or `{"decision": "stop"}` for a run at a limit of its own. `{"decision": "accept", "content": {…}}`,
/// `{"decision": "decline"}` or `{"decision": "cancel"}` for the server of a tool that asks for input.
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
    /// The call is made.
    Approve {
        /// Other arguments to call the tool with: an object that matches its schema, at most 64 KiB of JSON.
        /// Without them, the call is made as the model wrote it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        arguments: Option<Map<String, Value>>,
        /// The calls that need no other approval: this one (`once`), or also all later ones of the tool in this
        /// run (`run`), or in the runs of its thread (`thread`).
        #[serde(default, skip_serializing_if = "ApprovalScope::is_once")]
        scope: ApprovalScope,
    },
    /// The call is not made: the model reads that, with the reason.
    Reject {
        /// The reason for the model.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schema(max_length = 65536)]
        reason: String,
    },
    /// The run goes on with higher limits.
    Raise {
        /// The limits to raise, the reached one among them. The others stay as they are.
        limits: RequestLimits,
    },
    /// The run ends at the limit.
    Stop {},
    /// The server of the tool gets what it asks for, and the call goes on.
    Accept {
        /// An object that matches the schema of the question, at most 64 KiB of JSON. Fields that are left out get
        /// the defaults of the schema. A question that only shows addresses takes none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        content: Option<Map<String, Value>>,
    },
    /// The server reads that the person does not give it, and the call goes on.
    Decline {},
    /// The server reads that the person did not choose, and the call goes on.
    Cancel {},
}

impl Decision {
    /// The longest result or reason, and the longest arguments as JSON, in bytes: as for the result of a tool.
    pub const MAX_TEXT: usize = 64 << 10;

    /// The names in JSON and SQL.
    pub const NAMES: [&str; 10] = [
        "retry", "result", "fail", "approve", "reject", "raise", "stop", "accept", "decline",
        "cancel",
    ];

    /// The name in JSON and SQL.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Retry {} => "retry",
            Self::Result { .. } => "result",
            Self::Fail { .. } => "fail",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
            Self::Raise { .. } => "raise",
            Self::Stop {} => "stop",
            Self::Accept { .. } => "accept",
            Self::Decline {} => "decline",
            Self::Cancel {} => "cancel",
        }
    }

    /// Returns the result, for the model, of a call that a person rejected for this reason.
    pub fn text_of_rejection(reason: &str) -> String {
        const REJECTED: &str = "this call was not approved, and it was not made.";
        if reason.is_empty() {
            REJECTED.to_owned()
        } else {
            format!("{REJECTED} The reason: {reason}")
        }
    }

    /// Returns the result or reason that comes with it.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Retry {}
            | Self::Approve { .. }
            | Self::Raise { .. }
            | Self::Stop {}
            | Self::Accept { .. }
            | Self::Decline {}
            | Self::Cancel {} => None,
            Self::Result { result: text }
            | Self::Fail { reason: text }
            | Self::Reject { reason: text } => Some(text),
        }
    }

    /// Returns the arguments that replace those of the model.
    pub const fn edited_arguments(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Approve { arguments, .. } => arguments.as_ref(),
            _ => None,
        }
    }

    /// Returns the limits that it raises.
    pub const fn raised_limits(&self) -> Option<&RequestLimits> {
        match self {
            Self::Raise { limits } => Some(limits),
            _ => None,
        }
    }

    /// Returns the content that the server of a tool asked for.
    pub const fn content(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Accept { content } => content.as_ref(),
            _ => None,
        }
    }

    /// Returns the calls that it allows beyond its own; `once` if it allows none.
    pub const fn scope(&self) -> ApprovalScope {
        match self {
            Self::Approve { scope, .. } => *scope,
            _ => ApprovalScope::Once,
        }
    }

    /// Returns the decision of this name; `None` if no decision has it. `text` is the result or reason, or the
    /// JSON of raised limits or of a content.
    pub fn from_parts(
        name: &str,
        text: Option<String>,
        arguments: Option<Map<String, Value>>,
        scope: ApprovalScope,
    ) -> Option<Self> {
        let text = text.unwrap_or_default();
        match name {
            "retry" => Some(Self::Retry {}),
            "result" => Some(Self::Result { result: text }),
            "fail" => Some(Self::Fail { reason: text }),
            "approve" => Some(Self::Approve { arguments, scope }),
            "reject" => Some(Self::Reject { reason: text }),
            "raise" => serde_json::from_str(&text)
                .ok()
                .map(|limits| Self::Raise { limits }),
            "stop" => Some(Self::Stop {}),
            "accept" if text.is_empty() => Some(Self::Accept { content: None }),
            "accept" => serde_json::from_str(&text)
                .ok()
                .map(|content| Self::Accept {
                    content: Some(content),
                }),
            "decline" => Some(Self::Decline {}),
            "cancel" => Some(Self::Cancel {}),
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
            (
                r#"{"decision":"approve"}"#,
                Decision::Approve {
                    arguments: None,
                    scope: ApprovalScope::Once,
                },
            ),
            (
                r#"{"decision":"approve","scope":"thread"}"#,
                Decision::Approve {
                    arguments: None,
                    scope: ApprovalScope::Thread,
                },
            ),
            (
                r#"{"decision":"approve","arguments":{"amount":7}}"#,
                Decision::Approve {
                    arguments: Some(Map::from_iter([("amount".to_owned(), Value::from(7))])),
                    scope: ApprovalScope::Once,
                },
            ),
            (
                r#"{"decision":"reject","reason":"too much"}"#,
                Decision::Reject {
                    reason: "too much".into(),
                },
            ),
            (
                r#"{"decision":"raise","limits":{"max_tokens":9}}"#,
                Decision::Raise {
                    limits: RequestLimits {
                        max_tokens: Some(9),
                        ..RequestLimits::default()
                    },
                },
            ),
            (r#"{"decision":"stop"}"#, Decision::Stop {}),
            (
                r#"{"decision":"accept","content":{"name":"Ada"}}"#,
                Decision::Accept {
                    content: Some(Map::from_iter([("name".to_owned(), Value::from("Ada"))])),
                },
            ),
            (
                r#"{"decision":"accept"}"#,
                Decision::Accept { content: None },
            ),
            (r#"{"decision":"decline"}"#, Decision::Decline {}),
            (r#"{"decision":"cancel"}"#, Decision::Cancel {}),
        ] {
            assert_eq!(serde_json::from_str::<Decision>(json).unwrap(), decision);
            assert_eq!(serde_json::to_string(&decision).unwrap(), json);
            let limits = decision.raised_limits().map(serde_json::to_string);
            let text = decision.text().map(str::to_owned);
            let text = text.or(limits.transpose().unwrap());
            let content = decision.content().map(serde_json::to_string);
            let text = text.or(content.transpose().unwrap());
            let arguments = decision.edited_arguments().cloned();
            let scope = decision.scope();
            let again = Decision::from_parts(decision.as_str(), text, arguments, scope);
            assert_eq!(again, Some(decision));
        }
        for json in [
            "{}",
            r#"{"decision":"allow"}"#,
            r#"{"decision":"result"}"#,
            r#"{"decision":"retry","result":"x"}"#,
            r#"{"decision":"approve","arguments":"{}"}"#,
            r#"{"decision":"approve","reason":"x"}"#,
            r#"{"decision":"reject","arguments":{}}"#,
            r#"{"decision":"reject","scope":"run"}"#,
            r#"{"decision":"approve","scope":"always"}"#,
            r#"{"decision":"raise"}"#,
            r#"{"decision":"raise","limits":{"max_turns":3}}"#,
            r#"{"decision":"stop","reason":"x"}"#,
            r#"{"decision":"accept","content":[]}"#,
            r#"{"decision":"decline","content":{}}"#,
        ] {
            assert!(serde_json::from_str::<Decision>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn each_decision_answers_one_kind_of_question() {
        let mut options: Vec<_> = ApprovalReason::ALL
            .into_iter()
            .flat_map(ApprovalReason::options)
            .copied()
            .collect();
        let mut names = Decision::NAMES.to_vec();
        options.sort_unstable();
        names.sort_unstable();
        assert_eq!(options, names);
    }
}
