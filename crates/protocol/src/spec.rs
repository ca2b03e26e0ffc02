//! What a run is to do, fixed when it is accepted: the resolved agent and the client's request.
//!
//! It is stored with the run and read by whichever worker takes it, so that a later change of the
//! agent or of the configuration does not reach into runs that have been accepted.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::raw_fields::RawFields;

/// The stored form of an accepted request, version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunSpec {
    /// The form's version.
    pub v: u32,
    /// The agent whose configuration was resolved.
    pub agent: AgentRef,
    /// The upstream's name of the model.
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
    /// Every other field of the request, known to Baton or not: it travels to the upstream.
    #[serde(default)]
    pub params: RawFields,
    /// Where the run must stop.
    pub limits: RunLimits,
}

impl RunSpec {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

/// Which agent, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentRef {
    /// The agent's name; `default` for a request that names only a model.
    pub name: String,
    /// Its version; 0 for the built-in default agent.
    pub version: u32,
}

/// Where a run must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunLimits {
    /// Model turns.
    pub max_turns: u32,
    /// Tokens over all turns; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_tokens: Option<u64>,
}
