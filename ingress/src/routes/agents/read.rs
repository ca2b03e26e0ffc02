//! `GET /v1/agents` and `GET /v1/agents/{id}`.

use axum::Json;
use axum::extract::State;
use baton_store::Store;
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::{AgentList, AgentView};
use super::{AgentPath, no_such_agent, no_such_version};
use crate::access::{AgentsRead, Authorized};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, list_params};

list_params! {
    /// The page of the list.
    pub(crate) struct AgentListParams {}
    cursor: min_length = 1, max_length = 36
}

/// Lists the tenant's agents in their newest versions, the newest agent first.
#[utoipa::path(
    get,
    path = "/v1/agents",
    tag = "Agents",
    params(AgentListParams),
    responses(
        (status = 200, description = "A page of agents", body = AgentList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_agents(
    State(store): State<Store>,
    authorized: Authorized<AgentsRead>,
    QueryParams(params): QueryParams<AgentListParams>,
) -> Result<Json<AgentList>, ApiError> {
    let (cursor, limit) = params.page()?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let page = tx.list_agents(cursor, limit).await?;
    Ok(Json(AgentList {
        data: page.data.into_iter().map(AgentView::from).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// The version to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionParams {
    /// The version. Default: the newest.
    #[param(minimum = 1)]
    version: Option<u32>,
}

/// Returns an agent, in its newest version unless the request names another.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$"), VersionParams),
    responses(
        (status = 200, description = "The agent", body = AgentView),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such agent or version", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_agent(
    State(store): State<Store>,
    authorized: Authorized<AgentsRead>,
    AgentPath(key): AgentPath,
    QueryParams(params): QueryParams<VersionParams>,
) -> Result<Json<AgentView>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let newest = tx.agent(&key).await?.ok_or_else(no_such_agent)?;
    let agent = match params.version {
        None => newest,
        Some(version) => tx
            .agent_version(&key, version)
            .await?
            .ok_or_else(|| no_such_version(version))?,
    };
    Ok(Json(agent.into()))
}
