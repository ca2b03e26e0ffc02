//! What `baton` understands. `--help` is made of these comments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

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

/// Where the configuration comes from.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// Configuration file; without it, baton.toml in this folder if there is one. The environment
    /// wins over the file: DATABASE_URL, NATS_URL, LLM_BASE_URL, …, `BATON_<SECTION>__<KEY>`
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
    /// Repair what crashes left behind; one is enough, several do no harm
    Scheduler,
    /// Start everything on this machine, private nats-server and PostgreSQL included
    Dev(DevArgs),
    /// Write the files of a new deployment: secrets, compose.yaml, NATS configuration, baton.toml
    ///
    /// Replaces nothing: what is there already is kept.
    Init(InitArgs),
    /// Bring the database and the broker to what this version needs
    Migrate(MigrateArgs),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Let people in, and keep them out
    #[command(subcommand)]
    Users(UsersCommand),
    /// Make the key pair by which ingresses let programs connect to NATS with their API keys
    ///
    /// The public half goes into the environment of nats-server (nats/accounts.conf names it as the
    /// issuer of its auth callout), the secret one into that of every ingress. With it an ingress
    /// answers nats-server who somebody is: their API key is the NATS token, and they reach their
    /// tenant's subjects as far as the key's scopes go. Whoever has the secret half lets in whom they
    /// like. To replace it, restart nats-server and the ingresses with a new pair. A second pair, of
    /// curve keys, has nats-server encrypt what it asks. Changes nothing by itself; see
    /// nats/README.md.
    NatsIssuer,
    /// Show who did what: the audit log
    Audit(AuditArgs),
    /// Show what a tenant's runs used up: runs, tokens read, cached and written, cost
    Usage(UsageArgs),
    /// Look at messages that nobody could work on
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a role on this machine whether it is ready; for container health checks
    Healthcheck(HealthcheckArgs),
    /// Serve a model for a first look: any OpenAI-compatible client, no provider, no key
    DemoModel(DemoModelArgs),
    /// Print version, commit and build time
    Version,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoModelArgs {
    /// The address to serve at; /v1 is below it, /readyz for probes too
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4000")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    /// The deployment's folder; made if it is missing
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The name that clients will call the server by, for the first certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) host: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateArgs {
    /// First make the two logins and the database that DATABASE_MIGRATE_URL and DATABASE_URL name, as
    /// this administrator; a URL to any other database of the server. DATABASE_ADMIN_URL does the same,
    /// and shows the password to no list of processes
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
    /// Where the private servers keep their data
    #[arg(long, value_name = "DIR", default_value = ".baton")]
    pub(crate) data: PathBuf,
    /// Where to serve HTTP; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Write addresses and a key to this file, as JSON, once everything serves
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: usize,
    /// Start each role as a process of its own, and start it again when it dies
    #[arg(long)]
    pub(crate) separate: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; it is printed once and stored only as a hash
    Create {
        /// The tenant's name or id; a name that no tenant has makes one
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What the key is for
        #[arg(long)]
        name: String,
        /// What it may do, with commas between: runs:read, runs:write, …; * is everything
        #[arg(long, value_delimiter = ',', default_value = "*")]
        scopes: Vec<String>,
        /// Upstream models it may use; all without this
        #[arg(long, value_delimiter = ',', value_name = "MODEL")]
        models: Option<Vec<String>>,
        /// Server-side tools it may use; all without this
        #[arg(long, value_delimiter = ',', value_name = "TOOL")]
        tools: Option<Vec<String>>,
        /// When it expires, such as 90d; never without this
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
        /// How much may be done with it
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

/// What is left out is not limited.
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

/// What a limit's column holds.
const MOST: i64 = i32::MAX as i64;
/// As over HTTP.
const MOST_A_MONTH: u64 = 9_000_000_000_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Print the token by which a tenant's first owner registers; once it has one, refuse
    Bootstrap {
        /// The tenant's name or id; a name that no tenant has makes one
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Print an invite; no mail is sent, hand it over
    Invite {
        /// The tenant's name or id; a name that no tenant has makes one
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What they will be: viewer, member, admin or owner
        #[arg(long, default_value = "member")]
        role: baton_protocol::Role,
        /// The only address that it is good for; any without this
        #[arg(long)]
        email: Option<String>,
        /// When it expires, such as 3d; after auth.invite_life without this
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// Print a token by which somebody sets a new password; no mail is sent, hand it over
    ResetPassword {
        /// What they sign in with
        email: String,
    },
    /// List everybody, with their tenants
    List,
    /// Take somebody out of a tenant; print what they made there that ends with it, or goes on
    Remove {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The address that they sign in with
        email: String,
        /// Let the API keys that they made go on, and answer for them; without this they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Keep somebody out: their sessions end, and what they made in their tenants, which is printed
    Disable {
        /// The address that they sign in with
        email: String,
        /// Let the API keys that they made go on, and answer for them; without this they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Let somebody in again
    Enable {
        /// What they sign in with
        email: String,
    },
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    /// Only what happened in this tenant, by name or id
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Only what this actor did: a user's or key's id
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only this action, or all that begin so, such as `key.`
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only what was done, or only what was refused
    #[arg(long, value_parser = ["done", "refused"])]
    pub(crate) result: Option<String>,
    /// Only the last part of it, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// How many, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
    /// A line of JSON for each
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Drop whole months that have ended, as the database's owner (DATABASE_MIGRATE_URL)
    ///
    /// Prints the parts that it dropped with their sizes; the log says that it was done. Entries from
    /// before the log had parts are one of them. Copy what you must keep first: see `--json`.
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
    /// The first day, UTC, such as 2026-11-01; 29 days before the last without this
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<chrono::NaiveDate>,
    /// The last day, UTC; today without this
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<chrono::NaiveDate>,
    /// What to tell apart, with commas between
    #[arg(long, value_delimiter = ',', default_value = "day", value_parser = ["day", "key", "model"])]
    pub(crate) by: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List them, the oldest first: sequence, time, subject, run, reason; then when they were replayed
    ///
    /// The last replay of each, with what came of it, stands in a line of its own below it. It is in
    /// the audit log, for which the database is asked if one is configured.
    List {
        /// From this sequence on
        #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
        from: u64,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those that no replay has put on their way again
        #[arg(long)]
        open: bool,
    },
    /// Print one of them, with escapes for what a terminal would obey; what is known about it goes to
    /// standard error
    Show {
        /// Its sequence, as `list` shows it
        sequence: u64,
        /// Print its bytes as they came, for a file or another program
        #[arg(long)]
        raw: bool,
    },
    /// Put them on their way once more, after what was wrong with them is mended
    ///
    /// A submission goes to an ingress on behalf of whoever published it, and is checked like a new
    /// one; a job goes to the workers' queue. Doing so twice does no harm. The copies stay; `list`
    /// tells what became of each.
    Replay {
        /// Their sequences, as `list` shows them
        #[arg(value_name = "SEQUENCE", required_unless_present = "all_with_reason")]
        sequences: Vec<u64>,
        /// All whose reason has this in it, but for those that a replay has put on their way before
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
pub(crate) struct HealthcheckArgs {
    /// The role's admin address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) admin: SocketAddr,
}
