//! `GET /v1/models` and `GET /v1/models/{id}`: what the upstream offers, as far as the key may use it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use baton_openai::{ErrorBody, Model, ModelList};
use baton_service::config::LlmConfig;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Limited};
use moka::future::Cache;

use crate::auth::{Authorized, ModelsRead};
use crate::error::ApiError;
use crate::fetch;
use crate::state::AppState;

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
    async fn list(&self) -> Result<Arc<ModelList>, ApiError> {
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

/// Follows no redirect: it would carry the key to where the operator did not send it.
/// The models that this key may name.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses(
        (status = 200, description = "The models", body = ModelList),
        (status = 401, body = ErrorBody),
        (status = 502, description = "The upstream failed", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_models(
    State(state): State<AppState>,
    authorized: Authorized<ModelsRead>,
) -> Result<Json<ModelList>, ApiError> {
    let list = state.models.list().await?;
    let grant = &authorized.caller.grant;
    let allowed = list
        .data
        .iter()
        .filter(|model| grant.allows_model(&model.id));
    Ok(Json(ModelList::new(allowed.cloned().collect())))
}

/// One of the models that this key may name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The model; it may contain slashes")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 401, body = ErrorBody),
        (status = 404, description = "No such model, or not for this key", body = ErrorBody),
        (status = 502, description = "The upstream failed", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_model(
    State(state): State<AppState>,
    authorized: Authorized<ModelsRead>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    find(&state, &authorized, &id).await
}

/// Names with slashes, which some SDKs leave as they are.
pub(crate) async fn read_model_of_owner(
    State(state): State<AppState>,
    authorized: Authorized<ModelsRead>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Model>, ApiError> {
    find(&state, &authorized, &format!("{owner}/{name}")).await
}

async fn find(
    state: &AppState,
    authorized: &Authorized<ModelsRead>,
    id: &str,
) -> Result<Json<Model>, ApiError> {
    let list = state.models.list().await?;
    let found = list
        .data
        .iter()
        .find(|model| model.id == id && authorized.caller.grant.allows_model(&model.id));
    found.cloned().map(Json).ok_or_else(|| {
        let message = format!("there is no model `{id}` for this API key");
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
    })
}
