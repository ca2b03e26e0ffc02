//! The MCP servers that requests may name in `tools`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_admission::Grant;
use baton_nats::Bus;
use baton_responses::{CreateResponse, McpServer, McpTool};
use baton_service::Config;
use baton_service::config::{McpServerConfig, McpTrust};

use crate::error::ApiError;
use crate::routes::tools::describe;

/// The reason in the place of a list that no worker made.
const NOT_DESCRIBED: &str = "no worker described the tools";

/// The servers of the present configuration. Clones share them.
#[derive(Clone)]
pub(crate) struct McpServers(Arc<ArcSwap<Vec<McpServer>>>);

impl McpServers {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(registered(config))))
    }

    /// Replaces the servers for later requests.
    pub(crate) fn replace(&self, config: &Config) {
        self.0.store(Arc::new(registered(config)));
    }

    /// Returns the servers with the tools that a key may use. It leaves out a server without such a tool.
    fn of(&self, grant: &Grant) -> Vec<McpServer> {
        let servers = self.0.load();
        let allowed = servers.iter().map(|server| {
            let tools = server.tools.iter();
            let tools = tools.filter(|tool| grant.allows_tool(&tool.offered));
            McpServer {
                tools: tools.cloned().collect(),
                ..server.clone()
            }
        });
        allowed.filter(|server| !server.tools.is_empty()).collect()
    }

    /// Offers the tools of the servers that a request names, as a worker describes them now.
    pub(super) async fn offer(
        &self,
        request: &mut CreateResponse,
        grant: &Grant,
        bus: &Bus,
    ) -> Result<(), ApiError> {
        if !request.names_servers() {
            return Ok(());
        }
        let servers = self.of(grant);
        let wanted = request.wanted_tools(&servers)?;
        // Without a description the run is accepted all the same: its worker asks the servers anew.
        let described = match describe(bus, wanted).await {
            Ok(described) => Ok(described),
            Err(error) => {
                tracing::warn!(code = %error.code, "no MCP tools are listed in a response");
                Err(NOT_DESCRIBED)
            }
        };
        let described = described.as_deref().map_err(|why| *why);
        Ok(request.offer_tools(&servers, described)?)
    }
}

fn registered(config: &Config) -> Vec<McpServer> {
    let servers = config.mcp.servers.iter();
    servers.map(server).collect()
}

fn server(config: &McpServerConfig) -> McpServer {
    // Values in the query may be secret.
    let address = config.url.split(['?', '#']).next();
    let tool = |name: &String| McpTool {
        name: name.clone(),
        offered: config.offered_name(name),
    };
    McpServer {
        label: config.name.clone(),
        address: address.filter(|it| !it.is_empty()).map(str::to_owned),
        trusts_hints: config.trust == McpTrust::Hints,
        tools: config.tools.iter().map(tool).collect(),
    }
}
