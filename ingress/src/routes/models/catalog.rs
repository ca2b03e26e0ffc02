//! The upstream's models, cached for a minute; the configured models if the upstream has no list.

use std::sync::Arc;
use std::time::Duration;

use baton_openai::{Model, ModelList};
use baton_outbound::SetupError;
use baton_service::config::LlmConfig;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Limited};
use moka::future::Cache;

use crate::error::ApiError;
use crate::fetch;

/// The lifetime of a cached list.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest list, in bytes; the longest known one has a tenth of it.
const LONGEST: usize = 4 << 20;

/// The upstream's models.
#[derive(Clone)]
pub(crate) struct ModelCatalog {
    upstream: Option<Arc<Upstream>>,
    /// The models that the configuration names.
    configured: Arc<ModelList>,
    known: Cache<(), Arc<ModelList>>,
}

struct Upstream {
    client: reqwest::Client,
    url: String,
    authorization: Option<String>,
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
        let upstream = match &config.base_url {
            None => None,
            Some(base) => Some(Arc::new(Upstream {
                client: fetch::client(config.connect_timeout)?,
                url: format!("{}/models", base.trim_end_matches('/')),
                authorization: config
                    .api_key
                    .as_ref()
                    .map(|key| format!("Bearer {}", key.expose())),
            })),
        };
        let known = Cache::builder()
            .max_capacity(1)
            .time_to_live(BELIEVED_FOR)
            .build();
        Ok(Self {
            upstream,
            configured: Arc::new(configured(config)),
            known,
        })
    }

    /// Returns the upstream's models; the configured ones if it has no list or is unreachable.
    pub(crate) async fn list(&self) -> Result<Arc<ModelList>, ApiError> {
        if let Some(known) = self.known.get(&()).await {
            return Ok(known);
        }
        let error = match &self.upstream {
            None => ApiError::new(
                StatusCode::BAD_GATEWAY,
                "no_upstream",
                "no model server is configured",
            ),
            Some(upstream) => match upstream.list().await {
                Ok(list) => {
                    let list = Arc::new(list);
                    self.known.insert((), Arc::clone(&list)).await;
                    return Ok(list);
                }
                Err(ListError::Status(status)) if keeps_no_list(status) => {
                    self.known.insert((), Arc::clone(&self.configured)).await;
                    return Ok(Arc::clone(&self.configured));
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no list of models"
                    );
                    ApiError::new(StatusCode::BAD_GATEWAY, "upstream_error", error.to_string())
                }
            },
        };
        if self.configured.data.is_empty() {
            return Err(error);
        }
        Ok(Arc::clone(&self.configured))
    }
}

/// Returns the default model, and each model with a price.
fn configured(config: &LlmConfig) -> ModelList {
    let priced = config.prices.iter().map(|price| &price.model);
    let mut names: Vec<&String> = Vec::new();
    for name in config.default_model.iter().chain(priced) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let models = names
        .into_iter()
        .map(|name| Model::new(name, 0, "upstream"));
    ModelList::new(models.collect())
}

/// Returns whether a status means that the server has no such route, not that it failed.
fn keeps_no_list(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

impl Upstream {
    async fn list(&self) -> Result<ModelList, ListError> {
        let mut request = self.client.get(&self.url).timeout(TIMEOUT);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
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
