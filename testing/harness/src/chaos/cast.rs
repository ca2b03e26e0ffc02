//! The participants outside of the steady load: attackers, holders of keys that end, people.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::fleet::Setting;
use super::harvest::Harvest;
use super::holders::{self, Holders};
use super::hostile_client::{self, HostileClient};
use super::hostile_program::{self, HostileProgram};
use super::load::{LARGE_BODY, Load};
use super::operator;
use super::people::{self, People};
use super::program::{Bearer, Program};
use super::talkers::{self, Talkers};

/// The tenant of keys that end.
pub const HOLDERS: &str = "holders";
/// The tenant of the talkers.
pub const TALKERS: &str = "talkers";
const STRANGERS: &str = "strangers";
const PEOPLE: &str = "people";
/// The number of talkers.
const TALKING: u64 = 4;
/// The number of hostile programs, and of hostile clients.
const HOSTILE: u64 = 2;

/// The keys and tokens of all participants.
#[derive(Debug)]
pub struct Cast {
    /// The key of the load.
    pub first: Bearer,
    impostor: Bearer,
    stranger: Bearer,
    parent: String,
    bootstrap: String,
    talker: Bearer,
}

impl Cast {
    /// Makes all keys but the first, by `baton keys`.
    pub async fn make(
        setting: &Setting,
        harvest: &Harvest,
        tenant: &str,
        first: (&str, &str),
    ) -> anyhow::Result<Self> {
        let make = async |tenant: &str, name: &str, more: &[&str]| {
            let words = ["keys", "create", "--tenant", tenant, "--name", name];
            setting.run(&[&words[..], more].concat()).await
        };
        let impostor = make(tenant, "impostor", &["--scopes", "runs:read,runs:write"]).await?;
        // The key is for one model: no field of its requests may choose another.
        let stranger = make(STRANGERS, "stranger", &["--models", "chaos"]).await?;
        let parent = make(HOLDERS, "parent", &[]).await?;
        let talker = make(TALKERS, "talker", &[]).await?;
        let bootstrap = setting
            .run(&["users", "bootstrap", "--tenant", PEOPLE])
            .await?;
        let (name, secret) = first;
        Ok(Self {
            first: harvest.bearer(tenant, name, secret).await?,
            impostor: harvest.bearer(tenant, "impostor", &impostor).await?,
            stranger: harvest.bearer(STRANGERS, "stranger", &stranger).await?,
            parent,
            bootstrap,
            talker: harvest.bearer(TALKERS, "talker", &talker).await?,
        })
    }

    /// Returns the talkers, who are strangers too.
    pub fn talkers(&self, load: &Arc<Load>, broker: &str) -> Arc<Talkers> {
        let program = Program::new(broker, self.talker.clone());
        let key = self.talker.secret.clone();
        Arc::new(Talkers::new(Arc::clone(load), key, program))
    }

    /// Starts all of them; they end with the load.
    pub fn enter(
        &self,
        load: &Arc<Load>,
        talkers: &Arc<Talkers>,
        broker: SocketAddr,
        ingresses: &[SocketAddr],
        seed: u64,
    ) -> TaskTracker {
        let tasks = TaskTracker::new();
        for number in 0..HOSTILE {
            let seed = seed.wrapping_add(number);
            let program = HostileProgram {
                broker,
                stranger: self.stranger.clone(),
                impostor: self.impostor.clone(),
                victim: self.first.clone(),
                recorder: Arc::clone(&load.recorder),
            };
            tasks.spawn(program.rage(seed, load.stop.clone()));
            let client = HostileClient {
                ingresses: ingresses.to_vec(),
                secret: self.stranger.secret.clone(),
                recorder: Arc::clone(&load.recorder),
            };
            tasks.spawn(client.rage(seed, load.stop.clone()));
            let holders = Holders {
                load: Arc::clone(load),
                parent: self.parent.clone(),
            };
            tasks.spawn(holders.live(seed, load.stop.clone()));
        }
        for number in 0..TALKING {
            let seed = seed.wrapping_add(number);
            tasks.spawn(Arc::clone(talkers).live(seed, load.stop.clone()));
        }
        let people = People {
            load: Arc::clone(load),
            bootstrap: self.bootstrap.clone(),
        };
        tasks.spawn(people.live(seed, load.stop.clone()));
        tasks
    }

    /// Lists the kinds, besides faults, that a long run must contain.
    pub fn required() -> impl Iterator<Item = &'static str> {
        let attacks = hostile_program::ATTACKS.into_iter();
        attacks
            .chain(hostile_client::ATTACKS)
            .chain(holders::DOINGS)
            .chain(people::DOINGS)
            .chain(talkers::DOINGS)
            .chain(operator::DOINGS)
            .chain([LARGE_BODY])
    }
}
