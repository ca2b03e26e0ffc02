//! Configuration: built-in defaults < `baton.toml` < environment.
//!
//! One pass ([`Config::load`]) finds all mistakes, and each names its place and the correction. The
//! sections are small structs; `deployments/baton.example.toml` shows every key with its default.
//! Environment names: the usual ones ([`sources::USUAL_NAMES`]), and `BATON_<SECTION>__<KEY>` for
//! the rest; a secret is also read from the file that `<NAME>_FILE` names. An empty variable counts
//! as unset, because compose and Kubernetes produce those.

mod agents;
mod auth;
mod checks;
mod llm;
mod load;
mod mcp;
mod mistake;
mod outbound;
mod secrets;
mod sections;
pub mod sources;
mod tools;
mod unread;
mod upstreams;
mod values;
mod web_tools;

use serde::{Deserialize, Serialize};

pub(crate) use agents::agent_files;
pub use agents::{AgentFile, AgentsConfig};
pub use auth::{
    AuthConfig, IssuerAlgorithm, IssuerConfig, Registration, SigningAlgorithm, SigningKeyConfig,
    weakness,
};
pub use checks::trustworthy;
pub use llm::{AnswerLimitField, LlmConfig, ModelPrice, UpstreamFeature};
pub use mcp::{McpAuthConfig, McpAuthKind, McpClientAuth, McpConfig, McpServerConfig, McpTrust};
pub use mistake::{ConfigErrors, Mistake, Origin};
pub use outbound::OutboundConfig;
pub use sections::{
    AdminConfig, DatabaseConfig, ForwardedHeader, HttpConfig, LimitsConfig, LogConfig, LogFormat,
    NatsConfig, SchedulerConfig, WorkerConfig,
};
pub use sources::Sources;
pub use tools::{BuiltInTool, HttpTool, ToolsConfig};
pub use upstreams::{HopConfig, ONLY_UPSTREAM, RouteConfig, UpstreamConfig};
pub use values::{ByteSize, ConnectionUrl, NotAPrice, PerMillion, Secret};
pub use web_tools::{HttpRequestConfig, WebSearchConfig};

/// The whole configuration; one struct for every role, because one file serves them all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public HTTP listener.
    pub http: HttpConfig,
    /// The admin listener of each role.
    pub admin: AdminConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// NATS JetStream.
    pub nats: NatsConfig,
    /// The upstream model.
    pub llm: LlmConfig,
    /// Sign-in.
    pub auth: AuthConfig,
    /// The worker role.
    pub worker: WorkerConfig,
    /// The scheduler role.
    pub scheduler: SchedulerConfig,
    /// Queue and rate limits.
    pub limits: LimitsConfig,
    /// Logs.
    pub log: LogConfig,
    /// Files of agents.
    pub agents: AgentsConfig,
    /// The tools of the default agent.
    pub tools: ToolsConfig,
    /// MCP servers.
    pub mcp: McpConfig,
    /// The tool `web_search`.
    pub web_search: WebSearchConfig,
    /// The tool `http_request`.
    pub http_request: HttpRequestConfig,
    /// Connections that a tenant or a model can influence.
    pub outbound: OutboundConfig,
}

/// A setting without a default that some roles require.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// `DATABASE_URL`.
    Database,
    /// `DATABASE_MIGRATE_URL`.
    DatabaseOwner,
    /// `NATS_URL`.
    Nats,
    /// `LLM_BASE_URL`, or `llm.upstreams`.
    Llm,
}

impl Config {
    /// Returns the built-in tools that workers with this configuration have.
    pub fn built_in_tools(&self) -> Vec<BuiltInTool> {
        let mut tools = vec![BuiltInTool::Calculator, BuiltInTool::CurrentTime];
        if self.web_search.api_key.is_some() {
            tools.push(BuiltInTool::WebSearch);
        }
        if !self.http_request.hosts.is_empty() {
            tools.push(BuiltInTool::HttpRequest);
        }
        tools
    }

    /// Returns the names of all server-side tools, as models call them.
    pub fn tool_names(&self) -> impl Iterator<Item = String> {
        let built_in = self.built_in_tools().into_iter();
        let built_in = built_in.map(|tool| tool.as_str().to_owned());
        let http = self.tools.http.iter().map(|tool| tool.name.clone());
        built_in.chain(http).chain(self.mcp.offered_names())
    }

    /// Returns the names of the tools that the operator requires approval for.
    pub fn approval_required(&self) -> impl Iterator<Item = String> {
        self.tool_names().filter(|name| {
            let mut patterns = self.tools.approval_required.iter();
            patterns.any(|pattern| tools::names_tool(pattern, name))
        })
    }

    /// Checks that the settings which a role requires are present.
    ///
    /// # Errors
    /// One mistake for each missing setting.
    pub fn require(&self, needed: &[Required]) -> Result<(), ConfigErrors> {
        let missing = needed.iter().filter_map(|required| {
            let (absent, variable, key, example) = match required {
                Required::Database => (
                    self.database.url.is_none(),
                    "DATABASE_URL",
                    "database.url",
                    "DATABASE_URL=postgres://baton:…@localhost:5432/baton",
                ),
                Required::DatabaseOwner => (
                    self.database.migrate_url.is_none(),
                    "DATABASE_MIGRATE_URL",
                    "database.migrate_url",
                    "DATABASE_MIGRATE_URL=postgres://baton_owner:…@localhost:5432/baton",
                ),
                Required::Nats => (
                    self.nats.url.is_none(),
                    "NATS_URL",
                    "nats.url",
                    "NATS_URL=nats://localhost:4222",
                ),
                Required::Llm => (
                    !self.llm.has_upstream(),
                    "LLM_BASE_URL",
                    "llm.base_url or llm.upstreams",
                    "LLM_BASE_URL=https://api.openai.com/v1",
                ),
            };
            absent.then(|| Mistake {
                origin: Origin::Absent { variable },
                message: format!("neither {variable} nor {key} in the file is set"),
                instead: Some(format!("set {example}")),
            })
        });
        ConfigErrors::unless_empty(missing.collect(), ())
    }

    /// Returns the configuration as TOML with hidden secrets, for `baton config print`.
    ///
    /// # Errors
    /// Only if a value has no TOML form, which the types above exclude.
    pub fn print(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}
