//! The models that the upstream offers, remembered for a minute.

use std::sync::Arc;
use std::time::Duration;

use baton_openai::{Model, ModelList};
use baton_service::config::LlmConfig;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Limited};
use moka::future::Cache;

use crate::error::ApiError;
use crate::fetch;

/// How long a list is believed.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes; the longest list known has a tenth of it.
const LONGEST: usize = 4 << 20;

/// The upstream's models.
#[derive(Clone)]
pub(crate) struct ModelCatalog {
    upstream: Option<Arc<Upstream>>,
    default_model: Option<String>,
    known: Cache<(), Arc<ModelList>>,
}

struct Upstream {
    client: reqwest::Client,
    url: String,
    authorization: Option<String>,
}

/// The list cannot be had.
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
    pub(crate) fn new(config: &LlmConfig) -> Result<Self, fetch::ClientError> {
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
            default_model: config.default_model.clone(),
            known,
        })
    }

    /// All models. Where the upstream keeps no list, the default model is all that is known.
    pub(crate) async fn list(&self) -> Result<Arc<ModelList>, ApiError> {
        if let Some(known) = self.known.get(&()).await {
            return Ok(known);
        }
        let Some(upstream) = &self.upstream else {
            return self.default_alone().ok_or_else(|| {
                ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    "no_upstream",
                    "no model server is configured",
                )
            });
        };
        match upstream.list().await {
            Ok(list) => {
                let list = Arc::new(list);
                self.known.insert((), Arc::clone(&list)).await;
                Ok(list)
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no list of models"
                );
                self.default_alone().ok_or_else(|| {
                    ApiError::new(StatusCode::BAD_GATEWAY, "upstream_error", error.to_string())
                })
            }
        }
    }

    fn default_alone(&self) -> Option<Arc<ModelList>> {
        let model = self.default_model.as_deref()?;
        Some(Arc::new(ModelList::new(vec![Model::new(
            model, 0, "upstream",
        )])))
    }
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
        Ok(serde_json::from_slice(&body)?)
    }
}
