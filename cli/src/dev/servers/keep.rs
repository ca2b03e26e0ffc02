//! Starts the servers of `baton dev` again when they die, and stops them in the end.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_devstack::{DevstackError, NatsServer, Postgres};

use crate::config_command;

/// The pause before the first restart; it doubles with each that fails, or does not hold.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that ran for so long begins again with the first pause.
const HELD: Duration = Duration::from_secs(30);

/// The servers that this process has started.
pub(crate) struct OwnServers {
    pub(super) nats: Option<NatsServer>,
    pub(super) postgres: Option<Postgres>,
}

impl OwnServers {
    /// Starts each server again, at the same address and with the same data, whenever it has died.
    /// Drop the future before [`OwnServers::stop`].
    pub(crate) async fn keep(&mut self) -> Infallible {
        let (never, _) = tokio::join!(keep(self.nats.as_mut()), keep(self.postgres.as_mut()));
        never
    }

    /// Stops what was started: the database first, as every role stops.
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

/// For people. A closed standard output keeps no server from being started.
fn say(line: &str) {
    if config_command::print(line).is_err() {
        tracing::warn!("{line}");
    }
}
