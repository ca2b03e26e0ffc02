//! The two servers behind `baton dev`: given by the environment, or private copies.

use std::path::Path;

use anyhow::Context as _;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer, Postgres, PostgresOptions, Progress};
use baton_service::Config;
use baton_service::config::ConnectionUrl;
use baton_store::{Login, bootstrap};

use super::broker::Broker;

const DATABASE: &str = "baton";
const OWNER: &str = "baton_owner";
const APP: &str = "baton";

/// What was started, and where it is reached.
pub(crate) struct Servers {
    nats: Option<NatsServer>,
    /// Who may connect to it, if it was started.
    pub(crate) broker: Option<Broker>,
    postgres: Option<Postgres>,
    database_url: Option<String>,
    migrate_url: Option<String>,
}

impl Servers {
    /// Starts what the configuration does not name.
    pub(crate) async fn start(data: &Path, config: &Config) -> anyhow::Result<Self> {
        let broker = match config.nats.url {
            Some(_) => None,
            None => Some(Broker::keep(data)?),
        };
        let (nats, postgres) = tokio::try_join!(
            async {
                let Some(broker) = &broker else {
                    return Ok(None);
                };
                let mut options = NatsOptions::keeping(data.join("nats"));
                options.config = NatsConfig::Own {
                    extra: broker.accounts.text(),
                };
                options.progress = Progress::Stderr;
                NatsServer::start(options).await.map(Some)
            },
            async {
                if config.database.url.is_some() {
                    return Ok(None);
                }
                let mut options = PostgresOptions::keeping(data.join("postgres"));
                options.progress = Progress::Stderr;
                Postgres::start(options).await.map(Some)
            },
        )?;
        let mut servers = Self {
            nats,
            broker,
            postgres,
            database_url: None,
            migrate_url: None,
        };
        if let Some(postgres) = &servers.postgres {
            let password = postgres.superuser_password();
            let owner = Login {
                user: OWNER,
                password,
            };
            let app = Login {
                user: APP,
                password,
            };
            bootstrap(postgres.superuser_url(), DATABASE, owner, app)
                .await
                .context("the database cannot be prepared")?;
            servers.database_url = Some(postgres.url_for(DATABASE, APP, password));
            servers.migrate_url = Some(postgres.url_for(DATABASE, OWNER, password));
        }
        Ok(servers)
    }

    /// Tells the roles where the servers are.
    pub(crate) fn apply_to(&self, config: &mut Config) {
        if let Some(nats) = &self.nats {
            config.nats.url = Some(ConnectionUrl::new(nats.url()));
        }
        if let (Some(app), Some(owner)) = (&self.database_url, &self.migrate_url) {
            config.database.url = Some(ConnectionUrl::new(app));
            config.database.migrate_url = Some(ConnectionUrl::new(owner));
        }
    }

    /// What one role is told, or `migrate`: with its own password for a broker that was started here.
    pub(crate) fn config_of(&self, user: &str, config: &Config) -> Config {
        match &self.broker {
            Some(broker) => broker.configure(user, config),
            None => config.clone(),
        }
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
