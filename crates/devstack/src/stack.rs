//! Both servers, or one of them, as a whole.

use std::path::PathBuf;

use crate::{DevstackError, NatsOptions, NatsServer, Postgres, PostgresOptions, Progress};

/// Which servers to start, and where.
#[derive(Clone, Debug, Default)]
pub struct DevStackOptions {
    /// How to start nats-server, if it is wanted.
    pub nats: Option<NatsOptions>,
    /// How to start PostgreSQL, if it is wanted.
    pub postgres: Option<PostgresOptions>,
}

impl DevStackOptions {
    /// Both servers, durable, in `nats` and `postgres` below `data_dir`.
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

    /// Both servers, fast, leaving nothing behind.
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

/// The servers that were asked for, running.
#[derive(Debug, Default)]
pub struct DevStack {
    /// The nats-server, if it was asked for.
    pub nats: Option<NatsServer>,
    /// The PostgreSQL, if it was asked for.
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
        // The start that is not over when the other fails is cut off, and its server, if there is
        // one yet, stopped by its guardian.
        let (nats, postgres) = tokio::try_join!(nats, postgres)?;
        Ok(Self { nats, postgres })
    }

    /// Stops what runs: PostgreSQL first, then nats-server. Both are stopped whatever happens; the
    /// first error is returned.
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
