//! `[[llm.upstreams]]` and `[[llm.routes]]`: several upstreams, and the models that each serves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use baton_routing::{Hop, Knows, Pattern, Route, Routes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::llm::{AnswerLimitField, LlmConfig, UpstreamFeature};
use super::values::{ConnectionUrl, Secret};

/// The name of the upstream that `llm.base_url` sets.
pub const ONLY_UPSTREAM: &str = "default";

/// `[[llm.upstreams]]`: a server that speaks the OpenAI chat API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The name in routes, logs and metrics. No default.
    pub name: String,
    /// Its URL up to and with `/v1`. No default.
    pub base_url: String,
    /// Its key. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret<String>>,
    /// A file with its key, read at each load of the configuration. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// Headers of each request; their values are secret. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret<String>>,
    /// As `llm.answer_limit_field`. Default: max_tokens.
    #[serde(default)]
    pub answer_limit_field: AnswerLimitField,
    /// As `llm.unsupported`. Default: none.
    #[serde(default)]
    pub unsupported: Vec<UpstreamFeature>,
    /// The time limit of connecting. Default: `llm.connect_timeout`.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub connect_timeout: Option<Duration>,
    /// The time limit of the first byte of an answer. Default: `llm.first_byte_timeout`.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub first_byte_timeout: Option<Duration>,
    /// The longest pause within an answer. Default: `llm.idle_timeout`.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_timeout: Option<Duration>,
    /// The time limit of a whole answer. Default: `llm.total_timeout`.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub total_timeout: Option<Duration>,
    /// The most requests that a worker has at it at once. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// A file of certificate authorities (PEM) that are trusted besides the public ones. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy to reach it through. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ConnectionUrl>,
}

/// `[[llm.routes]]`: the upstreams of a model, or of all models with names that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The name of a model in requests, or a pattern with one `*`. No default.
    pub model: String,
    /// Other names that take the route. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The upstreams in the order in which they are asked. No default.
    pub to: Vec<HopConfig>,
}

/// An upstream of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HopConfig {
    /// The name of the upstream. No default.
    pub upstream: String,
    /// The model's name there; a `*` is what the route's `*` matched. Default: the requested name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl UpstreamConfig {
    /// Returns whether the upstream has this part of the chat API.
    pub fn supports(&self, feature: UpstreamFeature) -> bool {
        !self.unsupported.contains(&feature)
    }

    /// Returns the parts of the chat API without which a request cannot be served.
    fn knows(&self) -> Knows {
        Knows {
            tools: self.supports(UpstreamFeature::Tools),
            parallel_tool_calls: self.supports(UpstreamFeature::ParallelToolCalls),
            response_format: self.supports(UpstreamFeature::ResponseFormat),
        }
    }
}

impl LlmConfig {
    /// Returns whether there is an upstream.
    pub fn has_upstream(&self) -> bool {
        self.base_url.is_some() || !self.upstreams.is_empty()
    }

    /// Returns the upstreams: those of `llm.upstreams`, or the one of `llm.base_url`.
    pub fn all_upstreams(&self) -> Vec<UpstreamConfig> {
        let only = self.base_url.as_ref().filter(|_| self.upstreams.is_empty());
        let only = only.map(|base_url| UpstreamConfig {
            name: ONLY_UPSTREAM.to_owned(),
            base_url: base_url.clone(),
            api_key: self.api_key.clone(),
            api_key_file: None,
            headers: BTreeMap::new(),
            answer_limit_field: self.answer_limit_field,
            unsupported: self.unsupported.clone(),
            connect_timeout: None,
            first_byte_timeout: None,
            idle_timeout: None,
            total_timeout: None,
            max_concurrent: None,
            ca_file: None,
            proxy: None,
        });
        self.upstreams.iter().cloned().chain(only).collect()
    }

    /// Returns whether an upstream takes tools; true without any upstream.
    pub(super) fn one_takes_tools(&self) -> bool {
        let upstreams = self.all_upstreams();
        let mut each = upstreams.iter();
        self.supports(UpstreamFeature::Tools)
            && (upstreams.is_empty() || each.any(|it| it.supports(UpstreamFeature::Tools)))
    }

    /// Returns the routes. One upstream without routes serves every model. So does one that is not
    /// configured, because a role without a model of its own does not need its URL.
    pub fn all_routes(&self) -> Routes {
        let upstreams = self.all_upstreams();
        match (upstreams.as_slice(), self.routes.as_slice()) {
            ([only], []) => return Routes::to_one(&only.name, only.knows()),
            ([], []) => return Routes::to_one(ONLY_UPSTREAM, Knows::default()),
            _ => {}
        }
        let knows = |name: &str| {
            let named = upstreams.iter().find(|upstream| upstream.name == name);
            named.map(UpstreamConfig::knows).unwrap_or_default()
        };
        let routes = self.routes.iter().filter_map(|route| {
            let hops = route.to.iter().map(|hop| Hop {
                upstream: hop.upstream.as_str().into(),
                model: hop.model.clone(),
                knows: knows(&hop.upstream),
            });
            Some(Route {
                // The checks have refused what is no pattern.
                pattern: Pattern::parse(&route.model)?,
                aliases: route.aliases.clone(),
                hops: hops.collect(),
            })
        });
        routes.collect()
    }

    /// Reads the key files of the upstreams. Returns the problem and the correction for each file that
    /// gives no key.
    pub(super) fn read_key_files(&mut self) -> Vec<(String, &'static str)> {
        let mut problems = Vec::new();
        for upstream in &mut self.upstreams {
            let Some(path) = &upstream.api_key_file else {
                continue;
            };
            let place = format!("upstream `{}`, `api_key_file`", upstream.name);
            if upstream.api_key.is_some() {
                let problem = format!("{place}: `api_key` is set as well");
                problems.push((problem, "set one of the two"));
                continue;
            }
            match std::fs::read_to_string(path) {
                Ok(text) => upstream.api_key = Some(Secret::new(text.trim_end().to_owned())),
                Err(error) => {
                    let problem = format!("{place}: {} cannot be read: {error}", path.display());
                    problems.push((problem, "name a file that this process can read"));
                }
            }
        }
        problems
    }
}

/// The keys of an upstream without a default.
pub(super) const UPSTREAM_REQUIRED: [&str; 2] = ["name", "base_url"];
/// The keys of a route without a default.
pub(super) const ROUTE_REQUIRED: [&str; 2] = ["model", "to"];

/// A valid upstream: see `tools::specimen`.
pub(super) fn upstream_specimen() -> Map<String, Value> {
    object(serde_json::json!({
        "name": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "sk-",
        "api_key_file": "/run/secrets/openai",
        "headers": {},
        "answer_limit_field": "max_tokens",
        "unsupported": [],
        "connect_timeout": "5s",
        "first_byte_timeout": "1m",
        "idle_timeout": "1m",
        "total_timeout": "10m",
        "max_concurrent": 64,
        "ca_file": "/etc/ssl/private-ca.pem",
        "proxy": "http://proxy.example:3128",
    }))
}

/// A valid route: see `tools::specimen`.
pub(super) fn route_specimen() -> Map<String, Value> {
    object(serde_json::json!({
        "model": "gpt-4o",
        "aliases": [],
        "to": [{"upstream": "openai"}],
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}
