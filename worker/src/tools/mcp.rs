//! Tools of MCP servers: each call is one `tools/call`.
//!
//! The configuration names the tools, so that an agent's and a key's lists can name them too. The
//! servers describe them. A tool that cannot be used now is offered with a description that says so:
//! the run goes on, and its model knows why the tool is missing.

mod probe;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_outbound::Guard;
use baton_protocol::{Effect, ToolDescription, ToolSource};
use baton_service::Config;
use futures_util::future::join_all;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::{RegisteredTool, ToolSetupError};

pub use probe::{McpProbe, probe_mcp_servers};
use server::McpServer;

/// The tools of all configured MCP servers.
#[derive(Debug, Default)]
pub(crate) struct McpTools {
    servers: Vec<Arc<McpServer>>,
    /// The server of each tool, by the tool's name for models.
    by_name: BTreeMap<String, Arc<McpServer>>,
}

impl McpTools {
    /// Makes the servers of a configuration; nothing is connected yet. Servers that have not changed
    /// keep their connections.
    pub(super) fn new(
        config: &Config,
        guard: &Guard,
        earlier: Option<&Self>,
    ) -> Result<Self, ToolSetupError> {
        let mut tools = Self::default();
        for configured in &config.mcp.servers {
            let same = earlier.into_iter().flat_map(|earlier| &earlier.servers);
            let same = same
                .into_iter()
                .find(|it| it.is_as(configured, &config.outbound));
            let server = match same {
                Some(server) => Arc::clone(server),
                None => Arc::new(McpServer::new(configured, &config.outbound, guard)?),
            };
            for name in configured.offered_names() {
                if tools
                    .by_name
                    .insert(name.clone(), Arc::clone(&server))
                    .is_some()
                {
                    return Err(ToolSetupError::Twice(name));
                }
            }
            tools.servers.push(server);
        }
        Ok(tools)
    }

    /// Returns the names of all tools for models.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Returns the names of the servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.servers.iter().map(|server| server.name())
    }

    /// Connects all servers, and lists their tools. The log has the failures.
    pub(crate) async fn connect(&self) {
        join_all(self.servers.iter().map(|server| server.tools())).await;
    }

    /// Describes a tool that its server has not listed in time.
    pub(crate) fn describe_unlisted(&self, name: &str) -> Option<ToolDescription> {
        let server = self.by_name.get(name)?;
        let why = format!(
            "the MCP server `{}` did not list its tools in time",
            server.name()
        );
        Some(ToolDescription {
            name: name.to_owned(),
            description: format!(
                "The MCP server `{}` did not describe this tool in time: ask again.",
                server.name()
            ),
            parameters: to_raw_value(&json!({ "type": "object" })).unwrap_or_default(),
            source: ToolSource::Mcp,
            effect: Effect::AtMostOnce,
            timeout_ms: u64::try_from(server.timeout().as_millis()).unwrap_or(u64::MAX),
            approval_required: false,
            annotations: None,
            unavailable: Some(why),
        })
    }

    /// Cancels a task at the server of a tool.
    pub(super) async fn cancel_task(&self, name: &str, id: &str) -> Result<(), String> {
        match self.by_name.get(name) {
            Some(server) => server.cancel_task(id).await,
            None => Ok(()),
        }
    }

    /// Returns a tool as its server lists it now.
    pub(super) async fn find(&self, name: &str) -> Option<Arc<RegisteredTool>> {
        let server = self.by_name.get(name)?;
        server.tools().await.get(name).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests;
