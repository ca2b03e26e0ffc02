//! The two database users of the configuration, made by an administrator.

use std::fmt;

use anyhow::{Context as _, bail};
use baton_service::config::{ConnectionUrl, DatabaseConfig};
use baton_store::{Login, bootstrap};
use percent_encoding::percent_decode_str;
use url::Url;

/// The group roles that the first migration makes; nobody logs in as one of them.
const GROUPS: [&str; 2] = ["baton_app", "baton_system"];

/// The owner of the schema and the user of the servers. Debug output hides the passwords.
#[derive(Debug)]
pub(super) struct Logins {
    owner: Address,
    app: Address,
}

impl Logins {
    /// Reads users, passwords and the database from the two URLs.
    pub(super) fn of(config: &DatabaseConfig) -> anyhow::Result<Self> {
        let owner = Address::read("DATABASE_MIGRATE_URL", config.migrate_url.as_ref())?;
        let app = Address::read("DATABASE_URL", config.url.as_ref())?;
        if owner.user == app.user {
            bail!(
                "DATABASE_MIGRATE_URL and DATABASE_URL both name the user {}: servers must not own the \
                 schema, so give them a user of their own",
                app.user
            );
        }
        if owner.database != app.database {
            bail!(
                "DATABASE_MIGRATE_URL names the database {} and DATABASE_URL {}: write the same in both",
                owner.database,
                app.database
            );
        }
        Ok(Self { owner, app })
    }

    /// Makes the users and the database, if they do not exist, and sets the passwords.
    pub(super) async fn make(&self, admin_url: &str) -> anyhow::Result<()> {
        let (owner, app) = (self.owner.login(), self.app.login());
        bootstrap(admin_url, &self.owner.database, owner, app)
            .await
            .context(
                "the database's users were not made: the administrator's URL must lead to this server, \
                 and its user be a superuser or have CREATEROLE and CREATEDB",
            )
    }
}

impl fmt::Display for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, app) = (&self.owner, &self.app);
        write!(
            f,
            "{}, the users {} and {}",
            owner.database, owner.user, app.user
        )
    }
}

/// The user, password and database of a URL.
struct Address {
    user: String,
    password: String,
    database: String,
}

impl Address {
    fn read(variable: &str, url: Option<&ConnectionUrl>) -> anyhow::Result<Self> {
        let text = url.with_context(|| format!("{variable} is not set"))?;
        // The parser's error is left out, because it may quote the password.
        let Ok(url) = Url::parse(text.expose()) else {
            bail!(
                "{variable} is no URL: percent-encode what has a meaning in one, such as / in a password"
            );
        };
        let part = |name: &str, text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            let decoded =
                decoded.with_context(|| format!("the {name} in {variable} is not UTF-8"))?;
            if decoded.is_empty() {
                bail!(
                    "{variable} names no {name}: write postgres://user:password@host:5432/database"
                );
            }
            Ok(decoded.into_owned())
        };
        let user = part("user", url.username())?;
        if GROUPS.contains(&user.as_str()) {
            bail!(
                "{variable} names {user}, a role for groups that nobody logs in as: choose another user"
            );
        }
        Ok(Self {
            user,
            password: part("password", url.password().unwrap_or_default())?,
            database: part("database", url.path().trim_start_matches('/'))?,
        })
    }

    fn login(&self) -> Login<'_> {
        Login {
            user: &self.user,
            password: &self.password,
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(owner: &str, app: &str) -> Result<Logins, String> {
        let config = DatabaseConfig {
            migrate_url: Some(ConnectionUrl::new(owner)),
            url: Some(ConnectionUrl::new(app)),
            ..DatabaseConfig::default()
        };
        Logins::of(&config).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn users_passwords_and_the_database_are_read_from_the_urls() {
        let read = logins(
            "postgres://own%40er:p%2Fw@db:5432/ledger?sslmode=require",
            "postgresql://app:x@db/ledger",
        )
        .unwrap();
        assert_eq!(read.owner.user, "own@er");
        assert_eq!(read.owner.password, "p/w");
        assert_eq!(read.app.database, "ledger");
        assert_eq!(read.to_string(), "ledger, the users own@er and app");
        assert!(!format!("{read:?}").contains("p/w"));
    }

    #[test]
    fn each_mistake_names_the_variable_and_never_the_password() {
        let good = "postgres://app:canary@db/ledger";
        for (owner, app, part) in [
            (
                "postgres://app:canary@db/ledger",
                good,
                "a user of their own",
            ),
            ("postgres://owner:canary@db/other", good, "the same in both"),
            (
                "postgres://owner@db/ledger",
                good,
                "DATABASE_MIGRATE_URL names no password",
            ),
            (
                "postgres://owner:canary@db",
                good,
                "DATABASE_MIGRATE_URL names no database",
            ),
            (
                "postgres://:canary@db/ledger",
                good,
                "DATABASE_MIGRATE_URL names no user",
            ),
            (
                good,
                "postgres://baton_app:canary@db/ledger",
                "DATABASE_URL names baton_app",
            ),
            (
                good,
                "postgres://app:can/ary@db/ledger",
                "DATABASE_URL is no URL",
            ),
        ] {
            let error = logins(owner, app).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(
                !error.contains("canary") && !error.contains("ary@"),
                "{error}"
            );
        }
    }
}
