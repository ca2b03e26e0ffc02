//! The settings of a response: a request's fields with effective values.

use baton_protocol::Lane;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::mcp::{AnsweredCall, McpList, McpToolName};

/// The settings of a response. They are stored with the run, because the response object shows them
/// whenever it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The system message before the input; it is the first of the run's messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The response that this one goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<String>,
    /// The conversation that this one is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The client's tools, in the form of this wire with all keys.
    pub tools: Box<RawValue>,
    /// The choice among them, in the form of this wire.
    pub tool_choice: Box<RawValue>,
    /// The form of the text, in the form of this wire.
    pub text: Box<RawValue>,
    /// The effort of reasoning, if the client chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// The kind of its summary, if the client asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_summary: Option<String>,
    /// The client's, or 1.
    pub temperature: f64,
    /// The client's, or 1.
    pub top_p: f64,
    /// The client's, or 0.
    pub presence_penalty: f64,
    /// The client's, or 0.
    pub frequency_penalty: f64,
    /// The client's, or true.
    pub parallel_tool_calls: bool,
    /// The most tokens of a turn, if the client chose a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// The most calls of server-side tools, if the client chose a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
    /// The queue, in the words of this wire.
    pub service_tier: ServiceTier,
    /// Whether the run goes on without its client.
    pub background: bool,
    /// Whether the response is kept after its end.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub store: bool,
    /// The lists of the MCP servers that the request names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp: Vec<McpList>,
    /// The tools with calls that are shown as calls of MCP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_tools: Vec<McpToolName>,
    /// The calls of MCP servers' tools that the request answered about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_answers: Vec<AnsweredCall>,
    /// The client's name for its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    /// The key of the upstream's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
}

impl Settings {
    /// Returns the system message before the input, which the next response does not inherit: the instructions,
    /// and the client's texts about MCP servers.
    pub fn system_message(&self) -> Option<String> {
        let mut texts: Vec<_> = self.instructions.iter().cloned().collect();
        texts.extend(self.mcp.iter().filter_map(|list| {
            let about = list.description.as_deref()?;
            Some(format!("The tools `{}__…`: {about}", list.server_label))
        }));
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }
}

const fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_true(value: &bool) -> bool {
    *value
}

/// A queue in the words of this wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The interactive lane.
    #[default]
    Default,
    /// The background lane.
    Flex,
    /// The interactive lane, asked for by name.
    Priority,
}

impl ServiceTier {
    /// Returns the lane of the run.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Default | Self::Priority => Lane::Interactive,
            Self::Flex => Lane::Background,
        }
    }
}
