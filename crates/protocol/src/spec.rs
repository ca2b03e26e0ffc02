//! The specification of a run, fixed when it is accepted: the resolved agent and the client's
//! request.
//!
//! It is stored with the run and read by the worker that claims it. So a later change of the agent
//! or of the configuration does not affect accepted runs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

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
    /// The agent's instructions, put before the messages as a system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The input: an array of OpenAI chat messages, as the client wrote it.
    pub messages: Box<RawValue>,
    /// The client's own tools: an array of OpenAI tool objects, as the client wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Box<RawValue>>,
    /// The server-side tools that the model is offered, by name.
    #[serde(default)]
    pub server_tools: Vec<String>,
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
}
