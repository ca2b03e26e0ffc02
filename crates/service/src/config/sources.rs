//! The sources of configuration as a value, so that only a role's `main` reads the process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::mistake::{ConfigErrors, Mistake, Origin};

/// Names that other software uses too, and the key each of them sets.
pub const USUAL_NAMES: [(&str, &str, &str); 9] = [
    ("DATABASE_URL", "database", "url"),
    ("DATABASE_MIGRATE_URL", "database", "migrate_url"),
    ("NATS_URL", "nats", "url"),
    ("JWT_SECRET", "auth", "jwt_secret"),
    ("LLM_BASE_URL", "llm", "base_url"),
    ("LLM_API_KEY", "llm", "api_key"),
    ("LLM_DEFAULT_MODEL", "llm", "default_model"),
    ("WEB_SEARCH_API_KEY", "web_search", "api_key"),
    ("RUST_LOG", "log", "filter"),
];

/// Keys of secret values; each can also be read from the file that `<NAME>_FILE` names.
pub const SECRET_KEYS: [(&str, &str); 13] = [
    ("database", "url"),
    ("database", "migrate_url"),
    ("nats", "url"),
    ("nats", "password"),
    ("nats", "token"),
    ("nats", "callout_seed"),
    ("nats", "callout_xkey_seed"),
    ("nats", "callout_password"),
    ("nats", "programs_password"),
    ("nats", "system_password"),
    ("auth", "jwt_secret"),
    ("llm", "api_key"),
    ("web_search", "api_key"),
];

/// The file that is read if none is named and it exists.
pub const DEFAULT_FILE: &str = "baton.toml";
/// The variable that names the file.
pub const FILE_VARIABLE: &str = "BATON_CONFIG";

/// The variable that tells processes of `baton dev` that they are for development.
pub const DEVELOPMENT_VARIABLE: &str = "BATON_DEVELOPMENT";

/// The variables of commands that ask a server: its address and an API key.
const CLIENT_VARIABLES: [&str; 2] = ["BATON_BASE_URL", "BATON_API_KEY"];

/// A file's text and an environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub(super) file: Option<(PathBuf, String)>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) others: Vec<String>,
    development: bool,
}

impl Sources {
    /// Returns sources with only an environment; empty values count as unset.
    pub fn from_environment<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        let environment = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            environment,
            ..Self::default()
        }
    }

    /// Reads this process's environment, and the file named by `--config`, else by `BATON_CONFIG`,
    /// else `./baton.toml` if it exists.
    ///
    /// # Errors
    /// If a named file cannot be read.
    pub fn from_process(config: Option<&Path>) -> Result<Self, ConfigErrors> {
        let lossy = |text: OsString| text.to_string_lossy().into_owned();
        let sources = Self::from_environment(
            std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))),
        );
        let named = named_file(config);
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(sources.with_file(path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Ok(sources)
            }
            Err(error) => Err(Mistake {
                origin: Origin::File { path, line: None },
                message: format!("the configuration file cannot be read: {error}"),
                instead: Some(format!(
                    "name an existing file by --config or {FILE_VARIABLE}"
                )),
            }
            .into()),
        }
    }

    /// Returns the file that [`Sources::from_process`] reads, whether it is there or not.
    pub fn file_of_process(config: Option<&Path>) -> PathBuf {
        named_file(config).unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
    }

    /// Adds a file's text; `path` serves messages only.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some((path.into(), text.into()));
        self
    }

    /// Allows a `BATON_` variable that is no configuration key, such as one of a command's options;
    /// a name that ends in `*` allows all names with that prefix.
    #[must_use]
    pub fn also_allow(mut self, name: impl Into<String>) -> Self {
        self.others.push(name.into());
        self
    }

    /// Allows passwords that are easy to guess, for a server that nobody depends on.
    #[must_use]
    pub fn for_development(mut self) -> Self {
        self.development = true;
        self
    }

    pub(super) fn is_development(&self) -> bool {
        self.development || self.environment.contains_key(DEVELOPMENT_VARIABLE)
    }

    /// Returns whether a `BATON_` variable belongs to something else, rather than being a mistyped
    /// key.
    pub(super) fn is_foreign(&self, name: &str) -> bool {
        let listed = self
            .others
            .iter()
            .any(|other| match other.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == other,
            });
        // The build reads `BATON_COMMIT`, and `cargo run` keeps it in the environment.
        listed
            || [FILE_VARIABLE, DEVELOPMENT_VARIABLE].contains(&name)
            || CLIENT_VARIABLES.contains(&name)
            || name == "BATON_COMMIT"
            || self
                .environment
                .get(name)
                .is_some_and(|value| is_service_link(name, value))
    }
}

/// The file that an argument names, else the environment.
fn named_file(config: Option<&Path>) -> Option<PathBuf> {
    let variable = || std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty());
    config
        .map(Path::to_owned)
        .or_else(|| variable().map(PathBuf::from))
}

/// Kubernetes adds such variables to every pod for a Service named `baton…`; they must not stop a start.
fn is_service_link(name: &str, value: &str) -> bool {
    (name.ends_with("_PORT") && value.contains("://"))
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name
            .split("_PORT_")
            .skip(1)
            .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
