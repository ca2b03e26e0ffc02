//! The logins of a nats-server: the accounts as delivered, or one user for all.

use anyhow::{bail, ensure};
use baton_devstack::test_support::test_nats_options;
use baton_devstack::{Data, NatsConfig, NatsOptions, NatsServer};
use baton_nats::accounts::{DOOR, ROLES};
use baton_nats::{AccountsConf, Auth, CurveKey, Issuer};
use tokio::process::Command;

/// The user who may do everything in the account of the roles.
const TEST: &str = "test";

/// The users of the broker.
#[derive(Debug)]
pub enum Logins {
    /// The accounts as delivered: a user for each role, keys for programs.
    Delivered {
        accounts: AccountsConf,
        seed: String,
        xkey_seed: String,
    },
    /// One user, with a password, for everybody; no programs.
    One { user: String, password: String },
}

impl Logins {
    pub(crate) fn delivered() -> anyhow::Result<Self> {
        let (issuer, curve) = (Issuer::generate(), CurveKey::generate());
        Ok(Self::Delivered {
            accounts: AccountsConf {
                issuer: issuer.public_key(),
                xkey: Some(curve.public_key()),
                password: uuid::Uuid::new_v4().simple().to_string(),
                unlimited: vec![TEST],
            },
            seed: issuer.seed()?,
            xkey_seed: curve.seed()?,
        })
    }

    pub(crate) async fn start(&self, data: Data) -> anyhow::Result<NatsServer> {
        let extra = match self {
            Self::Delivered { accounts, .. } => accounts.text(),
            Self::One { user, password } => {
                format!("authorization {{ user: \"{user}\", password: \"{password}\" }}")
            }
        };
        let options = NatsOptions {
            data,
            config: NatsConfig::Own { extra },
            ..test_nats_options().await?
        };
        Ok(NatsServer::start(options).await?)
    }

    /// Starts a server with the whole `nats.conf` as delivered, limits included.
    pub(crate) async fn start_as_delivered(&self) -> anyhow::Result<NatsServer> {
        const INCLUDE: &str = "include ./accounts.conf";

        let Self::Delivered { accounts, .. } = self else {
            bail!("there is one user for everybody: that is not as delivered");
        };
        let delivered = include_str!("../../../nats/nats.conf");
        ensure!(delivered.contains(INCLUDE), "nats.conf has no accounts");
        // The store's folder is given as an argument here, and must not be set twice.
        let extra = delivered
            .lines()
            .filter(|line| !line.trim().starts_with("store_dir:"))
            .collect::<Vec<_>>()
            .join("\n")
            .replace(INCLUDE, &accounts.text());
        let options = NatsOptions {
            config: NatsConfig::Own { extra },
            ..NatsOptions::ephemeral()
        };
        Ok(NatsServer::start(options).await?)
    }

    /// Gives a process of the program its login.
    pub(crate) fn tell(&self, name: &str, command: &mut Command) {
        let (user, password) = self.of(name);
        command
            .env("BATON_NATS__USER", user)
            .env("BATON_NATS__PASSWORD", password);
        if let Self::Delivered {
            accounts,
            seed,
            xkey_seed,
        } = self
            && name == "ingress"
        {
            command
                .env("BATON_NATS__CALLOUT_SEED", seed)
                .env("BATON_NATS__CALLOUT_XKEY_SEED", xkey_seed)
                .envs(DOOR.iter().flat_map(|user| {
                    let name = user.to_uppercase();
                    [
                        (format!("BATON_NATS__{name}_USER"), (*user).to_owned()),
                        (
                            format!("BATON_NATS__{name}_PASSWORD"),
                            accounts.password_of(user),
                        ),
                    ]
                }));
        }
    }

    /// Returns every secret that gives access to the broker, with its name.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Delivered {
                accounts,
                seed,
                xkey_seed,
            } => {
                let passwords = ROLES.into_iter().chain(DOOR).chain([TEST]);
                passwords
                    .map(|user| (user, accounts.password_of(user)))
                    .chain([("issuer", seed.clone()), ("xkey", xkey_seed.clone())])
                    .collect()
            }
            Self::One { password, .. } => vec![("everybody", password.clone())],
        }
    }

    /// Returns the user who may do everything, with the password.
    pub(crate) fn unlimited(&self) -> (String, String) {
        self.of(TEST)
    }

    /// As [`Logins::unlimited`].
    pub(crate) fn auth(&self) -> Auth {
        let (user, password) = self.unlimited();
        Auth::UserPassword { user, password }
    }

    fn of(&self, name: &str) -> (String, String) {
        match self {
            Self::Delivered { accounts, .. } => (name.to_owned(), accounts.password_of(name)),
            Self::One { user, password } => (user.clone(), password.clone()),
        }
    }
}

/// Returns the broker's user for a command of the program.
pub(crate) fn user_of(arguments: &[&str]) -> &'static str {
    match arguments.first() {
        Some(&("dead" | "log-level")) => "operator",
        _ => "migrate",
    }
}
