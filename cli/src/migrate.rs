//! `baton migrate`: migrates the database and the broker to this version. Repeating it changes
//! nothing.

mod logins;

use anyhow::Context as _;
use baton_nats::{Bus, provision};
use baton_service::Config;
use baton_service::config::Required;
use clap::Args;

use self::logins::Logins;
use crate::args::ConfigArgs;
use crate::{config_command, role};

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// First make the two users and the database of DATABASE_MIGRATE_URL and DATABASE_URL, as this
    /// administrator; the URL may name any other database of the server. DATABASE_ADMIN_URL does
    /// the same and keeps the password out of process lists
    #[arg(
        long,
        value_name = "ADMIN_URL",
        env = "DATABASE_ADMIN_URL",
        hide_env_values = true
    )]
    pub(crate) bootstrap: Option<String>,
}

pub(crate) async fn run(options: &MigrateArgs, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = config_command::load(args)?;
    config.require(&[Required::DatabaseOwner, Required::Nats])?;
    // Compose passes an empty variable for one that is not set.
    if let Some(admin) = options.bootstrap.as_deref().filter(|url| !url.is_empty()) {
        config.require(&[Required::Database])?;
        let logins = Logins::of(&config.database)?;
        logins.make(admin).await?;
        config_command::print(&format!("database: {logins} are there"))?;
    }
    for change in apply(&config).await? {
        config_command::print(&change)?;
    }
    config_command::print("database and broker are up to date")?;
    if config.auth.jwt_secret.is_some() || !config.auth.keys.is_empty() {
        config_command::print(
            "the first person registers by the token of `baton users bootstrap`",
        )?;
    }
    Ok(())
}

/// Applies the missing migrations, and describes them.
pub(crate) async fn apply(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut changes = Vec::new();
    // Without an owner's URL (`dev` on a database from the environment) the tables are used as they
    // are; a role reports missing migrations.
    if let Some(owner) = &config.database.migrate_url {
        let login = config
            .database
            .url
            .as_ref()
            .and_then(|url| user_of(url.expose()));
        let applied = baton_store::migrate(owner.expose(), login.as_deref())
            .await
            .context("the database was not migrated")?;
        changes.extend(
            applied
                .iter()
                .map(|migration| format!("database: {migration}")),
        );
    }
    let bus = Bus::connect(role::broker("migrate", config))
        .await
        .context("the broker is not reachable")?;
    let made = provision(&bus, &role::stream_options(config)).await;
    bus.close().await;
    let made = made.context("the broker was not prepared")?;
    changes.extend(made.iter().map(|change| format!("broker: {change}")));
    Ok(changes)
}

/// Returns the user of `postgres://user:password@host/database`.
fn user_of(url: &str) -> Option<String> {
    let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
    let user = credentials.split(':').next()?;
    (!user.is_empty()).then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_read_from_the_url() {
        assert_eq!(
            user_of("postgres://baton:p@w@host:5432/db").as_deref(),
            Some("baton")
        );
        assert_eq!(
            user_of("postgres://baton@host/db").as_deref(),
            Some("baton")
        );
        assert_eq!(user_of("postgres://host/db"), None);
    }
}
