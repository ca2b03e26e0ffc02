//! Merging the sources key by key, so that one mistake does not hide the next.
//!
//! Serde stops at a struct's first error. So each key is tried alone, on a section that otherwise
//! has its defaults; only keys that pass are merged, and the whole is read at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::mistake::{ConfigErrors, Mistake, Origin, Origins, nearest};
use super::sources::{SECRET_KEYS, Sources, USUAL_NAMES};
use super::{Config, checks, llm, mcp, tools, upstreams};

/// A section: its name, its keys with their defaults (null for none), and a function that tries a
/// value.
struct Section {
    name: &'static str,
    defaults: Map<String, Value>,
    attempt: fn(Value) -> Result<(), String>,
}

fn section<T: Default + Serialize + DeserializeOwned>(name: &'static str) -> Section {
    let defaults = match serde_json::to_value(T::default()) {
        Ok(Value::Object(defaults)) => defaults,
        // A struct of plain values always has this form. A section of another form would have no
        // keys, and the test of the example file would fail.
        _ => Map::new(),
    };
    Section {
        name,
        defaults,
        attempt: attempt::<T>,
    }
}

fn all_sections() -> Vec<Section> {
    use super::sections as s;
    vec![
        section::<s::HttpConfig>("http"),
        section::<s::AdminConfig>("admin"),
        section::<s::DatabaseConfig>("database"),
        section::<s::NatsConfig>("nats"),
        section::<super::LlmConfig>("llm"),
        section::<super::AuthConfig>("auth"),
        section::<s::WorkerConfig>("worker"),
        section::<s::SchedulerConfig>("scheduler"),
        section::<s::LimitsConfig>("limits"),
        section::<s::LogConfig>("log"),
        section::<super::AgentsConfig>("agents"),
        section::<tools::ToolsConfig>("tools"),
        section::<super::McpConfig>("mcp"),
        section::<super::WebSearchConfig>("web_search"),
        section::<super::HttpRequestConfig>("http_request"),
        section::<super::OutboundConfig>("outbound"),
    ]
}

/// A key with a list of tables. The keys of each table are tried one by one.
struct Tables {
    /// Section and key.
    at: (&'static str, &'static str),
    /// The noun for one of them in messages.
    what: &'static str,
    required: &'static [&'static str],
    specimen: fn() -> Map<String, Value>,
    attempt: fn(Value) -> Result<(), String>,
}

const TABLES: [Tables; 5] = [
    Tables {
        at: ("tools", "http"),
        what: "tool",
        required: &tools::REQUIRED,
        specimen: tools::specimen,
        attempt: attempt::<tools::HttpTool>,
    },
    Tables {
        at: ("mcp", "servers"),
        what: "MCP server",
        required: &mcp::REQUIRED,
        specimen: mcp::specimen,
        attempt: attempt::<mcp::McpServerConfig>,
    },
    Tables {
        at: ("llm", "prices"),
        what: "price",
        required: &llm::REQUIRED,
        specimen: llm::specimen,
        attempt: attempt::<llm::ModelPrice>,
    },
    Tables {
        at: ("llm", "upstreams"),
        what: "upstream",
        required: &upstreams::UPSTREAM_REQUIRED,
        specimen: upstreams::upstream_specimen,
        attempt: attempt::<upstreams::UpstreamConfig>,
    },
    Tables {
        at: ("llm", "routes"),
        what: "route",
        required: &upstreams::ROUTE_REQUIRED,
        specimen: upstreams::route_specimen,
        attempt: attempt::<upstreams::RouteConfig>,
    },
];

fn attempt<T: DeserializeOwned>(value: Value) -> Result<(), String> {
    serde_json::from_value::<T>(value)
        .map(drop)
        .map_err(|error| error.to_string())
}

struct Loader {
    sections: Vec<Section>,
    merged: Map<String, Value>,
    origins: Origins,
    refused: BTreeSet<(String, String)>,
    mistakes: Vec<Mistake>,
    development: bool,
}

impl Config {
    /// Merges the sources and checks everything.
    ///
    /// # Errors
    /// Every mistake of every source at once.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut loader = Loader {
            sections: all_sections(),
            merged: Map::new(),
            origins: Origins::new(),
            refused: BTreeSet::new(),
            mistakes: Vec::new(),
            development: sources.is_development(),
        };
        if let Some((path, text)) = &sources.file {
            loader.read_file(path, text);
        }
        loader.read_environment(sources);
        loader.finish()
    }
}

impl Loader {
    fn finish(mut self) -> Result<Config, ConfigErrors> {
        let merged = Value::Object(std::mem::take(&mut self.merged));
        match serde_json::from_value::<Config>(merged) {
            Ok(mut config) => {
                self.blame_files(("llm", "upstreams"), config.llm.read_key_files());
                self.blame_files(("mcp", "servers"), config.mcp.read_token_files());
                self.blame_files(("agents", "path"), config.agents.read_files());
                let found = checks::check(&config, &self.origins, &self.refused, self.development);
                self.mistakes.extend(found);
                ConfigErrors::unless_empty(self.mistakes, config)
            }
            Err(error) => {
                self.mistakes.push(Mistake {
                    origin: Origin::Default,
                    message: error.to_string(),
                    instead: None,
                });
                ConfigErrors::unless_empty(self.mistakes, Config::default())
            }
        }
    }

    /// Records the files that could not be read.
    fn blame_files(&mut self, (section, key): (&str, &str), found: Vec<(String, &'static str)>) {
        let at = (section.to_owned(), key.to_owned());
        let origin = self.origins.get(&at).cloned().unwrap_or(Origin::Default);
        for (message, instead) in found {
            self.blame(origin.clone(), message, Some(instead.to_owned()));
        }
    }

    fn blame(&mut self, origin: Origin, message: impl Into<String>, instead: Option<String>) {
        self.mistakes.push(Mistake {
            origin,
            message: message.into(),
            instead,
        });
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let table: Map<String, Value> = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => {
                // The error's own display quotes the line, which may contain a secret.
                let line = error.span().map(|span| {
                    text.as_bytes()
                        .iter()
                        .take(span.start)
                        .filter(|b| **b == b'\n')
                        .count()
                        + 1
                });
                let origin = Origin::File {
                    path: path.to_owned(),
                    line,
                };
                return self.blame(origin, format!("not valid TOML: {}", error.message()), None);
            }
        };
        for (name, content) in table {
            let origin = |key: String| Origin::Key {
                path: path.to_owned(),
                key,
            };
            let Some(position) = self.sections.iter().position(|s| s.name == name) else {
                let names: Vec<_> = self.sections.iter().map(|s| s.name).collect();
                let instead = match nearest(&name, names.iter().copied()) {
                    Some(meant) => format!("did you mean `[{meant}]`?"),
                    None => format!("the sections are {}", names.join(", ")),
                };
                self.blame(origin(name), "there is no such section", Some(instead));
                continue;
            };
            let Value::Object(keys) = content else {
                let instead = format!("begin the section with a line `[{name}]`");
                self.blame(
                    origin(name),
                    "this is a section, not a value",
                    Some(instead),
                );
                continue;
            };
            for (key, value) in keys {
                let origin = origin(format!("{name}.{key}"));
                self.set(position, key, value, origin);
            }
        }
    }

    fn read_environment(&mut self, sources: &Sources) {
        let names = self.variable_names();
        for (variable, value) in &sources.environment {
            if let Some((position, key)) = names.get(variable) {
                let value = self.typed(*position, key, value);
                self.set(
                    *position,
                    key.clone(),
                    value,
                    Origin::Variable(variable.clone()),
                );
                continue;
            }
            let secret = variable.strip_suffix("_FILE").and_then(|name| {
                let (position, key) = names.get(name)?;
                let section = self.sections.get(*position)?.name;
                SECRET_KEYS
                    .contains(&(section, key))
                    .then_some((name, *position, key.clone()))
            });
            if let Some((name, position, key)) = secret {
                let path = Path::new(value).to_owned();
                let origin = Origin::SecretFile {
                    variable: variable.clone(),
                    path: path.clone(),
                };
                if sources.environment.contains_key(name) {
                    let instead = format!("set either {name} or {variable}");
                    self.blame(origin, format!("{name} is set as well"), Some(instead));
                    continue;
                }
                match std::fs::read_to_string(&path) {
                    Ok(text) => {
                        self.set(position, key, text.trim_end().to_owned().into(), origin);
                    }
                    Err(error) => {
                        let instead = "name a file that this process can read".to_owned();
                        self.blame(origin, format!("cannot be read: {error}"), Some(instead));
                    }
                }
            } else if variable.starts_with("BATON_") && !sources.is_foreign(variable) {
                let instead = match nearest(variable, names.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "the form is BATON_<SECTION>__<KEY>".to_owned(),
                };
                let origin = Origin::Variable(variable.clone());
                self.blame(origin, "there is no such setting", Some(instead));
            }
        }
    }

    /// Returns each environment variable's section and key. A key with a usual name has only that
    /// one.
    fn variable_names(&self) -> BTreeMap<String, (usize, String)> {
        let mut names = BTreeMap::new();
        for (position, section) in self.sections.iter().enumerate() {
            for key in section.defaults.keys() {
                names.insert(variable_name(section.name, key), (position, key.clone()));
            }
        }
        names
    }

    /// Parses a variable's text as the JSON type of the key's default. Text that does not fit stays
    /// text, so that the error quotes it unchanged.
    fn typed(&self, position: usize, key: &str, text: &str) -> Value {
        let default = self
            .sections
            .get(position)
            .and_then(|s| s.defaults.get(key));
        let fits = |value: &Value| match default {
            Some(Value::Number(_)) => value.is_number(),
            Some(Value::Bool(_)) => value.is_boolean(),
            Some(Value::Array(_)) => value.is_array(),
            Some(Value::Object(_)) => value.is_object(),
            _ => false,
        };
        serde_json::from_str(text)
            .ok()
            .filter(fits)
            .unwrap_or_else(|| text.into())
    }

    fn set(&mut self, position: usize, key: String, value: Value, origin: Origin) {
        let Some(section) = self.sections.get(position) else {
            return;
        };
        let (name, attempt) = (section.name, section.attempt);
        let Some(default) = section.defaults.get(&key).cloned() else {
            let instead = self.instead_of_key(name, &key);
            return self.blame(origin, "there is no such key", Some(instead));
        };
        if let Some(list) = TABLES.iter().find(|list| list.at == (name, key.as_str())) {
            let before = self.mistakes.len();
            self.check_tables(list, &value, &origin);
            if self.mistakes.len() > before {
                self.refused.insert((name.to_owned(), key));
                return;
            }
        }
        let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        if let Err(reason) = attempt(alone) {
            let is_secret = SECRET_KEYS.contains(&(name, &key));
            // Serde's error quotes the value.
            let reason = if is_secret {
                "the value is not a string".to_owned()
            } else if (name, key.as_str()) == ("auth", "keys") {
                "a key is a table of kid, algorithm (EdDSA or HS256), and secret or secret_file"
                    .to_owned()
            } else {
                reason
            };
            let instead = example(&origin, &key, &default);
            self.refused.insert((name.to_owned(), key));
            return self.blame(origin, reason, instead);
        }
        let entry = self
            .merged
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(keys) = entry {
            keys.insert(key.clone(), value);
        }
        self.refused.remove(&(name.to_owned(), key.clone()));
        self.origins.insert((name.to_owned(), key), origin);
    }

    fn instead_of_key(&self, name: &str, key: &str) -> String {
        let here = self.sections.iter().find(|s| s.name == name);
        let keys = || {
            here.into_iter()
                .flat_map(|s| s.defaults.keys().map(String::as_str))
        };
        if let Some(meant) = nearest(key, keys()) {
            return format!("did you mean `{meant}`?");
        }
        match self.sections.iter().find(|s| s.defaults.contains_key(key)) {
            Some(other) => format!("`{key}` belongs to section `[{}]`", other.name),
            None => format!(
                "the keys of `[{name}]` are {}",
                keys().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// Tries each table's keys one by one, on a table that is otherwise valid.
    fn check_tables(&mut self, list: &Tables, value: &Value, origin: &Origin) {
        let Value::Array(items) = value else { return };
        let specimen = (list.specimen)();
        let (section, key) = list.at;
        for (index, item) in items.iter().enumerate() {
            let place = format!("{} {}", list.what, index + 1);
            let Value::Object(keys) = item else {
                let instead = format!("begin each {} with a line `[[{section}.{key}]]`", list.what);
                let message = format!("{place} is not a table");
                self.blame(origin.clone(), message, Some(instead));
                continue;
            };
            for required in list.required.iter().filter(|key| !keys.contains_key(**key)) {
                let instead = specimen
                    .get(*required)
                    .and_then(|value| example(origin, required, value));
                self.blame(
                    origin.clone(),
                    format!("{place} has no `{required}`"),
                    instead,
                );
            }
            for (key, value) in keys {
                let Some(default) = specimen.get(key) else {
                    let all: Vec<_> = specimen.keys().map(String::as_str).collect();
                    let instead = match nearest(key, all.iter().copied()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("the keys of a {} are {}", list.what, all.join(", ")),
                    };
                    let message = format!("{place} has an unknown key `{key}`");
                    self.blame(origin.clone(), message, Some(instead));
                    continue;
                };
                let mut table = specimen.clone();
                table.insert(key.clone(), value.clone());
                if let Err(error) = (list.attempt)(Value::Object(table)) {
                    let reason = if key == "headers" {
                        "headers are a table of strings".to_owned()
                    } else if key == "auth" {
                        // The error quotes the value, which may be a secret.
                        "auth is a table with kind = \"client_credentials\", token_url, client_id, \
                         client_secret or client_secret_file, and if needed client_auth, scope and resource"
                            .to_owned()
                    } else if ["api_key", "token", "proxy"].contains(&key.as_str()) {
                        "the value is not a string".to_owned()
                    } else {
                        error
                    };
                    let message = format!("{place}, `{key}`: {reason}");
                    self.blame(origin.clone(), message, example(origin, key, default));
                }
            }
        }
    }
}

/// Returns the environment variable that sets a key.
pub(super) fn variable_name(section: &str, key: &str) -> String {
    USUAL_NAMES
        .iter()
        .find(|(_, s, k)| (*s, *k) == (section, key))
        .map_or_else(
            || format!("BATON_{section}__{key}").to_uppercase(),
            |(name, ..)| (*name).into(),
        )
}

/// Returns "write for example …", in the syntax of the source.
fn example(origin: &Origin, key: &str, default: &Value) -> Option<String> {
    match (origin, default) {
        (_, Value::Null | Value::Array(_) | Value::Object(_)) => None,
        (Origin::Variable(name), Value::String(text)) => {
            Some(format!("write for example {name}={text}"))
        }
        (Origin::Variable(name), value) => Some(format!("write for example {name}={value}")),
        (_, value) => Some(format!("write for example {key} = {value}")),
    }
}
