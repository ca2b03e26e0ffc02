//! The sections: small structs. Each key's doc ends with its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::values::{ByteSize, ConnectionUrl, Secret, optional_count};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `[http]`: the public listener of the ingress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port. Default: 0.0.0.0:8080.
    pub listen: SocketAddr,
    /// The largest request body. Default: 10MiB.
    pub body_limit: ByteSize,
    /// Bytes of request bodies that a process holds at a time, until their runs are committed; never
    /// less than twice `body_bytes_per_key`. Default: 32MiB.
    pub body_bytes: ByteSize,
    /// The same of one key or person, or of one network without a credential; never less than
    /// `body_limit`. Default: 16MiB.
    pub body_bytes_per_key: ByteSize,
    /// The time limit of a request's head. Default: 10s.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// The time limit of a request's body. Default: 30s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// The longest time that a client may leave an answer unread once its buffers are full.
    /// Default: 30s.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// The longest time between two requests of a connection. Set it above the idle time of the
    /// load balancer in front, which could otherwise use a connection that is just closing.
    /// Default: 75s.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Open connections; beyond them, new ones wait in the kernel's queue. An ingress does not start if
    /// its limit of open files is too low for them. Default: 20000, or what that limit allows.
    #[serde(deserialize_with = "optional_count")]
    pub max_connections: Option<usize>,
    /// Open connections of one client address (of IPv6: of 64 bits); beyond them, 429. Addresses of
    /// `trusted_proxies` have no such limit. Default: half of `max_connections`.
    #[serde(deserialize_with = "optional_count")]
    pub max_connections_per_address: Option<usize>,
    /// After SIGTERM: the time during which new connections are still accepted, so that load
    /// balancers notice. Default: 3s.
    #[serde(with = "humantime_serde")]
    pub lame_duck: Duration,
    /// After that: the time that open streams have to finish. Default: 25s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Silence on a stream after which a comment is sent; below every proxy's idle limit. Default: 15s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Networks of proxies that are trusted to report a client's address. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they report it; they must remove a client's own. Default:
    /// x-forwarded-for.
    pub forwarded_header: ForwardedHeader,
    /// Origins of pages that may call the API from a browser, such as `https://app.example`; exact,
    /// without a path. Default: none, no page may.
    pub cors_origins: Vec<String>,
    /// The time for which browsers must use HTTPS only (`Strict-Transport-Security`), for servers
    /// that are reached over TLS only, their own or a proxy's. Default: 0s, no header.
    #[serde(with = "humantime_serde")]
    pub hsts: Duration,
}

/// The header in which proxies report a client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// The usual header.
    #[default]
    XForwardedFor,
    /// The header of RFC 7239.
    Forwarded,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: any_address(8080),
            body_limit: ByteSize::mib(10),
            body_bytes: ByteSize::mib(32),
            body_bytes_per_key: ByteSize::mib(16),
            header_timeout: seconds(10),
            body_timeout: seconds(30),
            write_timeout: seconds(30),
            keep_alive: seconds(75),
            max_connections: None,
            max_connections_per_address: None,
            lame_duck: seconds(3),
            drain: seconds(25),
            heartbeat: seconds(15),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            cors_origins: Vec::new(),
            hsts: Duration::ZERO,
        }
    }
}

impl HttpConfig {
    /// Returns the number of connections that may be open.
    pub fn connections(&self) -> usize {
        self.max_connections.unwrap_or(Self::CONNECTIONS)
    }

    /// Returns the number of connections that one address may have open.
    pub fn connections_per_address(&self) -> usize {
        self.max_connections_per_address
            .unwrap_or_else(|| self.connections().div_ceil(2))
    }

    const CONNECTIONS: usize = 20_000;
}

/// `[admin]`: the addresses on which each role answers probes and Prometheus. They need no
/// credential: in a container, listen on `0.0.0.0` and publish the port to nobody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// The ingress. Default: 127.0.0.1:9464.
    pub ingress: SocketAddr,
    /// A worker. Default: 127.0.0.1:9465.
    pub worker: SocketAddr,
    /// The scheduler. Default: 127.0.0.1:9466.
    pub scheduler: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            ingress: loopback(9464),
            worker: loopback(9465),
            scheduler: loopback(9466),
        }
    }
}

/// `[database]`: PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The application role's URL, under row-level security; `DATABASE_URL`. Default: none.
    pub url: Option<ConnectionUrl>,
    /// The owner's URL, for `baton migrate` only; `DATABASE_MIGRATE_URL`. Default: none.
    pub migrate_url: Option<ConnectionUrl>,
    /// Connections of one role, at least 3. Default: 20.
    pub max_connections: u32,
    /// The longest wait for a free connection. Default: 5s.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            migrate_url: None,
            max_connections: 20,
            acquire_timeout: seconds(5),
        }
    }
}

/// `[nats]`: the broker. At most one of token, user with password, and credentials file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// One URL, or several separated by commas; `NATS_URL`. Default: none.
    pub url: Option<ConnectionUrl>,
    /// User name. Default: none.
    pub user: Option<String>,
    /// The user's password. Default: none.
    pub password: Option<Secret<String>>,
    /// A token instead of a user. Default: none.
    pub token: Option<Secret<String>>,
    /// A credentials file (JWT and nkey). Default: none.
    pub creds_file: Option<PathBuf>,
    /// The seed of the issuer that signs programs' permissions, which lets them connect with API
    /// keys; `baton nats-issuer` makes one. Requires a user and a password each of `system`,
    /// `callout` and `programs`. Default: none, programs cannot connect.
    pub callout_seed: Option<Secret<String>>,
    /// The seed that decrypts nats-server's questions, if its configuration has `xkey`; unencrypted
    /// questions are then refused. `baton nats-issuer` makes one. Default: none, nothing is
    /// encrypted.
    pub callout_xkey_seed: Option<Secret<String>>,
    /// The lifetime of a program's connection; its client then reconnects. Default: 1h.
    #[serde(with = "humantime_serde")]
    pub callout_session: Duration,
    /// Connections that one key of a program may have at a time. Default: 16.
    pub callout_connections: u32,
    /// The user of the connection on which servers ask an ingress about new connections.
    /// Default: none.
    pub callout_user: Option<String>,
    /// Its password. Default: none.
    pub callout_password: Option<Secret<String>>,
    /// The user of the connection on which an ingress reads programs' messages. Default: none.
    pub programs_user: Option<String>,
    /// Its password. Default: none.
    pub programs_password: Option<Secret<String>>,
    /// The user of the system account: an ingress counts programs' connections with it, and closes
    /// those of revoked keys. Default: none.
    pub system_user: Option<String>,
    /// Its password. Default: none.
    pub system_password: Option<Secret<String>>,
    /// A file of PEM certificates to trust instead of the system's; with it, or with `tls_cert`, a
    /// role makes only encrypted connections. Default: none.
    pub tls_ca: Option<PathBuf>,
    /// The role's own certificate, PEM; requires `tls_key`. Default: none.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM. Default: none.
    pub tls_key: Option<PathBuf>,
    /// The time limit of one attempt to connect. Default: 5s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Copies of each stream: 1, 3 or 5. Default: 1.
    pub replicas: usize,
    /// The time that events stay in the stream; the ledger keeps the runs. Default: 24h.
    #[serde(with = "humantime_serde")]
    pub event_retention: Duration,
    /// Storage of the job stream. Default: 1GiB.
    pub jobs_max_bytes: ByteSize,
    /// The most jobs of one tenant in one lane of the job stream, including those in progress;
    /// further ones are refused and published again later. Not below `limits.queued_per_tenant`.
    /// Default: 20000.
    pub jobs_per_tenant: u32,
    /// Storage of the event stream; the oldest give way. Default: 4GiB.
    pub events_max_bytes: ByteSize,
    /// The most messages of events of one run; it ends itself a little below, as completed with
    /// finish reason `length`. Default: 20000.
    pub events_per_run: u32,
    /// Storage of the stream of quarantined messages; the oldest give way. Default: 256MiB.
    pub dead_max_bytes: ByteSize,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: None,
            user: None,
            password: None,
            token: None,
            creds_file: None,
            callout_seed: None,
            callout_xkey_seed: None,
            callout_session: seconds(60 * 60),
            callout_connections: 16,
            callout_user: None,
            callout_password: None,
            programs_user: None,
            programs_password: None,
            system_user: None,
            system_password: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            connect_timeout: seconds(5),
            replicas: 1,
            event_retention: seconds(24 * 60 * 60),
            jobs_max_bytes: ByteSize::gib(1),
            jobs_per_tenant: 20_000,
            events_max_bytes: ByteSize::gib(4),
            events_per_run: 20_000,
            dead_max_bytes: ByteSize::mib(256),
        }
    }
}

/// `[worker]`: the role that runs agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Runs at a time. Default: 256.
    pub slots: usize,
    /// The slots that are reserved for interactive runs. Default: 64.
    pub interactive_slots: usize,
    /// The time that a run belongs to a worker without renewal. Default: 20s.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// The interval of renewals; below half of the lease. Default: 5s.
    #[serde(with = "humantime_serde")]
    pub renew_every: Duration,
    /// After SIGTERM: the time that a run has to finish its step. Default: 25s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// The most model turns of a run, if its agent sets no limit. Default: 10.
    pub max_turns: u32,
    /// Failures after which a run is given up. Default: 3.
    pub max_failures: u32,
    /// Tool calls of one turn at a time. Default: 8.
    pub tool_parallelism: usize,
    /// The time limit of a tool call. Default: 30s.
    #[serde(with = "humantime_serde")]
    pub tool_timeout: Duration,
    /// Calls of one tool at a time in a worker; further calls wait. Default: 64.
    pub tool_concurrency: usize,
    /// The time that a parked call waits for a decision before it is given up. Default: 7days.
    #[serde(with = "humantime_serde")]
    pub approval_expiry: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            slots: 256,
            interactive_slots: 64,
            lease: seconds(20),
            renew_every: seconds(5),
            drain: seconds(25),
            max_turns: 10,
            max_failures: 3,
            tool_parallelism: 8,
            tool_timeout: seconds(30),
            tool_concurrency: 64,
            approval_expiry: seconds(7 * 24 * 60 * 60),
        }
    }
}

/// `[scheduler]`: the role that repairs the state after crashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// The interval of sweeps, besides activations by events. Default: 5s.
    #[serde(with = "humantime_serde")]
    pub sweep_every: Duration,
    /// The longest wait for the broker's confirmation of a job. Default: 10s.
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            sweep_every: seconds(5),
            publish_timeout: seconds(10),
        }
    }
}

/// `[limits]`: limits of queues, requests and open streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Queued runs of one tenant; beyond them, 429. Default: 10000.
    pub queued_per_tenant: u64,
    /// Queued runs of all; beyond them, 503. Default: 100000.
    pub queued_total: u64,
    /// Requests of one address in any 60 seconds, with any credential; 0 for no limit. Default: 0.
    pub per_ip_per_minute: u32,
    /// Requests of one key or person in any 60 seconds, if the key has no limit of its own; 0 for no
    /// limit. Default: 0.
    pub per_key_per_minute: u32,
    /// The limit in any 24 hours. Default: 0.
    pub per_key_per_day: u32,
    /// The most tokens of an answer, if a key has a monthly budget and a request sets no limit.
    /// Default: 16384.
    pub budget_answer_tokens: u64,
    /// The tokens that a picture, a sound or a file in a message counts of such a budget until the
    /// upstream has reported them: no fewer than it takes. Default: 50000.
    pub budget_attachment_tokens: u64,
    /// Open event streams of one API key at one ingress; beyond them, 429. Default: 1000.
    pub streams_per_key: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            queued_per_tenant: 10_000,
            queued_total: 100_000,
            per_ip_per_minute: 0,
            per_key_per_minute: 0,
            per_key_per_day: 0,
            budget_answer_tokens: 16_384,
            budget_attachment_tokens: 50_000,
            streams_per_key: 1_000,
        }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `pretty` on a terminal, else `json`.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[log]`: log lines, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `auto`, `pretty` or `json`. Default: auto.
    pub format: LogFormat,
    /// A level, or directives such as `info,baton_worker=debug`; `RUST_LOG`. Default: info.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
        }
    }
}
