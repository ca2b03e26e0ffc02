//! A trial of each upstream for an operator: its list of models, and a short streamed turn with a tool.

use std::collections::BTreeMap;

use baton_routing::{Needs, Route};
use baton_service::config::{LlmConfig, UpstreamFeature};
use bytes::Bytes;
use serde_json::json;

use super::client::{ModelClient, TurnContext};
use super::config::ModelConfig;
use super::retry::RetryPolicy;
use super::turn_stream::FinishedTurn;
use super::upstreams::Upstreams;
use super::{ModelError, ModelSetupError};

/// The result of trying one upstream.
#[derive(Debug)]
pub struct UpstreamProbe {
    /// Its name in the configuration.
    pub upstream: String,
    /// The names of its models.
    pub models: Result<Vec<String>, ModelError>,
    /// The name there of a model that requests reach it with; `None` if the configuration names none.
    pub model: Option<String>,
    /// A turn with that model, if one was asked for.
    pub turn: Option<ProbedTurn>,
}

/// A short turn.
#[derive(Debug)]
pub struct ProbedTurn {
    /// Whether the request had a tool.
    pub with_tools: bool,
    /// The end of the turn.
    pub end: Result<FinishedTurn, ModelError>,
}

/// Tries every upstream, one after the other. A turn costs a few tokens.
pub async fn probe_upstreams(
    config: &LlmConfig,
    with_turn: bool,
) -> Result<Vec<UpstreamProbe>, ModelSetupError> {
    let mut models = models_to_try(config);
    let mut probes = Vec::new();
    for upstream in config.all_upstreams() {
        let name = upstream.name.clone();
        let with_tools = upstream.supports(UpstreamFeature::Tools);
        let once = ModelConfig {
            retry: RetryPolicy {
                max_retries: 0,
                ..RetryPolicy::default()
            },
            ..ModelConfig::of(config, upstream)
        };
        let client = ModelClient::with_config(once.clone())?;
        let listed = client.list_models().await;
        let model = models.remove(&name);
        let turn = match model.as_deref().filter(|_| with_turn) {
            Some(model) => Some(ProbedTurn {
                with_tools,
                end: try_turn(once, model, with_tools).await,
            }),
            None => None,
        };
        probes.push(UpstreamProbe {
            upstream: name,
            models: listed.map(|list| list.data.into_iter().map(|model| model.id).collect()),
            model,
            turn,
        });
    }
    Ok(probes)
}

/// Returns for each upstream a model that requests reach it with: the default one, else the first that
/// a route names.
fn models_to_try(config: &LlmConfig) -> BTreeMap<String, String> {
    let routes = config.all_routes();
    let named = routes.all().iter().flat_map(Route::names);
    let mut models = BTreeMap::new();
    for model in config.default_model.as_deref().into_iter().chain(named) {
        for target in routes.able(model, Needs::default()).unwrap_or_default() {
            let upstream = target.upstream.to_string();
            models.entry(upstream).or_insert(target.model);
        }
    }
    models
}

async fn try_turn(
    config: ModelConfig,
    model: &str,
    with_tools: bool,
) -> Result<FinishedTurn, ModelError> {
    let limit_field = config.answer_limit_field;
    let with_usage = !config.unsupported.contains(&UpstreamFeature::StreamOptions);
    let upstream = Upstreams::one(config).map_err(|_| ModelError::NoRoute {
        model: model.to_owned(),
    })?;
    let mut body = json!({
        "model": model,
        "messages": [{"role": "user", "content": "Answer with the word ready."}],
        "stream": true,
        limit_field: 64,
    });
    if with_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    if with_tools {
        body["tools"] = json!([{"type": "function", "function": {
            "name": "current_time",
            "description": "Returns the time.",
            "parameters": {"type": "object", "properties": {}},
        }}]);
    }
    let body = Bytes::from(body.to_string());
    let targets = upstream.targets(model, &[], Needs::default())?;
    let started = upstream
        .start_turn(&targets, |_| body.clone(), TurnContext::default())
        .await?;
    let mut stream = started.stream;
    while stream.next_batch().await?.is_some() {}
    stream.finish()
}
