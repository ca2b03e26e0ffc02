//! `GET /v1/models` and `GET /v1/models/{id}`: the upstream's models that the key may use, and the
//! tenant's agents.

mod catalog;

pub(crate) use catalog::ModelCatalog;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Json;
use axum::extract::{Path, State};
use baton_admission::Grant;
use baton_openai::{ErrorBody, Model, ModelList};
use baton_store::{AgentKey, AgentRecord, Store};
use http::StatusCode;

use crate::access::{Authorized, ModelsRead};
use crate::error::ApiError;
use crate::routes::agents::{MOST_AGENTS, MOST_FILE_AGENTS};

/// The catalog of the present configuration. Clones share it.
#[derive(Clone)]
pub(crate) struct Models(Arc<ArcSwap<ModelCatalog>>);

impl Models {
    pub(crate) fn new(catalog: ModelCatalog) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(catalog)))
    }

    /// Replaces the catalog for later requests.
    pub(crate) fn replace(&self, catalog: ModelCatalog) {
        self.0.store(Arc::new(catalog));
    }

    async fn list(&self) -> Result<Arc<ModelList>, ApiError> {
        self.0.load_full().list().await
    }
}

/// Lists the models that this key may name.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses(
        (status = 200, description = "The models", body = ModelList),
        (status = 502, description = "The upstream failed", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_models(
    State(store): State<Store>,
    State(models): State<Models>,
    authorized: Authorized<ModelsRead>,
) -> Result<Json<ModelList>, ApiError> {
    let list = models.list().await?;
    let grant = &authorized.caller.grant;
    let allowed = list
        .data
        .iter()
        .filter(|model| grant.allows_model(&model.id));
    let agents = agents(&store, &authorized).await?;
    Ok(Json(ModelList::new(
        agents.into_iter().chain(allowed.cloned()).collect(),
    )))
}

/// Returns the tenant's agents as models: a client selects an agent by its name.
async fn agents(
    store: &Store,
    authorized: &Authorized<ModelsRead>,
) -> Result<Vec<Model>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let most = MOST_AGENTS + MOST_FILE_AGENTS;
    let page = tx.list_agents(None, most).await?;
    let grant = &authorized.caller.grant;
    let models = page.data.into_iter();
    Ok(models.filter_map(|agent| as_model(agent, grant)).collect())
}

/// Returns the agent as a model, unless this key may not use the agent's own model.
fn as_model(agent: AgentRecord, grant: &Grant) -> Option<Model> {
    let created = agent.created_at.timestamp();
    let definition = agent.version.definition;
    let model = definition.model.as_deref();
    let allowed = model.is_none_or(|model| grant.allows_model(model));
    allowed.then(|| Model::new(definition.name, created, "agent"))
}

/// Returns one of the models that this key may name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The model; it may contain slashes", min_length = 1, max_length = 512)),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "No such model, or not for this key", body = ErrorBody),
        (status = 502, description = "The upstream failed", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_model(
    State(store): State<Store>,
    State(models): State<Models>,
    authorized: Authorized<ModelsRead>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    find(&store, &models, &authorized, &id).await
}

/// Handles names with slashes, which some SDKs do not encode.
pub(crate) async fn read_model_of_owner(
    State(store): State<Store>,
    State(models): State<Models>,
    authorized: Authorized<ModelsRead>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Model>, ApiError> {
    find(&store, &models, &authorized, &format!("{owner}/{name}")).await
}

async fn find(
    store: &Store,
    models: &Models,
    authorized: &Authorized<ModelsRead>,
    id: &str,
) -> Result<Json<Model>, ApiError> {
    let grant = &authorized.caller.grant;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let agent = tx.agent(&AgentKey::Name(id.to_owned())).await?;
    drop(tx);
    if let Some(agent) = agent.and_then(|agent| as_model(agent, grant)) {
        return Ok(Json(agent));
    }
    let list = models.list().await?;
    let found = list
        .data
        .iter()
        .find(|model| model.id == id && grant.allows_model(&model.id));
    found.cloned().map(Json).ok_or_else(|| {
        let message = format!("there is no model `{id}` for this API key");
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
    })
}
