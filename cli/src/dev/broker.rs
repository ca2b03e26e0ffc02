//! The broker of `baton dev`. It has the accounts and users of a deployed one, with its own
//! passwords.

use std::path::Path;

use anyhow::Context as _;
use baton_nats::accounts::{CALLOUT, PROGRAMS, SYSTEM};
use baton_nats::{AccountsConf, CurveKey, Issuer};
use baton_service::{Config, Secret};
use serde::{Deserialize, Serialize};

use crate::private_file;

/// The secrets that are kept with the data.
#[derive(Serialize, Deserialize)]
struct Kept {
    password: String,
    seed: String,
    xkey_seed: String,
}

/// The users of a broker that `dev` has started.
pub(crate) struct Broker {
    pub(crate) accounts: AccountsConf,
    seed: String,
    xkey_seed: String,
}

impl Broker {
    /// Reads the secrets of the last time, or makes new ones.
    pub(crate) fn keep(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("nats-secrets.json");
        let kept: Option<Kept> = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        let kept = if let Some(kept) = kept {
            kept
        } else {
            let fresh = Kept {
                password: uuid::Uuid::new_v4().simple().to_string(),
                seed: Issuer::generate().seed()?,
                xkey_seed: CurveKey::generate().seed()?,
            };
            private_file::write(&path, &serde_json::to_string(&fresh)?)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            fresh
        };
        let damaged = || format!("{} is damaged: remove it", path.display());
        let issuer = Issuer::from_seed(&kept.seed).with_context(damaged)?;
        let curve = CurveKey::from_seed(&kept.xkey_seed).with_context(damaged)?;
        Ok(Self {
            accounts: AccountsConf {
                issuer: issuer.public_key(),
                xkey: Some(curve.public_key()),
                password: kept.password,
                unlimited: Vec::new(),
            },
            seed: kept.seed,
            xkey_seed: kept.xkey_seed,
        })
    }

    /// Returns the configuration of one role, or of `migrate`, with its own password and no other's
    /// secrets.
    pub(crate) fn configure(&self, user: &str, config: &Config) -> Config {
        let mut config = config.clone();
        let password = |user| Some(Secret::new(self.accounts.password_of(user)));
        let nats = &mut config.nats;
        nats.user = Some(user.to_owned());
        nats.password = password(user);
        if user == "ingress" {
            nats.callout_seed = Some(Secret::new(self.seed.clone()));
            nats.callout_xkey_seed = Some(Secret::new(self.xkey_seed.clone()));
            nats.system_user = Some(SYSTEM.to_owned());
            nats.system_password = password(SYSTEM);
            nats.callout_user = Some(CALLOUT.to_owned());
            nats.callout_password = password(CALLOUT);
            nats.programs_user = Some(PROGRAMS.to_owned());
            nats.programs_password = password(PROGRAMS);
        }
        config
    }
}
