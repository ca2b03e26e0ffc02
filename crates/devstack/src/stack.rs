//! A development stack: nats-server, PostgreSQL, or both.

use std::path::PathBuf;

use crate::{DevstackError, NatsOptions, NatsServer, Postgres, PostgresOptions, Progress};

/// The servers to start, with their options.
#[derive(Clone, Debug, Default)]
pub struct DevStackOptions {
    /// The options of nats-server; not started if absent.
    pub nats: Option<NatsOptions>,
    /// The options of PostgreSQL; not started if absent.
    pub postgres: Option<PostgresOptions>,
}

impl DevStackOptions {
    /// Returns the options of both servers, durable, in `nats` and `postgres` below `data_dir`.
    pub fn keeping(data_dir: impl Into<PathBuf>, progress: Progress) -> Self {
        let data_dir = data_dir.into();
        let nats = NatsOptions::keeping(data_dir.join("nats"));
        let postgres = PostgresOptions::keeping(data_dir.join("postgres"));
        Self {
            nats: Some(NatsOptions { progress, ..nats }),
            postgres: Some(PostgresOptions {
                progress,
                ..postgres
            }),
        }
    }

    /// Returns the options of both servers, fast and leaving nothing behind.
    pub fn ephemeral(progress: Progress) -> Self {
        Self {
            nats: Some(NatsOptions {
                progress,
                ..NatsOptions::ephemeral()
            }),
            postgres: Some(PostgresOptions {
                progress,
                ..PostgresOptions::ephemeral()
            }),
        }
    }
}

/// The running servers.
#[derive(Debug, Default)]
pub struct DevStack {
    /// The nats-server, if it was requested.
    pub nats: Option<NatsServer>,
    /// The PostgreSQL, if it was requested.
    pub postgres: Option<Postgres>,
}

impl DevStack {
    /// Starts the servers at the same time. If one cannot be started, the other is stopped.
    pub async fn start(options: DevStackOptions) -> Result<Self, DevstackError> {
        let nats = async {
            match options.nats {
                Some(options) => NatsServer::start(options).await.map(Some),
                None => Ok(None),
            }
        };
        let postgres = async {
            match options.postgres {
                Some(options) => Postgres::start(options).await.map(Some),
                None => Ok(None),
            }
        };
        // If one start fails, the other is dropped, and its guardian stops its server if there is
        // one yet.
        let (nats, postgres) = tokio::try_join!(nats, postgres)?;
        Ok(Self { nats, postgres })
    }

    /// Stops PostgreSQL first, then nats-server. Stops both even if one fails, and returns the
    /// first error.
    pub async fn stop(self) -> Result<(), DevstackError> {
        let postgres = match self.postgres {
            Some(server) => server.stop().await,
            None => Ok(()),
        };
        let nats = match self.nats {
            Some(server) => server.stop().await,
            None => Ok(()),
        };
        postgres.and(nats)
    }
}
