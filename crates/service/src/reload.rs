//! Taking a changed configuration without a restart: on SIGHUP, and when the file or a file of agents has
//! changed.
//!
//! A role reads its configuration through a [`LiveConfig`]. The [`Reloader`] loads it anew, checks it as
//! at a start, and hands on the settings of [`RELOADED`]; it names the others that have changed, which
//! the next start takes. A configuration with mistakes changes nothing.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, agent_files};
use crate::metrics;
use crate::telemetry::Telemetry;

/// Sections and keys that a running role takes; `*` is every key of the section.
pub const RELOADED: [(&str, &str); 9] = [
    ("agents", "path"),
    ("limits", "*"),
    ("llm", "extra_fields"),
    ("llm", "prices"),
    ("llm", "routes"),
    ("llm", "upstreams"),
    ("log", "filter"),
    ("mcp", "servers"),
    ("tools", "http"),
];

/// The interval of looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A role's configuration, as it is now.
#[derive(Debug, Clone)]
pub struct LiveConfig {
    /// The settings that do not change.
    own: Config,
    loaded: watch::Receiver<Arc<Config>>,
}

impl LiveConfig {
    /// Makes one that never changes.
    pub fn fixed(config: Config) -> Self {
        let loaded = watch::channel(Arc::new(config.clone())).1;
        Self {
            own: config,
            loaded,
        }
    }

    /// Returns the live configuration of another role of this process, which begins with `own`.
    #[must_use]
    pub fn of_role(&self, own: Config) -> Self {
        let loaded = self.loaded.clone();
        Self { own, loaded }
    }

    /// Returns the configuration as it is now.
    pub fn current(&self) -> Config {
        let mut config = self.own.clone();
        take(&mut config, &self.loaded.borrow());
        config
    }

    /// Waits for the next change; for ever if there can be none.
    pub async fn changed(&mut self) -> Config {
        if self.loaded.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.loaded.mark_unchanged();
        self.current()
    }
}

/// Loads the configuration and checks it as a start does.
type Load = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Keeps the [`LiveConfig`]s of a process up to date.
pub struct Reloader {
    load: Load,
    file: PathBuf,
    loaded: watch::Sender<Arc<Config>>,
    hangups: Hangups,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Changed settings that are in force now.
    pub taken: Vec<String>,
    /// Changed settings that the next start takes.
    pub left: Vec<String>,
}

impl Reloader {
    /// Reloads by `load` when `file` changes or SIGHUP comes, which from now on ends no process.
    ///
    /// `loaded` is the configuration as the sources have it now.
    ///
    /// # Errors
    /// If the signal cannot be handled.
    pub fn new<E: Display>(
        file: PathBuf,
        loaded: Config,
        load: impl Fn() -> Result<Config, E> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Ok(Self {
            load: Box::new(move || load().map_err(|error| format!("{error:#}"))),
            file,
            loaded: watch::channel(Arc::new(loaded)).0,
            hangups: Hangups::listen()?,
        })
    }

    /// Returns the live configuration of this process.
    pub fn live(&self) -> LiveConfig {
        let loaded = self.loaded.subscribe();
        let own = Config::clone(&loaded.borrow());
        LiveConfig { own, loaded }
    }

    /// Reloads until it is dropped.
    pub async fn run(mut self, telemetry: &Telemetry) -> std::convert::Infallible {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.stamps().await;
        loop {
            let cause = tokio::select! {
                () = self.hangups.next() => "SIGHUP",
                _ = look.tick() => {
                    let now = self.stamps().await;
                    let own = now.own.is_some() && now.own != seen.own;
                    let agents = now.agents.is_some() && now.agents != seen.agents;
                    match (own, agents) {
                        (true, _) => "the file has changed",
                        (false, true) => "the files of agents have changed",
                        (false, false) => continue,
                    }
                }
            };
            let now = self.stamps().await;
            seen.own = now.own.or(seen.own);
            seen.agents = now.agents.or(seen.agents);
            match self.reload(telemetry) {
                Ok(Reloaded { taken, left }) => {
                    metrics::config_reloaded("taken");
                    tracing::info!(cause, ?taken, "configuration reloaded");
                    if !left.is_empty() {
                        tracing::warn!(?left, "these settings are taken by the next start only");
                    }
                }
                Err(mistakes) => {
                    metrics::config_reloaded("refused");
                    tracing::error!(cause, mistakes, "the configuration is kept as it was");
                }
            }
        }
    }

    /// Looks at the files, as they are now.
    async fn stamps(&self) -> Stamps {
        let own = self.file.clone();
        let agents = self.loaded.borrow().agents.path.clone();
        let looked = tokio::task::spawn_blocking(move || Stamps {
            own: stamp(&own),
            agents: agents.and_then(|path| {
                let files = agent_files(&path).ok()?.into_iter();
                files.map(|file| Some((stamp(&file)?, file))).collect()
            }),
        });
        looked.await.unwrap_or_default()
    }

    fn reload(&self, telemetry: &Telemetry) -> Result<Reloaded, String> {
        let fresh = (self.load)()?;
        let before = Arc::clone(&self.loaded.borrow());
        let done = compare(&before, &fresh);
        if fresh.log.filter != before.log.filter {
            telemetry
                .set_filter(&fresh.log.filter, None)
                .map_err(|error| error.to_string())?;
        }
        self.loaded.send_if_modified(|loaded| {
            *loaded = Arc::new(fresh);
            !done.taken.is_empty()
        });
        Ok(done)
    }
}

/// Takes the settings of [`RELOADED`].
fn take(running: &mut Config, fresh: &Config) {
    let Config {
        agents,
        limits,
        llm,
        log,
        mcp,
        tools,
        ..
    } = fresh.clone();
    running.agents = agents;
    running.limits = limits;
    running.llm.extra_fields = llm.extra_fields;
    running.llm.prices = llm.prices;
    running.llm.routes = llm.routes;
    running.llm.upstreams = llm.upstreams;
    running.log.filter = log.filter;
    running.mcp = mcp;
    running.tools.http = tools.http;
}

/// The settings that differ, by name. Two secrets look alike, and two contents of a file: their setting is
/// named.
fn compare(before: &Config, after: &Config) -> Reloaded {
    let (old, new) = (sections(before), sections(after));
    let mut done = Reloaded {
        taken: Vec::new(),
        left: Vec::new(),
    };
    for (section, keys) in &new {
        let Value::Object(keys) = keys else { continue };
        for (key, value) in keys {
            if old.get(section).and_then(|keys| keys.get(key)) == Some(value) {
                continue;
            }
            let reloaded = RELOADED
                .iter()
                .any(|(s, k)| s == section && (*k == "*" || k == key));
            let list = if reloaded {
                &mut done.taken
            } else {
                &mut done.left
            };
            list.push(format!("{section}.{key}"));
        }
    }
    if before.agents.files() != after.agents.files() && before.agents.path == after.agents.path {
        done.taken.push("agents.path".to_owned());
    }
    if done.taken.is_empty() && done.left.is_empty() && before != after {
        // A key of an upstream, a header of a tool and a token of an MCP server are secrets, and they are taken.
        if before.llm.upstreams != after.llm.upstreams {
            done.taken.push("llm.upstreams".to_owned());
        }
        if before.tools != after.tools {
            done.taken.push("tools.http".to_owned());
        }
        if before.mcp != after.mcp {
            done.taken.push("mcp.servers".to_owned());
        }
        if done.taken.is_empty() {
            done.left.push("a secret".to_owned());
        }
    }
    done
}

fn sections(config: &Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(sections)) => sections,
        // The configuration is a struct of plain values.
        _ => Map::new(),
    }
}

/// The time of a file's last change, and its length.
type Stamp = (SystemTime, u64);

/// The files as they were when they were last seen. A file that is gone is about to be replaced.
#[derive(Default)]
struct Stamps {
    own: Option<Stamp>,
    agents: Option<Vec<(Stamp, PathBuf)>>,
}

/// Tells one content of a file from the next, also where a link is moved, as Kubernetes does.
fn stamp(file: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(file).ok()?;
    Some((file.modified().ok()?, file.len()))
}

#[cfg(unix)]
struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::hangup())?))
    }

    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AgentFile, AgentsConfig};

    #[test]
    fn changed_settings_are_taken_or_named() {
        let before = Config::default();
        let mut after = before.clone();
        after.limits.per_key_per_minute = 7;
        after.log.filter = "debug".to_owned();
        after.worker.slots += 1;
        let done = compare(&before, &after);
        assert_eq!(done.taken, ["limits.per_key_per_minute", "log.filter"]);
        assert_eq!(done.left, ["worker.slots"]);
    }

    #[test]
    fn what_is_taken_is_what_is_listed() {
        let before = Config::default();
        let mut after = before.clone();
        after.limits.streams_per_key += 1;
        after.llm.extra_fields = vec!["top_k".to_owned()];
        after.log.filter = "debug".to_owned();
        after.worker.slots += 1;
        let mut running = before.clone();
        take(&mut running, &after);
        let left = compare(&running, &after);
        assert_eq!(left.taken, Vec::<String>::new());
        assert_eq!(left.left, ["worker.slots"]);
    }

    #[test]
    fn changed_files_of_agents_are_taken() {
        let file = |text: &str| AgentFile {
            path: "agents.toml".into(),
            text: text.to_owned(),
        };
        let before = Config {
            agents: AgentsConfig::of_files("agents.toml", vec![file("")]),
            ..Config::default()
        };
        let mut after = before.clone();
        after.agents = AgentsConfig::of_files("agents.toml", vec![file("[[agents]]")]);
        assert_eq!(compare(&before, &after).taken, ["agents.path"]);
        let mut running = before.clone();
        take(&mut running, &after);
        assert_eq!(running, after);
    }

    #[test]
    fn a_changed_secret_is_named_by_its_kind_alone() {
        let mut before = Config::default();
        before.llm.api_key = Some(crate::Secret::new("one".to_owned()));
        let mut after = before.clone();
        after.llm.api_key = Some(crate::Secret::new("two".to_owned()));
        assert_eq!(compare(&before, &after).left, ["a secret"]);
    }
}
