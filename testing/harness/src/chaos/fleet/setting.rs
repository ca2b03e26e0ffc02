//! The settings of every process of Baton.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::bail;
use tokio::process::Command;

use crate::logins::{Logins, user_of};

/// The length of a worker's lease.
pub const LEASE: Duration = Duration::from_secs(3);

/// Short times, so that an hour holds many recoveries.
const SETTINGS: &[(&str, &str)] = &[
    ("BATON_WORKER__LEASE", "3s"),
    ("BATON_WORKER__RENEW_EVERY", "700ms"),
    ("BATON_WORKER__DRAIN", "5s"),
    // Workers die often here, which is not the fault of a run.
    ("BATON_WORKER__MAX_FAILURES", "100"),
    ("BATON_SCHEDULER__SWEEP_EVERY", "1s"),
    ("BATON_SCHEDULER__PUBLISH_TIMEOUT", "2s"),
    ("BATON_HTTP__LAME_DUCK", "200ms"),
    ("BATON_HTTP__DRAIN", "3s"),
    // As by default, this is a little less than the time it takes to replace a worker.
    ("BATON_HTTP__HEARTBEAT", "3s"),
    ("BATON_DATABASE__ACQUIRE_TIMEOUT", "2s"),
    ("BATON_NATS__CONNECT_TIMEOUT", "1s"),
    ("BATON_LLM__FIRST_BYTE_TIMEOUT", "3s"),
    ("BATON_LLM__IDLE_TIMEOUT", "3s"),
    ("LLM_DEFAULT_MODEL", "chaos"),
];

/// The settings of every process of Baton.
#[derive(Debug)]
pub struct Setting {
    /// The program.
    pub baton: PathBuf,
    /// An earlier version of the program, if roles of both versions are to work side by side.
    pub older: Option<PathBuf>,
    /// Its configuration file.
    pub config: PathBuf,
    /// The folder for the roles' logs.
    pub folder: PathBuf,
    /// The address of the broker.
    pub broker: SocketAddr,
    /// The users of the broker.
    pub logins: Logins,
    /// The address of the database.
    pub database: SocketAddr,
    /// The database's users and their password, and its name: `(owner, app, password, database)`.
    pub login: (String, String, String, String),
    /// The secret that signs access tokens.
    pub jwt_secret: String,
    /// The address of the model.
    pub upstream: SocketAddr,
}

impl Setting {
    /// Returns the program of a role's `start`-th process. With an earlier version, each role changes
    /// between the two, and its neighbour has the other one.
    pub(super) fn program(&self, role: usize, start: usize) -> &Path {
        let older = self.older.as_deref();
        older
            .filter(|_| (role + start) % 2 == 1)
            .unwrap_or(&self.baton)
    }

    /// Returns the command of a program, as this user of the broker and with these addresses of the
    /// servers.
    pub(super) fn command(
        &self,
        program: &Path,
        user: &str,
        broker: SocketAddr,
        database: SocketAddr,
    ) -> Command {
        let (owner, app, password, name) = &self.login;
        let url = |user: &str| format!("postgres://{user}:{password}@{database}/{name}");
        let mut command = Command::new(program);
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
        // These come last, so that a caller can change every setting.
        command.envs(std::env::vars().filter(|(name, _)| is_setting(name)));
        command
    }

    /// Returns the application's URL of the database, around all proxies.
    pub fn database_url(&self) -> String {
        let (_, app, password, name) = &self.login;
        format!("postgres://{app}:{password}@{}/{name}", self.database)
    }

    /// Prepares database and broker; those of an earlier version are upgraded.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        if let Some(older) = &self.older {
            self.run_as(older, &["migrate"]).await?;
        }
        self.run(&["migrate"]).await.map(drop)
    }

    /// Runs a command to its end; returns its output.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_as(&self.baton, arguments).await
    }

    async fn run_as(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let user = user_of(arguments);
        let mut command = self.command(program, user, self.broker, self.database);
        let output = command.args(arguments).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("baton {}: {}\n{said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Returns whether an environment variable is a key of the configuration.
fn is_setting(name: &str) -> bool {
    name.starts_with("BATON_") && name.contains("__")
}
