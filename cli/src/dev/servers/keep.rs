//! Restarts the servers of `baton dev` when they die, and stops them in the end.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_devstack::{DevstackError, NatsServer, Postgres};

use crate::config_command;

/// The pause before the first restart; it doubles after each restart that fails or does not last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that ran for this long gets the first pause again.
const HELD: Duration = Duration::from_secs(30);

/// The servers that this process has started.
pub(crate) struct OwnServers {
    pub(super) nats: Option<NatsServer>,
    pub(super) postgres: Option<Postgres>,
}

impl OwnServers {
    /// Restarts each server with the same address and data whenever it has died. Drop the future
    /// before [`OwnServers::stop`].
    pub(crate) async fn keep(&mut self) -> Infallible {
        let (never, _) = tokio::join!(keep(self.nats.as_mut()), keep(self.postgres.as_mut()));
        never
    }

    /// Stops the started servers, the database first, in the order in which a role closes its
    /// connections.
    pub(crate) async fn stop(self) {
        if let Some(postgres) = self.postgres
            && let Err(error) = postgres.stop().await
        {
            tracing::warn!(%error, "PostgreSQL did not stop in order");
        }
        if let Some(nats) = self.nats
            && let Err(error) = nats.stop().await
        {
            tracing::warn!(%error, "nats-server did not stop in order");
        }
    }
}

/// A server that can be started again.
trait Restart {
    const NAME: &str;

    async fn ended(&mut self);
    async fn start_again(&mut self) -> Result<(), DevstackError>;
    fn log_file(&self) -> PathBuf;
}

impl Restart for NatsServer {
    const NAME: &str = "nats-server";

    async fn ended(&mut self) {
        self.until_ended().await;
    }

    async fn start_again(&mut self) -> Result<(), DevstackError> {
        self.restart().await
    }

    fn log_file(&self) -> PathBuf {
        self.log()
    }
}

impl Restart for Postgres {
    const NAME: &str = "PostgreSQL";

    async fn ended(&mut self) {
        self.until_ended().await;
    }

    async fn start_again(&mut self) -> Result<(), DevstackError> {
        self.restart().await
    }

    fn log_file(&self) -> PathBuf {
        self.log()
    }
}

async fn keep<S: Restart>(server: Option<&mut S>) -> Infallible {
    let Some(server) = server else {
        return std::future::pending().await;
    };
    let name = S::NAME;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        server.ended().await;
        if started.elapsed() >= HELD {
            pause = FIRST_PAUSE;
        }
        say(&format!(
            "{name} has died and is started again; its log is {}",
            server.log_file().display()
        ));
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match server.start_again().await {
                Ok(()) => break,
                Err(error) => say(&format!(
                    "{name} could not be started again, and is tried again in {pause:?}: {error}"
                )),
            }
        }
        say(&format!("{name} runs again"));
    }
}

/// Prints a line for people. A closed standard output does not prevent a restart.
fn say(line: &str) {
    if config_command::print(line).is_err() {
        tracing::warn!("{line}");
    }
}
