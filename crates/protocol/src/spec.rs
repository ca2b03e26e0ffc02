//! The specification of a run, fixed when it is accepted: the resolved agent and the client's
//! request.
//!
//! It is stored with the run and read by the worker that claims it. So a later change of the agent
//! or of the configuration does not affect accepted runs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::agent::ToolApproval;
use crate::compaction::CompactionRule;
use crate::limits::{OnLimit, UseLimits};
use crate::raw_fields::RawFields;
use crate::tool::GivenCall;

/// The stored form of an accepted request, version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunSpec {
    /// The form's version.
    pub v: u32,
    /// The resolved agent.
    pub agent: AgentRef,
    /// The upstream's name of the model; empty for a run of given calls. It is then left out, so that a worker
    /// that does not know such runs cannot read this and leaves the run to others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// The models to ask instead, in this order, if that one does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// The agent's instructions, put before the messages as a system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The input: an array of OpenAI chat messages, as the client wrote it.
    pub messages: Box<RawValue>,
    /// The client's own tools: an array of OpenAI tool objects, as the client wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Box<RawValue>>,
    /// The server-side tools that the model is offered.
    #[serde(default)]
    pub server_tools: Vec<OfferedTool>,
    /// The calls that the run consists of, if it asks no model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<GivenCall>,
    /// Every other field of the request, known to Baton or not: the upstream gets it.
    #[serde(default)]
    pub params: RawFields,
    /// Whether a client is shown the answer while it is made and cannot take any of it back, as one of a
    /// streamed chat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shown_for_good: bool,
    /// The settings of a request of the Responses route, which its response object shows. No worker
    /// reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<RawValue>>,
    /// The rule by which the run compacts its conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compaction: Option<CompactionRule>,
    /// The id of the request that the run was accepted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The limits of the run.
    pub limits: RunLimits,
}

impl RunSpec {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;

    /// Returns the names by which the model calls the client's own tools.
    pub fn client_tools(&self) -> Vec<String> {
        let tools = self.tools.as_deref().map(RawValue::get);
        let tools: Vec<ClientTool> = tools
            .and_then(|tools| serde_json::from_str(tools).ok())
            .unwrap_or_default();
        let named = tools
            .into_iter()
            .filter_map(|tool| tool.function.or(tool.custom));
        let names = named.map(|tool| tool.name);
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Returns the approved calls that the run begins with, each with its tool.
    pub fn approved_calls(&self) -> impl Iterator<Item = (&str, &ApprovedCall)> {
        let tools = self.server_tools.iter();
        tools.flat_map(|tool| tool.approved.iter().map(|call| (&*tool.name, call)))
    }

    /// Returns whether the run is kept after its end. A request of the Responses route may refuse that.
    pub fn is_stored(&self) -> bool {
        let settings = self.response.as_deref().map(RawValue::get);
        let settings: Option<Keeping> = settings.and_then(|it| serde_json::from_str(it).ok());
        settings.and_then(|settings| settings.store).unwrap_or(true)
    }
}

/// A server-side tool that a run's model is offered.
///
/// As JSON, its name; with a rule, `{"name": "pay", "approval": "always"}`. A version that does not know rules, or
/// approved calls, cannot read them, so it gives the run back: it never calls the tool unasked, or leaves out a
/// call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OfferedToolForm", into = "OfferedToolForm")]
pub struct OfferedTool {
    /// Its name.
    pub name: String,
    /// Whether its calls wait for a person, by the rules when the run was accepted.
    pub approval: ToolApproval,
    /// The calls of it that a person approved when the run was accepted. The run begins with them.
    pub approved: Vec<ApprovedCall>,
}

/// A call of an earlier run that a person has approved. The input has it, without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedCall {
    /// The call's id, as the model gave it.
    pub id: String,
    /// The approved arguments.
    pub arguments: String,
}

impl From<&str> for OfferedTool {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            approval: ToolApproval::Never,
            approved: Vec::new(),
        }
    }
}

/// The stored form of [`OfferedTool`].
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OfferedToolForm {
    Name(String),
    WithRule(ToolWithRule),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolWithRule {
    name: String,
    approval: ToolApproval,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approved: Vec<ApprovedCall>,
}

impl OfferedTool {
    /// Returns the names of tools, for people.
    pub fn names(tools: &[Self]) -> String {
        let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
        names.join(", ")
    }
}

impl From<OfferedToolForm> for OfferedTool {
    fn from(form: OfferedToolForm) -> Self {
        match form {
            OfferedToolForm::Name(name) => Self::from(&*name),
            OfferedToolForm::WithRule(ToolWithRule {
                name,
                approval,
                approved,
            }) => Self {
                name,
                approval,
                approved,
            },
        }
    }
}

impl From<OfferedTool> for OfferedToolForm {
    fn from(tool: OfferedTool) -> Self {
        let OfferedTool {
            name,
            approval,
            approved,
        } = tool;
        match approval {
            ToolApproval::Never if approved.is_empty() => Self::Name(name),
            approval => Self::WithRule(ToolWithRule {
                name,
                approval,
                approved,
            }),
        }
    }
}

/// A tool, as far as its name goes.
#[derive(Deserialize)]
struct ClientTool {
    function: Option<Named>,
    custom: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

/// The settings of a response, as far as they say whether it is kept.
#[derive(Deserialize)]
struct Keeping {
    store: Option<bool>,
}

/// An agent and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentRef {
    /// The agent's name; `default` for a request that names only a model.
    pub name: String,
    /// Its version; 0 for the built-in default agent.
    pub version: u32,
}

/// The limits of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunLimits {
    /// Model turns.
    pub max_turns: u32,
    /// Tokens over all turns; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_tokens: Option<u64>,
    /// The most that it may use up.
    #[serde(default, skip_serializing_if = "UseLimits::is_empty")]
    pub most: UseLimits,
    /// The effect of reaching one of those.
    #[serde(default, skip_serializing_if = "OnLimit::is_stop")]
    pub on_limit: OnLimit,
}

impl RunLimits {
    /// Returns limits of turns alone.
    pub const fn of_turns(max_turns: u32) -> Self {
        Self {
            max_turns,
            max_total_tokens: None,
            most: UseLimits {
                max_tokens: None,
                max_cost_nanos: None,
                max_tool_calls: None,
                max_wall_ms: None,
            },
            on_limit: OnLimit::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::agent::ArgumentsSchema;

    #[test]
    fn a_tool_without_a_rule_is_its_name_and_one_with_a_rule_is_unreadable_as_a_name() {
        let tools = [
            OfferedTool::from("weather"),
            OfferedTool {
                name: "pay".into(),
                approval: ToolApproval::Always,
                approved: Vec::new(),
            },
            OfferedTool {
                name: "mail".into(),
                approval: ToolApproval::When(ArgumentsSchema(Map::from_iter([(
                    "required".to_owned(),
                    json!(["to"]),
                )]))),
                approved: vec![ApprovedCall {
                    id: "call_1".into(),
                    arguments: "{}".into(),
                }],
            },
        ];
        let json = serde_json::to_string(&tools).unwrap();
        assert_eq!(
            json,
            r#"["weather",{"name":"pay","approval":"always"},{"name":"mail","approval":{"when":{"required":["to"]}},"approved":[{"id":"call_1","arguments":"{}"}]}]"#,
        );
        let read: Vec<OfferedTool> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, tools);
        serde_json::from_str::<Vec<String>>(&json).unwrap_err();
        for unreadable in [
            r#"[{"name":"pay","approval":"sometimes"}]"#,
            r#"[{"name":"pay"}]"#,
            r#"[{"name":"pay","approval":{"when":true}}]"#,
            r#"[{"name":"pay","approval":{"unless":{}}}]"#,
            r#"[{"name":"pay","approval":"always","later":1}]"#,
        ] {
            serde_json::from_str::<Vec<OfferedTool>>(unreadable).unwrap_err();
        }
    }
}
