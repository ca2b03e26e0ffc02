//! Mechanisms that a run can do without, to see that the checker notices.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use baton_store::testing::void_idempotency_keys;

use super::fleet::Setting;
use super::plan::Emphasis;

/// What is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// The event log takes appends of replaced workers. Needs a build with the feature `chaos`.
    LogFence,
    /// The ledger takes writes of replaced attempts. Needs a build with the feature `chaos`.
    AttemptGuard,
    /// Followers do not notice missing events. Needs a build with the feature `chaos`.
    GapCheck,
    /// An idempotency key may make many runs: by SQL.
    UniqueKey,
    /// Nobody looks for what crashes left behind: by configuration.
    Sweep,
}

impl Mutation {
    /// What brings it to light soonest.
    pub const fn emphasis(self) -> Emphasis {
        match self {
            Self::LogFence => Emphasis::Zombies,
            Self::AttemptGuard => Emphasis::LateCommits,
            Self::GapCheck => Emphasis::Followers,
            Self::UniqueKey => Emphasis::Links,
            Self::Sweep => Emphasis::Deaths,
        }
    }

    /// How long runs may take to end afterwards: those that do are not what is looked for.
    pub(super) const CALM: Duration = Duration::from_secs(20);

    /// The name of the mechanism, in builds that can do without it.
    const fn mechanism(self) -> Option<&'static str> {
        match self {
            Self::LogFence => Some("log-fence"),
            Self::AttemptGuard => Some("attempt-guard"),
            Self::GapCheck => Some("gap-check"),
            Self::UniqueKey | Self::Sweep => None,
        }
    }

    /// What the roles are told.
    pub(super) fn settings(self) -> Vec<(&'static str, String)> {
        match self.mechanism() {
            Some(mechanism) => vec![("CHAOS_BREAK", mechanism.to_owned())],
            None if self == Self::Sweep => {
                vec![("BATON_SCHEDULER__SWEEP_EVERY", "1h".to_owned())]
            }
            None => Vec::new(),
        }
    }

    /// Switches it off where the database is concerned, and sees whether the program can do so.
    pub(super) async fn prepare(self, setting: &Setting, owner: &str) -> anyhow::Result<()> {
        if self == Self::UniqueKey {
            void_idempotency_keys(owner).await?;
        }
        if self.mechanism().is_some() {
            let version = setting.run(&["version"]).await?;
            let version: serde_json::Value =
                serde_json::from_str(&version).context("this is no version")?;
            ensure!(
                version["breakable"] == true,
                "this build has all its mechanisms: build it with the feature `chaos`"
            );
        }
        Ok(())
    }
}
