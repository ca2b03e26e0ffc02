//! The command line of `baton`. `--help` shows the doc comments of this file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use baton_protocol::{ApprovalId, ApprovalScope, RunId};
use baton_service::telemetry::parse_filter_time;
use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::role::Kind;

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

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Connect to an MCP server as a worker would, and print what it offers
    ///
    /// Prints the server, its tools with the hints that it gives about them, and a section for the
    /// configuration. It calls no tool.
    Probe(ProbeArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProbeArgs {
    /// The server's address, such as https://mcp.example/mcp
    pub(crate) url: url::Url,
    /// Print JSON, with the whole descriptions and schemas
    #[arg(long)]
    pub(crate) json: bool,
    /// The bearer token of each request; the variable keeps it out of process lists
    #[arg(long, value_name = "TOKEN", env = "MCP_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the bearer token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// A header of each request, as NAME: VALUE; may be given several times
    #[arg(long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The time limit of connecting, and of listing the tools
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoModelArgs {
    /// The address to serve at; the API is below /v1, and /readyz is for probes
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4000")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    /// The deployment's folder; it is made if missing
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The host name by which clients will reach the server, for the first certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) host: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateArgs {
    /// First make the two users and the database of DATABASE_MIGRATE_URL and DATABASE_URL, as this
    /// administrator; the URL may name any other database of the server. DATABASE_ADMIN_URL does
    /// the same and keeps the password out of process lists
    #[arg(
        long,
        value_name = "ADMIN_URL",
        env = "DATABASE_ADMIN_URL",
        hide_env_values = true
    )]
    pub(crate) bootstrap: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DevArgs {
    /// The folder for the data of the private servers
    #[arg(long, value_name = "DIR", default_value = ".baton")]
    pub(crate) data: PathBuf,
    /// The address to serve HTTP at; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Write addresses and a key to this file, as JSON, once everything is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// The number of workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: usize,
    /// Start each role as a process of its own, and restart it when it dies
    #[arg(long)]
    pub(crate) separate: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; it is printed once and stored only as a hash
    Create {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The purpose of the key
        #[arg(long)]
        name: String,
        /// Its scopes, separated by commas: runs:read, runs:write, …; * is everything
        #[arg(long, value_delimiter = ',', default_value = "*")]
        scopes: Vec<String>,
        /// Upstream models it may use; all by default
        #[arg(long, value_delimiter = ',', value_name = "MODEL")]
        models: Option<Vec<String>>,
        /// Server-side tools it may use; all by default
        #[arg(long, value_delimiter = ',', value_name = "TOOL")]
        tools: Option<Vec<String>>,
        /// Time until it expires, such as 90d; never by default
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
        /// Its limits
        #[command(flatten)]
        limits: KeyLimitArgs,
    },
    /// List a tenant's keys
    List {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Revoke a key
    Revoke {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The key's id, as `keys list` shows it
        id: baton_protocol::ApiKeyId,
    },
}

/// The limits of a key; a limit that is not given does not exist.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct KeyLimitArgs {
    /// Requests in any 60 seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) per_minute: Option<u32>,
    /// Requests in any 24 hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) per_day: Option<u32>,
    /// Runs at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) concurrent_runs: Option<u32>,
    /// Tokens in a calendar month, UTC
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_A_MONTH))]
    pub(crate) monthly_tokens: Option<u64>,
    /// Cost in a calendar month, UTC, in millionths of the currency of the prices
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_A_MONTH))]
    pub(crate) monthly_cost_micros: Option<u64>,
}

/// The greatest value of a limit's column.
const MOST: i64 = i32::MAX as i64;
/// The same maximum as over HTTP.
const MOST_A_MONTH: u64 = 9_000_000_000_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Print the token with which a tenant's first owner registers; fails if it has an owner
    Bootstrap {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Print an invite; no mail is sent, so pass it on yourself
    Invite {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Their role: viewer, member, admin or owner
        #[arg(long, default_value = "member")]
        role: baton_protocol::Role,
        /// The only address that may use it; any by default
        #[arg(long)]
        email: Option<String>,
        /// Time until it expires, such as 3d; auth.invite_life by default
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// Print a token with which a person sets a new password; no mail is sent, so pass it on
    /// yourself
    ResetPassword {
        /// The address that they sign in with
        email: String,
    },
    /// List all people with their tenants
    List,
    /// Remove a person from a tenant, and print the keys and tokens they made there: those that
    /// end, and those that stay valid
    Remove {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The address that they sign in with
        email: String,
        /// Keep the API keys that they made valid, and answer for them; by default they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Disable a person: their sessions end, and so do the keys and tokens they made in their
    /// tenants, which are printed
    Disable {
        /// The address that they sign in with
        email: String,
        /// Keep the API keys that they made valid, and answer for them; by default they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Enable a disabled person again
    Enable {
        /// The address that they sign in with
        email: String,
    },
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    /// Only actions in this tenant, by name or id
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Only actions of this actor: a user's or key's id
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only this action, or all with this prefix, such as `key.`
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only actions that were done, or only those that were refused
    #[arg(long, value_parser = ["done", "refused"])]
    pub(crate) result: Option<String>,
    /// Only the last part of the log, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// The number of entries; the newest are shown
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
    /// Print each entry as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Drop whole months that have ended, as the database's owner (DATABASE_MIGRATE_URL)
    ///
    /// Prints the dropped partitions with their sizes, and adds an entry to the log. Entries from
    /// before the log had partitions are in one partition. First copy the entries that you must
    /// keep: see `--json`.
    Prune {
        /// Drop the months that ended by this day, UTC, such as 2026-08-01
        #[arg(long, value_name = "DAY")]
        before: chrono::NaiveDate,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UsageArgs {
    /// The tenant's name or id
    #[arg(long, default_value = "default")]
    pub(crate) tenant: String,
    /// The first day, UTC, such as 2026-11-01; by default 29 days before the last
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<chrono::NaiveDate>,
    /// The last day, UTC; today by default
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<chrono::NaiveDate>,
    /// The grouping, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "day", value_parser = ["day", "key", "model"])]
    pub(crate) by: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogLevelArgs {
    /// A level such as debug, or directives such as info,baton_worker=debug
    #[arg(value_name = "LEVEL")]
    pub(crate) filter: String,
    /// The time after which the filter before returns, from 1s to 24h; without it, the change stays until the
    /// process ends or its configuration is reloaded
    #[arg(long = "for", value_name = "TIME", value_parser = parse_filter_time)]
    pub(crate) time: Option<Duration>,
    /// Only this role
    #[arg(long, value_enum)]
    pub(crate) role: Option<Kind>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Print a run's waits, attempts, turns, calls and questions with their times, tokens and cost
    ///
    /// Each line begins with the time and the duration. Nothing of messages, arguments or results is shown.
    Timeline {
        /// The run's id, of any tenant
        id: baton_protocol::RunId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// List the open questions, the newest first: run, question, expiry, reason, tool, arguments
    ///
    /// Long arguments are cut; --json has all of them.
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those of this run
        #[arg(long, value_name = "RUN")]
        run: Option<RunId>,
        /// The most questions to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Make calls that wait for a yes
    Approve {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// Make the one named call with this JSON object in place of the model's arguments; it must match
        /// the tool's schema
        #[arg(long, value_name = "JSON", conflicts_with = "all")]
        arguments: Option<String>,
        /// The calls that need no other approval: once: the named ones; run: also later ones of their tool in
        /// the run; thread: also those of other runs of its thread
        #[arg(long, value_name = "SCOPE", default_value = "once", value_parser = parse_scope)]
        scope: ApprovalScope,
    },
    /// Do not make calls that wait for a yes; the model reads the reason
    Reject {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The reason for the model
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Make calls of unknown outcome again, once
    Retry {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
    },
    /// Give the model this result of a call of unknown outcome
    Result {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The result for the model
        #[arg(long, value_name = "TEXT")]
        text: String,
    },
    /// Give up calls of unknown outcome; the model reads the reason
    Fail {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The reason for the model
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

fn parse_scope(given: &str) -> Result<ApprovalScope, String> {
    let mut all = ApprovalScope::ALL.into_iter();
    let found = all.find(|scope| scope.as_str() == given);
    found.ok_or_else(|| "it is once, run or thread".to_owned())
}

/// The server to ask, and the credential.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ApiArgs {
    /// The server's address
    #[arg(
        long,
        value_name = "URL",
        env = "BATON_BASE_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: url::Url,
    /// The API key; the variable keeps it out of process lists
    #[arg(
        long,
        value_name = "KEY",
        env = "BATON_API_KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub(crate) key_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust besides the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print JSON, as the server answers it
    #[arg(long)]
    pub(crate) json: bool,
}

/// The questions to decide.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct QuestionArgs {
    /// The run that waits
    #[arg(value_name = "RUN")]
    pub(crate) run: RunId,
    /// Its questions, as `list` shows them
    #[arg(value_name = "QUESTION")]
    pub(crate) questions: Vec<ApprovalId>,
    /// All open questions of the run that can be decided so
    #[arg(long, conflicts_with = "questions")]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List them, the oldest first: sequence, time, subject, run, reason; then their last replay
    ///
    /// The last replay of each message, with its result, is on a separate line below it. It comes
    /// from the audit log, which is read if a database is configured.
    List {
        /// From this sequence on
        #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
        from: u64,
        /// The most messages to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those that no replay has delivered
        #[arg(long)]
        open: bool,
    },
    /// Print one message, with escapes for control characters; details about it go to standard
    /// error
    Show {
        /// Its sequence, as `list` shows it
        sequence: u64,
        /// Print its bytes unchanged, for a file or another program
        #[arg(long)]
        raw: bool,
    },
    /// Deliver messages once more, after the reason of the failure is repaired
    ///
    /// A submission goes to an ingress on behalf of the program that published it, and is checked
    /// like a new one; a job goes to the workers' queue. Repeating a replay does no harm. The
    /// copies stay; `list` shows the result of each.
    Replay {
        /// Their sequences, as `list` shows them
        #[arg(value_name = "SEQUENCE", required_unless_present = "all_with_reason")]
        sequences: Vec<u64>,
        /// All with this text in their reason, except those that an earlier replay has delivered
        #[arg(long, value_name = "TEXT", conflicts_with = "sequences")]
        all_with_reason: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every mistake at once
    Check,
    /// Print the configuration in force, secrets hidden
    Print,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Print the checks as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask no model server for an answer, only for its list of models
    #[arg(long)]
    pub(crate) no_turn: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HealthcheckArgs {
    /// The role's admin address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) admin: SocketAddr,
}
