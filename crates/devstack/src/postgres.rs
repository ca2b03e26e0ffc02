//! A private PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::data_dir::DataDir;
use crate::ports::free_port;
use crate::process::{NotReady, ServerProcess, StopBy};
use crate::{Data, DevstackError, PostgresBinaries, Progress, locate_postgres};

const SERVER: &str = "PostgreSQL";
const HOST: &str = "127.0.0.1";
/// The role that owns everything at first, and the name of the database that it connects to.
const SUPERUSER: &str = "postgres";

/// The options of a PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The place of its databases.
    pub data: Data,
    /// Its port; a free one if absent.
    pub port: Option<u16>,
    /// Whether a commit survives a crash of the machine. Without it, tests run several times
    /// faster, and commits still survive a crash of the server alone.
    pub durable: bool,
    /// Settings by name, which override those chosen here.
    pub settings: Vec<(String, String)>,
    /// The programs, if they are already known.
    pub binaries: Option<PostgresBinaries>,
    /// The reporter of slow steps.
    pub progress: Progress,
}

impl PostgresOptions {
    /// Returns the options of a durable server that keeps its databases in `data_dir`.
    pub fn keeping(data_dir: impl Into<PathBuf>) -> Self {
        Self::new(Data::Keep(data_dir.into()), true)
    }

    /// Returns the options of a fast server that leaves nothing behind.
    pub fn ephemeral() -> Self {
        Self::new(Data::Ephemeral, false)
    }

    fn new(data: Data, durable: bool) -> Self {
        let (port, settings, binaries) = (None, Vec::new(), None);
        Self {
            data,
            port,
            durable,
            settings,
            binaries,
            progress: Progress::Silent,
        }
    }
}

/// A running PostgreSQL, stopped when dropped; see [`Postgres::stop`] for an orderly end.
#[derive(Debug)]
pub struct Postgres {
    // Before `data`, so that it is dropped first and the guardian has the lock while it stops the
    // server.
    process: ServerProcess,
    data: DataDir,
    launch: Launch,
    password: String,
    superuser_url: String,
}

/// The parameters of a start, and of a later one with the same port.
#[derive(Debug)]
struct Launch {
    binaries: PostgresBinaries,
    account: Account,
    durable: bool,
    settings: Vec<(String, String)>,
    port: u16,
}

impl Postgres {
    /// Finds the server, makes its data if there are none, starts it, and waits until it accepts
    /// connections.
    pub async fn start(options: PostgresOptions) -> Result<Self, DevstackError> {
        let progress = options.progress;
        let binaries = match options.binaries.clone() {
            Some(binaries) => binaries,
            None => locate_postgres(progress).await?,
        };
        progress
            .during("starting PostgreSQL", Self::start_found(options, binaries))
            .await
    }

    async fn start_found(
        options: PostgresOptions,
        binaries: PostgresBinaries,
    ) -> Result<Self, DevstackError> {
        const TRIES: u32 = 5;

        let account = Account::choose()?;
        let data = DataDir::open(&options.data, "postgres", &account, options.progress).await?;
        let PostgresOptions {
            durable, settings, ..
        } = options;
        let mut launch = Launch {
            binaries,
            account,
            durable,
            settings,
            port: 0,
        };
        let password = launch.prepare(&data).await?;
        let mut tries = 0;
        let process = loop {
            tries += 1;
            launch.port = options.port.map_or_else(free_port, Ok)?;
            match launch.run(&data).await {
                Ok(process) => break process,
                Err(NotReady::AddressInUse(_)) if tries < TRIES && options.port.is_none() => {}
                Err(error) => return Err(error.into_error()),
            }
        };
        let superuser_url = format!(
            "postgres://{SUPERUSER}:{password}@{HOST}:{}/{SUPERUSER}",
            launch.port
        );
        Ok(Self {
            process,
            data,
            launch,
            password,
            superuser_url,
        })
    }

    /// Returns the superuser's address, for the database `postgres`.
    pub fn superuser_url(&self) -> &str {
        &self.superuser_url
    }

    /// Returns the superuser's password, which is also in the file `superuser-password` of the data
    /// folder.
    pub fn superuser_password(&self) -> &str {
        &self.password
    }

    /// Returns the address for `user` and `database`. None of the three may need percent-encoding,
    /// because they are not encoded.
    pub fn url_for(&self, database: &str, user: &str, password: &str) -> String {
        format!(
            "postgres://{user}:{password}@{HOST}:{}/{database}",
            self.launch.port
        )
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// Returns the process id of the postmaster; a new one after each restart.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the folder of its databases.
    pub fn data_dir(&self) -> PathBuf {
        self.data.data()
    }

    /// Returns the server's log file.
    pub fn log(&self) -> PathBuf {
        self.data.log()
    }

    /// Returns the programs that it runs from.
    pub fn binaries(&self) -> &PostgresBinaries {
        &self.launch.binaries
    }

    /// Returns whether it runs; false after [`Postgres::kill_immediate`], and if it ended by
    /// itself.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits until it has ended, for any reason.
    pub async fn until_ended(&mut self) {
        self.process.until_ended().await;
    }

    /// Stops it, cutting its connections, waits for its end, and removes an ephemeral folder.
    pub async fn stop(mut self) -> Result<(), DevstackError> {
        self.process.stop().await;
        self.data.remove_if_ephemeral().await
    }

    /// Ends it at once and without a checkpoint, as `pg_ctl stop -m immediate`: the next start
    /// recovers from the log, as after a crash.
    pub async fn kill_immediate(&mut self) {
        self.process.stop_by(immediate()).await;
    }

    /// Starts it again with the same port and data. Stops it in order first if it still runs.
    pub async fn restart(&mut self) -> Result<(), DevstackError> {
        self.process.stop_by(orderly()).await;
        self.process = self
            .launch
            .run(&self.data)
            .await
            .map_err(NotReady::into_error)?;
        Ok(())
    }
}

impl Launch {
    /// Makes the database cluster if it is missing, and returns the superuser's password.
    async fn prepare(&self, data: &DataDir) -> Result<String, DevstackError> {
        let password_file = data.path().join("superuser-password");
        if let Ok(made_by) = fs::read_to_string(data.data().join("PG_VERSION")) {
            let (path, made_by) = (data.path().to_owned(), made_by.trim().to_owned());
            let found = self.binaries.version.major;
            if made_by != found.to_string() {
                return Err(DevstackError::DataVersion {
                    path,
                    made_by,
                    found,
                });
            }
            let what = format!("read {}", password_file.display());
            let password = fs::read_to_string(password_file).map_err(DevstackError::io(what))?;
            return Ok(password.trim().to_owned());
        }
        let password = hex::encode(rand::random::<[u8; 24]>());
        write_secret(&password_file, &password, &self.account)?;
        self.initdb(data, &password_file).await?;
        Ok(password)
    }

    async fn initdb(&self, data: &DataDir, password_file: &Path) -> Result<(), DevstackError> {
        // Renamed when it is complete, so that an interrupted initdb leaves nothing that looks like
        // data.
        let staging = data.path().join("data.part");
        let failed = || DevstackError::io(format!("replace {}", staging.display()));
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(failed())?;
        }
        let mut command = Command::new(self.binaries.bin.join("initdb"));
        command
            .arg("--pgdata")
            .arg(&staging)
            .arg("--pwfile")
            .arg(password_file)
            .args([
                "--username",
                SUPERUSER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
            ])
            // Strings sort the same on every machine.
            .args(["--no-locale", "--no-instructions"])
            .env("LC_ALL", "C")
            .current_dir(data.path());
        if !self.durable {
            command.arg("--no-sync");
        }
        self.account.apply(&mut command);
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(DevstackError::io("run initdb"))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let detail = format!("{}\n{said}", output.status);
            return Err(DevstackError::Command {
                what: "initdb".to_owned(),
                detail,
            });
        }
        fs::rename(&staging, data.data()).map_err(failed())
    }

    async fn run(&self, data: &DataDir) -> Result<ServerProcess, NotReady> {
        // Includes the recovery after a crash.
        const LIMIT: Duration = Duration::from_mins(1);

        let mut command = Command::new(self.binaries.bin.join("postgres"));
        command
            .arg("-D")
            .arg(data.data())
            .args(["-p", &self.port.to_string()])
            .env("LC_ALL", "C");
        let fixed = [
            ("listen_addresses", HOST),
            // A socket's path may have only 107 bytes, which a data folder easily exceeds.
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let careless = [
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
        ];
        let careless = if self.durable { &[][..] } else { &careless[..] };
        for (name, value) in fixed.iter().chain(careless) {
            command.args(["-c", &format!("{name}={value}")]);
        }
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        // Data that will be removed needs no checkpoint.
        let stop_by = if data.to_remove().is_some() {
            immediate()
        } else {
            orderly()
        };
        let mut process = ServerProcess::start(SERVER, command, data, &self.account, stop_by)
            .map_err(NotReady::Failed)?;
        let state = data.data().join("postmaster.pid");
        let pid = process.pid();
        let ready = async || says_ready(&state, pid) && takes_connections(self.port).await;
        process.until_ready(data, LIMIT, ready).await?;
        Ok(process)
    }
}

/// Stops by a fast shutdown: clients are disconnected, a checkpoint is written.
fn orderly() -> StopBy {
    StopBy {
        signal: Signal::SIGINT,
        grace: Duration::from_secs(10),
    }
}

fn immediate() -> StopBy {
    StopBy {
        signal: Signal::SIGQUIT,
        grace: Duration::from_secs(5),
    }
}

fn write_secret(path: &Path, secret: &str, account: &Account) -> Result<(), DevstackError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let failed = || DevstackError::io(format!("write {}", path.display()));
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed())?;
    file.write_all(secret.as_bytes()).map_err(failed())?;
    account.take(path, 0o600)
}

/// Returns whether the server with this process id reports itself as ready in its state file (as
/// `pg_ctl` reads it: the first line is the process id, the eighth the status). So another server
/// on the port cannot be mistaken for it.
fn says_ready(state: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(state) else {
        return false;
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

/// Returns whether a connection gets as far as the password request.
async fn takes_connections(port: u16) -> bool {
    const PROTOCOL_3: u32 = 3 << 16;
    const AUTHENTICATION: u8 = b'R';

    let asked = async {
        let mut stream = TcpStream::connect((HOST, port)).await?;
        let mut startup = PROTOCOL_3.to_be_bytes().to_vec();
        for text in ["user", SUPERUSER, "database", SUPERUSER, ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        // The length includes its own four bytes; the packet has some forty.
        let length = u32::try_from(startup.len() + 4).unwrap_or(u32::MAX);
        stream
            .write_all(&[length.to_be_bytes().to_vec(), startup].concat())
            .await?;
        stream.read_u8().await
    };
    asked.await.is_ok_and(|kind| kind == AUTHENTICATION)
}
