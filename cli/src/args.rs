//! The command line of `baton`. `--help` shows the doc comments of this file, and those of each
//! command's arguments, which are in the file of the command.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::agents::AgentsCommand;
use crate::approvals::ApprovalsCommand;
use crate::audit::AuditArgs;
use crate::config_command::ConfigCommand;
use crate::dead::DeadCommand;
use crate::demo_model::DemoModelArgs;
use crate::dev::DevArgs;
use crate::doctor::DoctorArgs;
use crate::healthcheck::HealthcheckArgs;
use crate::init::InitArgs;
use crate::keys::KeysCommand;
use crate::log_level::LogLevelArgs;
use crate::mcp::McpCommand;
use crate::migrate::MigrateArgs;
use crate::runs::RunsCommand;
use crate::tenants::TenantsCommand;
use crate::usage::UsageArgs;
use crate::users::UsersCommand;

/// Runs AI agents as a service: a run is handed from worker to worker and never dropped.
///
/// To try it: `baton dev`. In production, start `baton ingress`, `baton worker` and `baton
/// scheduler` after `baton migrate`.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The sources of the configuration.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// Configuration file; the default is baton.toml in this folder, if it exists. The environment
    /// overrides the file: DATABASE_URL, NATS_URL, LLM_BASE_URL, …, `BATON_<SECTION>__<KEY>`
    #[arg(
        long = "config",
        global = true,
        value_name = "FILE",
        env = "BATON_CONFIG"
    )]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP: takes requests, publishes jobs, streams events back
    Ingress,
    /// Run agents: any number of workers share the work
    Worker,
    /// Repair the effects of crashes; one is enough, several do no harm
    Scheduler,
    /// Start everything on this machine, with a private nats-server and PostgreSQL
    Dev(DevArgs),
    /// Write the files of a new deployment: secrets, compose.yaml, NATS configuration, baton.toml
    ///
    /// Existing files are kept.
    Init(InitArgs),
    /// Migrate the database and the broker to this version
    Migrate(MigrateArgs),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Invite, list, remove and disable people
    #[command(subcommand)]
    Users(UsersCommand),
    /// Show and change the settings of a tenant
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Make the key pair with which ingresses admit programs to NATS by their API keys
    ///
    /// Put the public half into the environment of nats-server (nats/accounts.conf names it as the
    /// issuer of its auth callout), and the secret half into that of every ingress. A program sends
    /// its API key as the NATS token. nats-server asks an ingress about it, and the ingress signs
    /// the answer: the subjects of the key's tenant, as far as the key's scopes go. The secret half
    /// can admit anyone, so keep it safe. To replace it, restart nats-server and the ingresses with
    /// a new pair. A second pair, of curve keys, makes nats-server encrypt its questions. This
    /// command changes nothing by itself; see nats/README.md.
    NatsIssuer,
    /// Show the audit log: every recorded action with its actor
    Audit(AuditArgs),
    /// Show the usage of a tenant's runs: runs, tokens read, cached and written, cost
    Usage(UsageArgs),
    /// Show the timeline of a run
    #[command(subcommand)]
    Runs(RunsCommand),
    /// List, show, apply and delete agents
    ///
    /// Asks a server over HTTP, so it needs an API key: BATON_API_KEY, or --key-file. It shows the agents of
    /// the key's tenant. Reading takes the scope agents:read, the rest agents:write.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// List and decide the questions of runs that wait for a person
    ///
    /// Asks a server over HTTP, so it needs an API key: BATON_API_KEY, or --key-file. It shows the runs of
    /// the key's tenant. Listing takes the scope runs:read, deciding approvals:write.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Change the log filter of running roles, over NATS
    ///
    /// Prints a line for each process that answers: role, admin address, filter. Exits with 1 if none
    /// does, or if one could not change its filter.
    LogLevel(LogLevelArgs),
    /// List, show and replay messages that could not be processed
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Look at MCP servers
    #[command(subcommand)]
    Mcp(McpCommand),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check everything that a role needs: configuration, PostgreSQL, NATS, model and MCP servers
    ///
    /// Run it with the configuration and the environment of a role, from the machine or container of
    /// the role. It changes nothing; each model server is asked for one short answer. Prints a line
    /// for each check, and below a failed one the way to mend it. Exits with 1 if a check fails.
    Doctor(DoctorArgs),
    /// Ask a role on this machine whether it is ready; for container health checks
    Healthcheck(HealthcheckArgs),
    /// Serve a demo model for a first look: any OpenAI-compatible client, no provider, no key
    DemoModel(DemoModelArgs),
    /// Print version, commit and build time
    Version,
}
