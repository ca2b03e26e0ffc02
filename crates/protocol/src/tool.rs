//! Tools as other processes see them: their effects, descriptions, and the calls that a request names.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A tool's declared effect. It decides about a call that was begun but has no recorded result,
/// because its worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It computes, and changes nothing: the call is repeated.
    Pure,
    /// It changes something outside, and recognises its idempotency key: the call is repeated with
    /// the same key.
    Idempotent,
    /// It changes something outside and cannot recognise a repetition: the run parks until a person
    /// decides.
    AtMostOnce,
}

impl Effect {
    /// Returns whether a call without a recorded result may be repeated.
    pub const fn may_repeat(self) -> bool {
        match self {
            Self::Pure | Self::Idempotent => true,
            Self::AtMostOnce => false,
        }
    }

    /// The name stored in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Idempotent => "idempotent",
            Self::AtMostOnce => "at_most_once",
        }
    }
}

/// A call of a server-side tool that a request names itself, without a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenCall {
    /// The tool.
    pub name: String,
    /// The JSON text of the arguments.
    pub arguments: String,
}

/// The reason why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallFailure {
    /// There is no such tool.
    UnknownTool,
    /// The arguments do not fit the tool's schema, or make no sense.
    InvalidArguments,
    /// The tool reported why it failed.
    Failed,
    /// It did not end within its time limit.
    TimedOut,
    /// It crashed.
    Panicked,
}

impl CallFailure {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::UnknownTool,
        Self::InvalidArguments,
        Self::Failed,
        Self::TimedOut,
        Self::Panicked,
    ];

    /// The name in JSON, SQL and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTool => "unknown_tool",
            Self::InvalidArguments => "invalid_arguments",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// The origin of a server-side tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolSource {
    /// Baton itself.
    BuiltIn,
    /// `[[tools.http]]` of the configuration.
    Http,
    /// A server of `[[mcp.servers]]`.
    Mcp,
}

/// A server-side tool, as a worker describes it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = ServerTool)]
pub struct ToolDescription {
    /// Its name for models, agents and keys.
    pub name: String,
    /// The description that models are given.
    pub description: String,
    /// The JSON Schema of its arguments.
    #[schema(value_type = Object)]
    pub parameters: Box<RawValue>,
    /// Its origin.
    pub source: ToolSource,
    /// The effect of a repetition: `pure` and `idempotent` calls are repeated if their worker dies, a person
    /// decides about `at_most_once`.
    pub effect: Effect,
    /// The time limit of a call, in milliseconds.
    pub timeout_ms: u64,
    /// Whether the operator requires a person to approve each call. An agent may require it as well.
    #[serde(default)]
    pub approval_required: bool,
    /// The hints of an MCP server about the tool, as it sends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub annotations: Option<Box<RawValue>>,
    /// The reason why the tool of an MCP server cannot be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// A question to any worker for descriptions of tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsQuestion {
    /// The tools.
    pub names: Vec<String>,
}

/// A worker's answer to a [`ToolsQuestion`]. A tool in neither list is not in its configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ToolsAnswer {
    /// The described tools.
    pub tools: Vec<ToolDescription>,
    /// The tools that one message had no room for: they are to be asked for again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}
