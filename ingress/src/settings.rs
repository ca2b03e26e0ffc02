//! The settings that a running ingress reloads.

use baton_admission::{Admission, BuiltInAgent, Policy, Rules};
use baton_metering::{BUILT_IN_TOOL_SIZES, MCP_TOOL_SIZE, Metering, ToolSizes};
use baton_service::config::BuiltInTool;
use baton_service::{Config, LiveConfig};

use crate::access::rate::{DefaultLimits, RateGate, RateLimits};
use crate::access::stream_cap::StreamCap;
use crate::routes::models::{ModelCatalog, Models};
use crate::routes::responses::McpServers;

/// The parts of a running ingress that a changed configuration replaces.
pub(crate) struct Reloaded {
    pub(crate) streams: StreamCap,
    pub(crate) rates: RateGate,
    pub(crate) admission: Admission,
    pub(crate) models: Models,
    pub(crate) mcp_servers: McpServers,
}

/// Returns the rate limits of addresses, and of callers without limits of their own.
pub(crate) const fn default_limits(config: &Config) -> DefaultLimits {
    DefaultLimits {
        address: RateLimits {
            per_minute: config.limits.per_ip_per_minute,
            per_day: 0,
        },
        caller: RateLimits {
            per_minute: config.limits.per_key_per_minute,
            per_day: config.limits.per_key_per_day,
        },
    }
}

/// Returns the rules for accepting runs.
pub(crate) fn rules(config: &Config) -> Rules {
    let built_in = config.tools.built_in.iter();
    let http = config.tools.http.iter().map(|tool| tool.name.clone());
    let configured = http.chain(config.mcp.offered_names());
    let server_tools = built_in
        .map(|tool| tool.as_str().to_owned())
        .chain(configured)
        .collect();
    let at_most = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
    Rules {
        built_in: BuiltInAgent {
            default_model: config.llm.default_model.clone(),
            server_tools,
            approval_required: config.approval_required().collect(),
            max_turns: config.worker.max_turns,
        },
        tool_names: config.tool_names().collect(),
        policy: Policy {
            tenant: at_most(config.limits.queued_per_tenant),
            system: at_most(config.limits.queued_total),
        },
        prices: config.llm.prices_in_micros().collect(),
        metering: Metering {
            answer_tokens: config.limits.budget_answer_tokens,
            attachment_tokens: config.limits.budget_attachment_tokens,
        },
        tools: tool_sizes(config),
        extra_fields: config.llm.extra_fields.iter().cloned().collect(),
        routes: config.llm.all_routes(),
    }
}

/// Bytes between two hosts in the description of `http_request`.
const HOST_SEPARATOR: usize = 2;

/// Returns the sizes of the tools' definitions as a worker with this configuration sends them.
fn tool_sizes(config: &Config) -> ToolSizes {
    let mcp = config.mcp.offered_names().map(|name| (name, MCP_TOOL_SIZE));
    let http = config.tools.http.iter().map(|tool| {
        let (description, parameters) = (&tool.description, tool.parameters.clone());
        let definition = baton_openai::Tool::function(&tool.name, description, parameters);
        let size = serde_json::to_string(&definition).map_or(0, |text| text.len());
        (tool.name.clone(), size)
    });
    let described = BUILT_IN_TOOL_SIZES.into_iter();
    let described = described.filter(|(name, _)| *name == BuiltInTool::HttpRequest.as_str());
    let hosts = config.http_request.hosts.iter();
    let hosts: usize = hosts.map(|host| host.len() + HOST_SEPARATOR).sum();
    let described = described.map(|(name, size)| (name.to_owned(), size + hosts));
    ToolSizes::new(http.chain(mcp).chain(described))
}

impl Reloaded {
    /// Applies each changed configuration.
    pub(crate) async fn take_changes(self, mut config: LiveConfig) {
        loop {
            let config = config.changed().await;
            self.streams.set_limit(config.limits.streams_per_key);
            self.rates.set_defaults(default_limits(&config));
            self.admission.replace_rules(rules(&config));
            self.mcp_servers.replace(&config);
            match ModelCatalog::new(&config.llm) {
                Ok(models) => self.models.replace(models),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "changed upstreams cannot be asked for their models");
                }
            }
        }
    }
}
