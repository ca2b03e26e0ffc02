//! MCP servers: those that there are, and those that a request's `tools` name.

mod answers;
mod choice;
mod offer;
mod requested;

use serde::{Deserialize, Serialize};

pub(crate) use answers::take_answers;
pub use answers::{AnsweredCall, McpAnswer, WaitingCall, with_answers};
pub(crate) use choice::{Chosen, McpChoice};
pub(crate) use offer::called_name;
pub(crate) use requested::{RequestedServer, read_server};

use crate::items::ListedTool;

/// The most servers of one request.
const MAX_SERVERS: usize = 16;

/// A registered MCP server, as far as a caller may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Its name.
    pub label: String,
    /// Its URL without a query, which may hold secrets; `None` for a local program.
    pub address: Option<String>,
    /// Whether the operator trusts its hints about its tools.
    pub trusts_hints: bool,
    /// Its tools.
    pub tools: Vec<McpTool>,
}

/// A tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpTool {
    /// The server's name for it.
    pub name: String,
    /// Its name for models, agents and keys.
    pub offered: String,
}

/// A server's list of its tools, as the response shows it. It is stored with the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct McpList {
    /// The server.
    pub server_label: String,
    /// The client's text about the server, which the model reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tools that the model is offered and the server describes.
    pub tools: Vec<ListedTool>,
    /// The reason why tools of it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The names of an MCP server's tool on this wire and for the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpToolName {
    /// The server.
    pub server_label: String,
    /// The server's name for it.
    pub name: String,
    /// Its name for the model.
    pub offered: String,
}

impl McpToolName {
    /// Finds the tool of a call.
    pub(crate) fn find<'a>(known: &'a [Self], offered: &str) -> Option<&'a Self> {
        known.iter().find(|tool| tool.offered == offered)
    }
}

#[cfg(test)]
mod tests;
