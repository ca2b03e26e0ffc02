//! A trial of the configured MCP servers, for an operator.

use baton_mcp::{McpError, Server};
use baton_service::Config;

use super::server::endpoint;
use crate::tools::ToolSetupError;
use crate::tools::registry::guard;

/// The result of asking one server for its tools.
#[derive(Debug)]
pub struct McpProbe {
    /// The server's name in the configuration.
    pub server: String,
    /// The configured tools that the server does not have.
    pub missing: Result<Vec<String>, McpError>,
}

/// Asks every configured server for its tools, one after the other. Calls none.
pub async fn probe_mcp_servers(config: &Config) -> Result<Vec<McpProbe>, ToolSetupError> {
    let guard = guard(&config.outbound);
    let mut probes = Vec::new();
    for configured in &config.mcp.servers {
        let server = Server::new(endpoint(configured)?, guard.clone(), |_| {});
        let missing = server.tools().await.map(|listing| {
            let is_listed = |name: &&String| listing.tools.iter().any(|tool| tool.name == **name);
            let missing = configured.tools.iter().filter(|name| !is_listed(name));
            missing.cloned().collect()
        });
        probes.push(McpProbe {
            server: configured.name.clone(),
            missing,
        });
    }
    Ok(probes)
}
