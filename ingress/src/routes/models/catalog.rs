//! The models of the routes, cached for a minute: their names and aliases, and the upstreams' own lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_openai::{Model, ModelList};
use baton_outbound::{SetupError, client_builder_of_operator};
use baton_routing::{Route, Routes};
use baton_service::config::{ConnectionUrl, LlmConfig, UpstreamConfig};
use futures_util::future::join_all;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use moka::future::Cache;

use crate::error::ApiError;

/// The lifetime of a cached list.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest list, in bytes; the longest known one has a tenth of it.
const LONGEST: usize = 4 << 20;

/// The models that requests can name.
#[derive(Clone)]
pub(crate) struct ModelCatalog {
    routes: Routes,
    /// The upstreams that pattern routes lead to, by their names.
    upstreams: Arc<BTreeMap<Arc<str>, Upstream>>,
    /// The models that the configuration names.
    configured: Arc<[String]>,
    known: Cache<(), Arc<ModelList>>,
}

struct Upstream {
    client: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
}

/// The reason why the list could not be read.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("the model server cannot be asked for its models")]
    Ask(#[from] reqwest::Error),
    #[error("the model server answered {0} when asked for its models")]
    Status(StatusCode),
    #[error("the list of models broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the list of models is unreadable")]
    Unreadable(#[from] serde_json::Error),
}

impl ModelCatalog {
    pub(crate) fn new(config: &LlmConfig) -> Result<Self, SetupError> {
        let routes = config.all_routes();
        let listed: Vec<Arc<str>> = routes.all().iter().filter_map(listed_at).collect();
        let mut upstreams = BTreeMap::new();
        for upstream in config.all_upstreams() {
            let name = Arc::<str>::from(&*upstream.name);
            if listed.contains(&name) {
                let timeout = upstream.connect_timeout.unwrap_or(config.connect_timeout);
                upstreams.insert(name, Upstream::new(&upstream, timeout)?);
            }
        }
        let known = Cache::builder()
            .max_capacity(1)
            .time_to_live(BELIEVED_FOR)
            .build();
        Ok(Self {
            routes,
            upstreams: Arc::new(upstreams),
            configured: configured(config).into(),
            known,
        })
    }

    /// Returns the names and aliases of routes, and the models of upstreams that match a pattern. If an
    /// upstream has no list, or is unreachable, the configured models that match count for its.
    pub(crate) async fn list(&self) -> Result<Arc<ModelList>, ApiError> {
        if let Some(known) = self.known.get(&()).await {
            return Ok(known);
        }
        let asked = self.upstreams.iter();
        let asked = asked.map(async |(name, upstream)| (name, upstream.list().await));
        let lists: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        let mut failed = None;
        for list in lists.values() {
            match list {
                Err(error) if !error.is_no_list() => {
                    tracing::warn!(error = error as &dyn std::error::Error, "no list of models");
                    failed.get_or_insert_with(|| error.to_string());
                }
                _ => {}
            }
        }
        let mut models: Vec<Model> = Vec::new();
        let mut add = |model: Model| {
            if models.iter().all(|known| known.id != model.id) {
                models.push(model);
            }
        };
        for route in self.routes.all() {
            route.names().for_each(|name| add(of_configuration(name)));
            if route.pattern.name().is_some() {
                continue;
            }
            let list = listed_at(route).and_then(|upstream| lists.get(&upstream)?.as_ref().ok());
            let is_match = |name: &str| route.pattern.matched(name).is_some();
            if let Some(list) = list {
                let matching = list.data.iter().filter(|model| is_match(&model.id));
                matching.cloned().for_each(&mut add);
            } else {
                let matching = self.configured.iter().filter(|name| is_match(name));
                matching.for_each(|name| add(of_configuration(name)));
            }
        }
        let list = Arc::new(ModelList::new(models));
        match failed {
            Some(error) if list.data.is_empty() => Err(ApiError::new(
                StatusCode::BAD_GATEWAY,
                "upstream_error",
                error,
            )),
            Some(_) => Ok(list),
            None => {
                self.known.insert((), Arc::clone(&list)).await;
                Ok(list)
            }
        }
    }
}

/// Returns the upstream that lists the models of a pattern: the first one, unless it knows them by other
/// names.
fn listed_at(route: &Route) -> Option<Arc<str>> {
    let first = route.hops.first()?;
    let is_listed = route.pattern.name().is_none() && first.model.is_none();
    is_listed.then(|| Arc::clone(&first.upstream))
}

fn of_configuration(name: &str) -> Model {
    Model::new(name, 0, "upstream")
}

/// Returns the default model, and each model with a price.
fn configured(config: &LlmConfig) -> Vec<String> {
    let priced = config.prices.iter().map(|price| &price.model);
    config.default_model.iter().chain(priced).cloned().collect()
}

impl ListError {
    /// Returns whether the server has no list, rather than that it failed.
    fn is_no_list(&self) -> bool {
        matches!(self, Self::Status(status) if keeps_no_list(*status))
    }
}

/// Returns whether a status means that the server has no such route, not that it failed.
fn keeps_no_list(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

impl Upstream {
    fn new(config: &UpstreamConfig, connect_timeout: Duration) -> Result<Self, SetupError> {
        let proxy = config.proxy.as_ref().map(ConnectionUrl::expose);
        let client = client_builder_of_operator(config.ca_file.as_deref(), proxy)?;
        let own = config.headers.iter();
        let mut headers: Vec<_> = own
            .map(|(name, value)| (name.clone(), value.expose().clone()))
            .collect();
        let is_authorized =
            |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
        if let Some(key) = &config.api_key
            && !headers.iter().any(is_authorized)
        {
            let bearer = format!("Bearer {}", key.expose());
            headers.push(("authorization".to_owned(), bearer));
        }
        Ok(Self {
            client: client.connect_timeout(connect_timeout).build()?,
            url: format!("{}/models", config.base_url.trim_end_matches('/')),
            headers,
        })
    }

    async fn list(&self) -> Result<ModelList, ListError> {
        let mut request = self.client.get(&self.url).timeout(TIMEOUT);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(ListError::Status(response.status()));
        }
        let body = Limited::new(reqwest::Body::from(response), LONGEST);
        let body = body.collect().await.map_err(ListError::Body)?.to_bytes();
        Ok(ModelList::read(&body)?)
    }
}

#[cfg(test)]
mod tests;
