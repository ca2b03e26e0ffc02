//! The two servers that `baton dev` needs: those in the environment, or private copies.

mod keep;

use std::path::Path;

use anyhow::Context as _;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer, Postgres, PostgresOptions, Progress};
use baton_service::Config;
use baton_service::config::ConnectionUrl;
use baton_store::{Login, bootstrap};

use super::broker::Broker;
use crate::private_file;

pub(crate) use self::keep::OwnServers;

const DATABASE: &str = "baton";
const OWNER: &str = "baton_owner";
const APP: &str = "baton";

/// The addresses and passwords of the started servers.
pub(crate) struct Servers {
    nats_url: Option<String>,
    /// The users of the broker, if it was started.
    pub(crate) broker: Option<Broker>,
    database_url: Option<String>,
    migrate_url: Option<String>,
}

impl Servers {
    /// Starts the servers that the configuration does not name.
    pub(crate) async fn start(data: &Path, config: &Config) -> anyhow::Result<(Self, OwnServers)> {
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
        )
        .with_context(|| format!("no servers in {}", data.display()))?;
        let mut servers = Self {
            nats_url: nats.as_ref().map(|nats| nats.url().to_owned()),
            broker,
            database_url: None,
            migrate_url: None,
        };
        if let Some(postgres) = &postgres {
            // These users have passwords of their own, so that roles and clients do not get the
            // superuser's.
            let (owner, app) = (password(data, OWNER)?, password(data, APP)?);
            let login = |user, password| Login { user, password };
            let (owner_login, app_login) = (login(OWNER, &owner), login(APP, &app));
            bootstrap(postgres.superuser_url(), DATABASE, owner_login, app_login)
                .await
                .context("the database cannot be prepared")?;
            servers.database_url = Some(postgres.url_for(DATABASE, APP, &app));
            servers.migrate_url = Some(postgres.url_for(DATABASE, OWNER, &owner));
        }
        Ok((servers, OwnServers { nats, postgres }))
    }

    /// Writes the servers' addresses into the roles' configuration.
    pub(crate) fn apply_to(&self, config: &mut Config) {
        if let Some(nats) = &self.nats_url {
            config.nats.url = Some(ConnectionUrl::new(nats));
        }
        if let (Some(app), Some(owner)) = (&self.database_url, &self.migrate_url) {
            config.database.url = Some(ConnectionUrl::new(app));
            config.database.migrate_url = Some(ConnectionUrl::new(owner));
        }
    }

    /// Returns the configuration of one role, or of `migrate`, with its own password for a broker
    /// that was started here.
    pub(crate) fn config_of(&self, user: &str, config: &Config) -> Config {
        match &self.broker {
            Some(broker) => broker.configure(user, config),
            None => config.clone(),
        }
    }
}

/// Returns the password of a database user, which is kept with the data.
fn password(data: &Path, user: &str) -> anyhow::Result<String> {
    let path = data.join(format!("{user}-password"));
    let kept = std::fs::read_to_string(&path)
        .map(|text| text.trim().to_owned())
        .ok()
        .filter(|kept| !kept.is_empty() && kept.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let fresh = uuid::Uuid::new_v4().simple().to_string();
    private_file::write(&path, &fresh)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(fresh)
}
