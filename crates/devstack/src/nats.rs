//! A private nats-server with JetStream.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::data_dir::DataDir;
use crate::ports::free_port;
use crate::process::{NotReady, ServerProcess, StopBy};
use crate::{Data, DevstackError, NatsBinary, Progress, locate_nats};

const SERVER: &str = "nats-server";
const HOST: &str = "127.0.0.1";

/// The server's configuration, apart from its addresses and its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsConfig {
    /// A configuration with JetStream limits for development, followed by these lines.
    Own {
        /// More configuration, such as `max_payload: 2MB`; may be empty.
        extra: String,
    },
    /// This file, unchanged. The account that servers run as must be able to read it. Arguments
    /// still set host, ports and store folder.
    File(PathBuf),
}

/// The options of a nats-server.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The place of its streams.
    pub data: Data,
    /// The port for clients; a free one if absent.
    pub port: Option<u16>,
    /// Further settings.
    pub config: NatsConfig,
    /// The program, if it is already known.
    pub binary: Option<NatsBinary>,
    /// The reporter of slow steps.
    pub progress: Progress,
}

impl NatsOptions {
    /// Returns the options of a server that keeps its streams in `data_dir`.
    pub fn keeping(data_dir: impl Into<PathBuf>) -> Self {
        Self::new(Data::Keep(data_dir.into()))
    }

    /// Returns the options of a server that leaves nothing behind.
    pub fn ephemeral() -> Self {
        Self::new(Data::Ephemeral)
    }

    fn new(data: Data) -> Self {
        Self {
            data,
            port: None,
            config: NatsConfig::Own {
                extra: String::new(),
            },
            binary: None,
            progress: Progress::Silent,
        }
    }
}

/// A running nats-server, stopped when dropped; see [`NatsServer::stop`] for an orderly end.
#[derive(Debug)]
pub struct NatsServer {
    // Before `data`, so that it is dropped first and the guardian has the lock while it stops the
    // server.
    process: ServerProcess,
    data: DataDir,
    launch: Launch,
    url: String,
    monitor_url: String,
}

/// The parameters of a start, and of a later one with the same ports.
#[derive(Debug)]
struct Launch {
    binary: NatsBinary,
    account: Account,
    config: PathBuf,
    port: u16,
    monitor_port: u16,
}

impl NatsServer {
    /// Finds the server, starts it, and waits until JetStream is ready.
    pub async fn start(options: NatsOptions) -> Result<Self, DevstackError> {
        let progress = options.progress;
        let binary = match options.binary.clone() {
            Some(binary) => binary,
            None => locate_nats(progress).await?,
        };
        progress
            .during("starting nats-server", Self::start_found(options, binary))
            .await
    }

    async fn start_found(options: NatsOptions, binary: NatsBinary) -> Result<Self, DevstackError> {
        const TRIES: u32 = 5;

        let account = Account::choose()?;
        let data = DataDir::open(&options.data, "nats", &account, options.progress).await?;
        let store = data.data();
        std::fs::create_dir_all(&store)
            .map_err(DevstackError::io(format!("make {}", store.display())))?;
        account.take(&store, 0o700)?;
        let config = match options.config {
            NatsConfig::File(path) => path,
            NatsConfig::Own { extra } => write_config(&data, &account, &extra)?,
        };
        let mut launch = Launch {
            binary,
            account,
            config,
            port: 0,
            monitor_port: 0,
        };
        let mut tries = 0;
        let process = loop {
            tries += 1;
            launch.port = options.port.map_or_else(free_port, Ok)?;
            launch.monitor_port = free_port()?;
            match launch.run(&data).await {
                Ok(process) => break process,
                // Retried even if the caller chose the port, because the monitoring port may be the
                // taken one.
                Err(NotReady::AddressInUse(_)) if tries < TRIES => {}
                Err(error) => {
                    data.remove_if_ephemeral().await?;
                    return Err(error.into_error());
                }
            }
        };
        let url = format!("nats://{HOST}:{}", launch.port);
        let monitor_url = format!("http://{HOST}:{}", launch.monitor_port);
        Ok(Self {
            process,
            data,
            launch,
            url,
            monitor_url,
        })
    }

    /// Returns the clients' address, `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the monitoring address, `http://127.0.0.1:<port>`.
    pub fn monitor_url(&self) -> &str {
        &self.monitor_url
    }

    /// Returns the port of [`NatsServer::url`].
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// Returns the process id of the server; a new one after each restart.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the folder given to JetStream.
    pub fn store_dir(&self) -> PathBuf {
        self.data.data()
    }

    /// Returns the server's log file.
    pub fn log(&self) -> PathBuf {
        self.data.log()
    }

    /// Returns the program that runs.
    pub fn binary(&self) -> &NatsBinary {
        &self.launch.binary
    }

    /// Returns whether it runs; false after [`NatsServer::kill`], and if it ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Returns whether it reports itself as healthy, as supervisors ask.
    pub async fn is_healthy(&self) -> bool {
        is_healthy(self.launch.monitor_port).await
    }

    /// Waits until it has ended, for any reason.
    pub async fn until_ended(&mut self) {
        self.process.until_ended().await;
    }

    /// Stops it in order, waits for its end, and removes an ephemeral folder.
    pub async fn stop(mut self) -> Result<(), DevstackError> {
        self.process.stop().await;
        self.data.remove_if_ephemeral().await
    }

    /// Kills it with SIGKILL, as a crash would, and waits for its end. Its data stays until
    /// [`NatsServer::restart`] or [`NatsServer::stop`].
    pub async fn kill(&mut self) {
        let by = StopBy {
            signal: Signal::SIGKILL,
            grace: Duration::from_secs(10),
        };
        self.process.stop_by(by).await;
    }

    /// Starts it again with the same ports and data. Stops it in order first if it still runs.
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
    async fn run(&self, data: &DataDir) -> Result<ServerProcess, NotReady> {
        const LIMIT: Duration = Duration::from_secs(30);

        let mut command = Command::new(&self.binary.path);
        command
            .args(["--addr", HOST, "--port", &self.port.to_string()])
            .args(["--http_port", &self.monitor_port.to_string()])
            .arg("--jetstream")
            .arg("--store_dir")
            .arg(data.data())
            .arg("--ports_file_dir")
            .arg(data.path())
            .arg("--config")
            .arg(&self.config);
        // Data that will be removed needs no orderly end.
        let stop_by = match data.to_remove() {
            Some(_) => StopBy {
                signal: Signal::SIGKILL,
                ..orderly()
            },
            None => orderly(),
        };
        let mut process = ServerProcess::start(SERVER, command, data, &self.account, stop_by)
            .map_err(NotReady::Failed)?;
        // This process writes the file when it listens, so another server on the port cannot be
        // mistaken for it.
        let ports = data
            .path()
            .join(format!("{SERVER}_{}.ports", process.pid()));
        let ready = async || {
            ports.exists() && has_jetstream(self.port).await && is_healthy(self.monitor_port).await
        };
        process.until_ready(data, LIMIT, ready).await?;
        Ok(process)
    }
}

fn orderly() -> StopBy {
    StopBy {
        signal: Signal::SIGTERM,
        grace: Duration::from_secs(10),
    }
}

fn write_config(data: &DataDir, account: &Account, extra: &str) -> Result<PathBuf, DevstackError> {
    // This limits the streams' reservations, not the disk's use. The default, a share of the free
    // space, would make provisioning depend on the machine.
    let text = format!(
        "# Written at each start: changes are lost. Host, ports and store are arguments.\n\
         jetstream {{\n  max_memory_store: 1GB\n  max_file_store: 64GB\n}}\n{extra}\n"
    );
    let path = data.path().join("nats.conf");
    std::fs::write(&path, text).map_err(DevstackError::io(format!("write {}", path.display())))?;
    account.take(&path, 0o600)?;
    Ok(path)
}

/// Returns whether the server's greeting on the client port announces JetStream.
async fn has_jetstream(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect((HOST, port)).await else {
        return false;
    };
    let mut greeting = String::new();
    let read = BufReader::new(stream).read_line(&mut greeting).await;
    read.is_ok() && greeting.starts_with("INFO ") && greeting.contains("\"jetstream\":true")
}

/// Returns whether the server reports itself as healthy, with its streams recovered.
async fn is_healthy(monitor_port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((HOST, monitor_port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked
        .await
        .is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}
