//! A Baton of real processes on real servers, for tests that kill parts of it.
//!
//! Each stack has a database and a nats-server of its own; its roles are child processes of the
//! test, each on free ports. The output of the roles is shown when the test fails.

mod role;

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use baton_devstack::{Data, NatsServer, Postgres, PostgresOptions};
use baton_identity::ApiKey;
use baton_nats::{Bus, BusOptions};
use baton_protocol::{ApiKeyId, TenantId};
use baton_store::{Login, SLOW_GROUP, Store, StoreOptions, bootstrap};
use baton_test_ledger::{TestDatabase, close_log_segment};
use tempfile::TempDir;
use tokio::process::Command;

use crate::asker::Asker;
use crate::chaos::broker_disk::copy_folder;
use crate::client::{Client, PATIENCE};
use crate::logins::{Logins, user_of};

pub use role::{Kind, Role};

/// The parts and settings of a stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The `baton` program.
    pub program: PathBuf,
    /// The model's address, up to and with `/v1`.
    pub upstream: String,
    /// Further environment of every role, such as `BATON_WORKER__LEASE`.
    pub settings: Vec<(&'static str, String)>,
    /// The configuration file, for settings that the environment cannot express, such as tools.
    pub config: String,
    /// Whether PostgreSQL is the stack's own, so that it can be crashed; otherwise a database on
    /// the shared one.
    pub own_postgres: bool,
    /// The folder of the broker's streams; otherwise a temporary one.
    pub broker_folder: Option<PathBuf>,
    /// The folder of the stack's own PostgreSQL; otherwise as for the broker.
    pub database_folder: Option<PathBuf>,
    /// The user and the password for everybody at the broker (letters, digits and `-`). Without
    /// them the broker has the accounts as delivered, and admits programs with their keys.
    pub broker_login: Option<(String, String)>,
}

impl StackOptions {
    /// Makes roles of this program that stop at once, sweep often, and otherwise have default
    /// settings.
    pub fn new(program: impl Into<PathBuf>, upstream: impl Into<String>) -> Self {
        let settings = [
            ("BATON_HTTP__LAME_DUCK", "100ms"),
            ("BATON_SCHEDULER__SWEEP_EVERY", "250ms"),
            ("BATON_SCHEDULER__PUBLISH_TIMEOUT", "1s"),
            ("RUST_LOG", "info,baton_worker=debug,baton_nats=debug"),
        ];
        Self {
            program: program.into(),
            upstream: upstream.into(),
            settings: settings
                .map(|(name, value)| (name, value.to_owned()))
                .into(),
            config: String::new(),
            own_postgres: false,
            broker_folder: None,
            database_folder: None,
            broker_login: None,
        }
    }

    /// Sets one more environment variable.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// Sets a lease so short that a test can wait for its end.
    #[must_use]
    pub fn short_lease(self) -> Self {
        self.set("BATON_WORKER__LEASE", "3s")
            .set("BATON_WORKER__RENEW_EVERY", "500ms")
    }

    /// Sets a lease so long that no test waits for its end.
    #[must_use]
    pub fn long_lease(self) -> Self {
        self.set("BATON_WORKER__LEASE", "30m")
            .set("BATON_WORKER__RENEW_EVERY", "10m")
    }
}

/// A database, a broker, and the settings for starting roles on them.
pub struct Stack {
    options: StackOptions,
    database: Database,
    /// The broker, to be killed, wiped and started again.
    pub nats: NatsServer,
    logins: Logins,
    api_key: String,
    started: AtomicUsize,
    folder: TempDir,
}

/// A copy of a broker's disk.
#[derive(Debug)]
pub struct BrokerBackup(TempDir);

enum Database {
    Shared(Box<TestDatabase>),
    Own(Box<Postgres>),
}

const OWNER: &str = "baton_owner";
const APP: &str = "baton";
const DATABASE: &str = "baton";

impl Stack {
    /// Starts the servers, prepares both by `baton migrate`, and makes a key by `baton keys`.
    pub async fn start(options: StackOptions) -> anyhow::Result<Self> {
        let logins = match options.broker_login.clone() {
            Some((user, password)) => Logins::One { user, password },
            None => Logins::delivered()?,
        };
        let (nats, database) = tokio::try_join!(
            logins.start(kept_in(options.broker_folder.as_deref())),
            Database::make(&options)
        )?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("baton.toml"), &options.config)?;
        let mut stack = Self {
            options,
            database,
            nats,
            logins,
            api_key: String::new(),
            started: AtomicUsize::new(0),
            folder,
        };
        stack.run(&["migrate"]).await?;
        stack.api_key = stack.run(&["keys", "create", "--name", "test"]).await?;
        Ok(stack)
    }

    /// Runs a command of the program to its end, with further environment. Returns whether it
    /// succeeded, and its whole output.
    pub async fn output_of(
        &self,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<(bool, String)> {
        let output = self
            .command(user_of(arguments))
            .envs(settings.iter().copied())
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .with_context(|| format!("baton {} does not end", arguments.join(" ")))??;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    }

    /// Runs a command of the program to its end; returns its standard output.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(user_of(arguments))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("baton {}: {}\n{errors}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Returns the program's command with the stack's environment and no other, as this user of the
    /// broker.
    fn command(&self, user: &str) -> Command {
        let mut command = Command::new(&self.options.program);
        command
            .env_clear()
            .env("BATON_CONFIG", self.folder.path().join("baton.toml"))
            .env("DATABASE_URL", self.database.url(APP))
            .env("DATABASE_MIGRATE_URL", self.database.url(OWNER))
            .env("NATS_URL", self.nats.url())
            .env("LLM_BASE_URL", &self.options.upstream)
            .env("LLM_DEFAULT_MODEL", "script")
            .env("BATON_TOOLS__BUILT_IN", r#"["calculator","current_time"]"#);
        self.logins.tell(user, &mut command);
        let settings = self.options.settings.iter();
        command.envs(settings.map(|(name, value)| (name, value)));
        command
    }

    /// Starts an ingress, and waits until it is ready.
    pub async fn ingress(&self) -> anyhow::Result<Role> {
        self.role(Kind::Ingress).await
    }

    /// Starts an ingress that reaches the broker by this address, and waits until it is ready.
    pub async fn ingress_behind(&self, broker: SocketAddr) -> anyhow::Result<Role> {
        self.role_with(Kind::Ingress, &[("NATS_URL", format!("nats://{broker}"))])
            .await
    }

    /// Starts an ingress that is passed this socket as systemd passes one, and waits until it is
    /// ready. Every process that this one starts afterwards inherits the socket.
    pub async fn ingress_on(&self, socket: &std::net::TcpListener) -> anyhow::Result<Role> {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
        let passed = [
            ("LISTEN_FDS", "1".to_owned()),
            ("LISTEN_FDS_FIRST_FD", socket.as_raw_fd().to_string()),
        ];
        self.role_with(Kind::Ingress, &passed).await
    }

    /// Starts a worker, and waits until it accepts jobs.
    pub async fn worker(&self) -> anyhow::Result<Role> {
        self.role(Kind::Worker).await
    }

    /// Starts a worker that reaches the broker by this address, and waits until it accepts jobs.
    pub async fn worker_behind(&self, broker: SocketAddr) -> anyhow::Result<Role> {
        self.role_with(Kind::Worker, &[("NATS_URL", format!("nats://{broker}"))])
            .await
    }

    /// Starts a scheduler, and waits until it is ready.
    pub async fn scheduler(&self) -> anyhow::Result<Role> {
        self.role(Kind::Scheduler).await
    }

    async fn role(&self, kind: Kind) -> anyhow::Result<Role> {
        self.role_with(kind, &[]).await
    }

    async fn role_with(&self, kind: Kind, settings: &[(&str, String)]) -> anyhow::Result<Role> {
        // Another process may take a free port before the role binds it.
        const TRIES: usize = 3;

        let mut tries = 0;
        loop {
            tries += 1;
            let number = self.started.fetch_add(1, Ordering::Relaxed);
            let log = self.logs().join(format!("{number}-{}.log", kind.name()));
            let mut command = self.command(kind.name());
            command.envs(settings.iter().map(|(name, value)| (name, value)));
            match Role::start(kind, command, log).await {
                Ok(role) => return Ok(role),
                Err(error) if tries < TRIES => {
                    eprintln!("{} is started again: {error:#}", kind.name());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn logs(&self) -> &Path {
        self.folder.path()
    }

    /// Changes the roles' configuration file. Running roles read it after [`Role::hang_up`].
    pub fn configure(&self, config: &str) -> anyhow::Result<()> {
        // Written under another name first, so that no role reads half of it.
        let unfinished = self.folder.path().join("baton.toml.unfinished");
        std::fs::write(&unfinished, config)?;
        std::fs::rename(unfinished, self.folder.path().join("baton.toml"))?;
        Ok(())
    }

    /// Returns a client of this ingress, with a key that may do everything.
    ///
    /// # Panics
    ///
    /// If the role is no ingress.
    pub fn client(&self, ingress: &Role) -> Client {
        ingress.client(&self.api_key)
    }

    /// Returns the key that may do everything.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Returns the password of both database users, if PostgreSQL is the stack's own.
    pub fn database_password(&self) -> Option<&str> {
        match &self.database {
            Database::Shared(_) => None,
            Database::Own(postgres) => Some(postgres.superuser_password()),
        }
    }

    /// Returns the data folder of the stack's own PostgreSQL.
    pub fn database_disk(&self) -> Option<PathBuf> {
        match &self.database {
            Database::Shared(_) => None,
            Database::Own(postgres) => Some(postgres.data_dir()),
        }
    }

    /// Returns everything that the roles have written so far, to their standard output and error.
    pub fn logged(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.logs())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                all.push_str(&String::from_utf8_lossy(&std::fs::read(path)?));
            }
        }
        Ok(all)
    }

    /// Returns the name and password of the user who may do everything at the broker.
    pub fn broker_user(&self) -> (String, String) {
        self.logins.unlimited()
    }

    /// Returns every secret that gives access to the broker, with its name.
    pub fn broker_secrets(&self) -> Vec<(&'static str, String)> {
        self.logins.secrets()
    }

    /// Opens the test's own connection to the broker, which may do everything.
    pub async fn bus(&self) -> anyhow::Result<Bus> {
        let auth = self.logins.auth();
        let options = BusOptions::new(self.nats.url(), "test");
        Ok(Bus::connect(BusOptions { auth, ..options }).await?)
    }

    /// Returns the tenant of the stack's key.
    pub async fn tenant(&self) -> anyhow::Result<TenantId> {
        Ok(self.tenant_and_key().await?.0)
    }

    /// Opens the test's own connections to the ledger, with the rights of the roles.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(StoreOptions {
            url: self.database.url(APP),
            max_connections: 3,
            acquire_timeout: PATIENCE,
            slow_group: SLOW_GROUP,
            application_name: "test".to_owned(),
        })
        .await?)
    }

    async fn tenant_and_key(&self) -> anyhow::Result<(TenantId, ApiKeyId)> {
        let store = self.store().await?;
        let hash = ApiKey::parse(&self.api_key)?.hash();
        let found = store.system().find_api_key(&hash).await?;
        store.close().await;
        let record = found.context("the stack's key is gone")?;
        Ok((record.tenant, record.id))
    }

    /// Connects a program for requests about a run over the bus, with the key that may do
    /// everything. It needs a running ingress, which admits it.
    pub async fn asker(&self, run: &str) -> anyhow::Result<Asker> {
        let (tenant, key) = self.tenant_and_key().await?;
        Asker::connect(self.nats.url(), (&self.api_key, key), tenant, run).await
    }

    /// Ends the broker by SIGKILL and starts it again with its disk.
    pub async fn crash_broker(&mut self) -> anyhow::Result<()> {
        self.nats.kill().await;
        Ok(self.nats.restart().await?)
    }

    /// As [`Stack::crash_broker`], but the disk is lost.
    pub async fn wipe_broker(&mut self) -> anyhow::Result<()> {
        self.nats.kill().await;
        let store = self.nats.store_dir().join("jetstream");
        std::fs::remove_dir_all(&store)
            .with_context(|| format!("cannot wipe {}", store.display()))?;
        Ok(self.nats.restart().await?)
    }

    /// Stops the broker, keeps a copy of its disk, and starts it again.
    pub async fn back_up_broker(&mut self) -> anyhow::Result<BrokerBackup> {
        self.nats.kill().await;
        let backup = BrokerBackup(tempfile::tempdir()?);
        copy_folder(&self.nats.store_dir(), backup.0.path())?;
        self.nats.restart().await?;
        Ok(backup)
    }

    /// Ends the broker by SIGKILL and starts it again with an older copy of its disk, as after a
    /// crash that lost unsynced writes.
    pub async fn restore_broker(&mut self, backup: &BrokerBackup) -> anyhow::Result<()> {
        self.nats.kill().await;
        let store = self.nats.store_dir();
        std::fs::remove_dir_all(store.join("jetstream"))?;
        copy_folder(backup.0.path(), &store)?;
        Ok(self.nats.restart().await?)
    }

    /// Makes PostgreSQL begin a new segment of its log; returns whether it still accepted the
    /// request.
    pub async fn close_log_segment(&mut self) -> anyhow::Result<bool> {
        let url = self.own_postgres()?.superuser_url().to_owned();
        Ok(close_log_segment(&url).await.is_ok())
    }

    /// Ends the stack's own PostgreSQL as a crash would, and starts it again.
    pub async fn crash_postgres(&mut self) -> anyhow::Result<()> {
        let postgres = self.own_postgres()?;
        postgres.kill_immediate().await;
        Ok(postgres.restart().await?)
    }

    /// Ends the stack's own PostgreSQL as a crash would, for good.
    pub async fn kill_postgres(&mut self) -> anyhow::Result<()> {
        self.own_postgres()?.kill_immediate().await;
        Ok(())
    }

    /// Returns the stack's own PostgreSQL, to be watched and started again.
    pub fn own_postgres(&mut self) -> anyhow::Result<&mut Postgres> {
        match &mut self.database {
            Database::Own(postgres) => Ok(postgres),
            Database::Shared(_) => {
                bail!("a shared PostgreSQL is not to be crashed: ask for `own_postgres`")
            }
        }
    }
}

fn kept_in(folder: Option<&Path>) -> Data {
    folder.map_or(Data::Ephemeral, |folder| Data::Keep(folder.to_owned()))
}

impl Drop for Stack {
    /// Shows the roles' output when a test fails.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let entries = std::fs::read_dir(self.logs())
            .into_iter()
            .flatten()
            .flatten();
        let mut logs: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let name = log
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            eprintln!("--- {name}\n{text}");
        }
    }
}

impl Database {
    async fn make(options: &StackOptions) -> anyhow::Result<Self> {
        if !options.own_postgres {
            return Ok(Self::Shared(Box::new(TestDatabase::create().await)));
        }
        let postgres = Postgres::start(PostgresOptions {
            // PostgreSQL must survive a crash with everything that it has confirmed.
            durable: true,
            data: kept_in(options.database_folder.as_deref()),
            ..PostgresOptions::ephemeral()
        })
        .await?;
        let password = postgres.superuser_password();
        let login = |user| Login { user, password };
        bootstrap(postgres.superuser_url(), DATABASE, login(OWNER), login(APP)).await?;
        Ok(Self::Own(Box::new(postgres)))
    }

    fn url(&self, user: &str) -> String {
        match self {
            Self::Shared(database) if user == OWNER => database.migrate_url.clone(),
            Self::Shared(database) => database.database_url.clone(),
            Self::Own(postgres) => postgres.url_for(DATABASE, user, postgres.superuser_password()),
        }
    }
}
