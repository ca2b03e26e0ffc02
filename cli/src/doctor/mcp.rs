//! MCP servers: reachable, with the configured tools.

use baton_service::Config;
use baton_worker::tools::{McpProbe, probe_mcp_servers};

use super::report::Report;

const TOOLS: &str = "mcp.tools";

pub(super) async fn check(config: &Config, report: &mut Report) {
    if config.mcp.servers.is_empty() {
        return report.skipped(TOOLS, "no MCP server is configured");
    }
    match probe_mcp_servers(config).await {
        Ok(probes) => probes.iter().for_each(|probe| check_tools(probe, report)),
        Err(error) => report.failed(
            TOOLS,
            error.to_string(),
            "correct what `baton config check` lists",
        ),
    }
}

fn check_tools(probe: &McpProbe, report: &mut Report) {
    let server = &probe.server;
    match &probe.missing {
        Ok(missing) if missing.is_empty() => {
            report.ok(TOOLS, format!("server {server} has every configured tool"));
        }
        Ok(missing) => report.warning(
            TOOLS,
            format!("server {server} does not have {}", missing.join(", ")),
            "correct `tools` of the server; `baton mcp probe URL` lists those that it has",
        ),
        Err(error) => report.failed(
            TOOLS,
            format!("server {server}: {error}"),
            "start the server, or correct its url, token or headers",
        ),
    }
}
