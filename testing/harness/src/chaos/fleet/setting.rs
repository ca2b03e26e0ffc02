//! What every process of Baton is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::bail;
use tokio::process::Command;

use crate::logins::{Logins, user_of};

/// How long a run belongs to a worker without renewal.
pub const LEASE: Duration = Duration::from_secs(3);

/// Short times, so that an hour holds many recoveries.
const SETTINGS: &[(&str, &str)] = &[
    ("BATON_WORKER__LEASE", "3s"),
    ("BATON_WORKER__RENEW_EVERY", "700ms"),
    ("BATON_WORKER__DRAIN", "5s"),
    // Deaths are plentiful here, and no fault of the run's.
    ("BATON_WORKER__MAX_FAILURES", "100"),
    ("BATON_SCHEDULER__SWEEP_EVERY", "1s"),
    ("BATON_SCHEDULER__PUBLISH_TIMEOUT", "2s"),
    ("BATON_HTTP__LAME_DUCK", "200ms"),
    ("BATON_HTTP__DRAIN", "3s"),
    // As by default, a little less than what it takes to replace a worker.
    ("BATON_HTTP__HEARTBEAT", "3s"),
    ("BATON_DATABASE__ACQUIRE_TIMEOUT", "2s"),
    ("BATON_NATS__CONNECT_TIMEOUT", "1s"),
    ("BATON_LLM__FIRST_BYTE_TIMEOUT", "3s"),
    ("BATON_LLM__IDLE_TIMEOUT", "3s"),
    ("LLM_DEFAULT_MODEL", "chaos"),
];

/// What every process of Baton is told.
#[derive(Debug)]
pub struct Setting {
    /// The program.
    pub baton: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where the roles' logs go.
    pub folder: PathBuf,
    /// The address of the broker.
    pub broker: SocketAddr,
    /// The users of the broker.
    pub logins: Logins,
    /// Where the database listens.
    pub database: SocketAddr,
    /// The database's users and their password, and its name: `(owner, app, password, database)`.
    pub login: (String, String, String, String),
    /// The secret that signs access tokens.
    pub jwt_secret: String,
    /// Where the model is reached.
    pub upstream: SocketAddr,
}

impl Setting {
    /// The program as this user of the broker, with the servers reached at these addresses.
    pub(super) fn command(&self, user: &str, broker: SocketAddr, database: SocketAddr) -> Command {
        let (owner, app, password, name) = &self.login;
        let url = |user: &str| format!("postgres://{user}:{password}@{database}/{name}");
        let mut command = Command::new(&self.baton);
        command
            .env_clear()
            .env("BATON_CONFIG", &self.config)
            .env("NATS_URL", format!("nats://{broker}"))
            .env("DATABASE_URL", url(app))
            .env("DATABASE_MIGRATE_URL", url(owner))
            .env("LLM_BASE_URL", format!("http://{}/v1", self.upstream))
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .envs(SETTINGS.iter().copied())
            .env("JWT_SECRET", &self.jwt_secret)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.logins.tell(user, &mut command);
        // Last, so that a caller can change anything.
        command.envs(std::env::vars().filter(|(name, _)| is_setting(name)));
        command
    }

    /// Where the application connects to the database, past all proxies.
    pub fn database_url(&self) -> String {
        let (_, app, password, name) = &self.login;
        format!("postgres://{app}:{password}@{}/{name}", self.database)
    }

    /// Runs a command to its end; returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(user_of(arguments), self.broker, self.database);
        let output = command.args(arguments).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("baton {}: {}\n{said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Whether an environment variable is a key of the configuration.
fn is_setting(name: &str) -> bool {
    name.starts_with("BATON_") && name.contains("__")
}
