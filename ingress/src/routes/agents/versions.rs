//! The versions of an agent: list, compare, roll back.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use baton_admission::Admission;
use baton_protocol::AgentDefinition;
use baton_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::read::AgentListParams;
use super::replace::NextVersion;
use super::view::{AgentVersionList, AgentVersionView, AgentView};
use super::{AgentPath, check, lock, no_such_agent, no_such_version};
use crate::access::body::JsonBody;
use crate::access::{AgentsRead, AgentsWrite, Authorized, Origin};
use crate::error::{ApiError, Problem};
use crate::routes::query::QueryParams;

/// Lists an agent's versions, the newest first.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/versions",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$"), AgentListParams),
    responses(
        (status = 200, description = "A page of versions", body = AgentVersionList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such agent", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_agent_versions(
    State(store): State<Store>,
    authorized: Authorized<AgentsRead>,
    AgentPath(key): AgentPath,
    QueryParams(params): QueryParams<AgentListParams>,
) -> Result<Json<AgentVersionList>, ApiError> {
    let (cursor, limit) = params.page()?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let agent = tx.agent(&key).await?.ok_or_else(no_such_agent)?;
    let page = tx.agent_versions(agent.id, cursor, limit).await?;
    Ok(Json(AgentVersionList {
        data: page.data.into_iter().map(AgentVersionView::from).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// The versions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CompareParams {
    /// The version to start from. Default: the one before `to`.
    #[param(minimum = 1)]
    from: Option<u32>,
    /// The version to end at. Default: the newest.
    #[param(minimum = 1)]
    to: Option<u32>,
}

/// A field that differs between two versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldChange {
    /// The name of the field.
    field: String,
    /// Its value in `from`; `null` if it is absent.
    from: Value,
    /// Its value in `to`; `null` if it is absent.
    to: Value,
}

/// The differences between two versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionDiff {
    from: u32,
    to: u32,
    /// The fields that differ, by name.
    changes: Vec<FieldChange>,
}

/// Returns the fields that differ between two versions of an agent.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/diff",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$"), CompareParams),
    responses(
        (status = 200, description = "The differences", body = VersionDiff),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such agent or version", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn compare_agent_versions(
    State(store): State<Store>,
    authorized: Authorized<AgentsRead>,
    AgentPath(key): AgentPath,
    QueryParams(params): QueryParams<CompareParams>,
) -> Result<Json<VersionDiff>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let newest = tx.agent(&key).await?.ok_or_else(no_such_agent)?;
    let to = params.to.unwrap_or(newest.version.number);
    let from = params.from.unwrap_or_else(|| to.saturating_sub(1).max(1));
    let mut sides = Vec::with_capacity(2);
    for version in [from, to] {
        let found = tx.agent_version(&key, version).await?;
        let found = found.ok_or_else(|| no_such_version(version))?;
        sides.push(fields(&found.version.definition)?);
    }
    let after = sides.pop().unwrap_or_default();
    let before = sides.pop().unwrap_or_default();
    Ok(Json(VersionDiff {
        from,
        to,
        changes: changes(before, after),
    }))
}

fn fields(definition: &AgentDefinition) -> Result<BTreeMap<String, Value>, ApiError> {
    let text = serde_json::to_string(definition);
    text.and_then(|text| serde_json::from_str(&text))
        .map_err(|error| ApiError::internal(&error))
}

fn changes(
    mut before: BTreeMap<String, Value>,
    after: BTreeMap<String, Value>,
) -> Vec<FieldChange> {
    let mut changed: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for (field, to) in after {
        let from = before.remove(&field).unwrap_or_default();
        changed.insert(field, (from, to));
    }
    let removed = before
        .into_iter()
        .map(|(field, from)| (field, (from, Value::Null)));
    changed.extend(removed);
    let changed = changed.into_iter().filter(|(_, (from, to))| from != to);
    changed
        .map(|(field, (from, to))| FieldChange { field, from, to })
        .collect()
}

/// The version to return to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollBack {
    /// An earlier version.
    #[schema(minimum = 1)]
    version: u32,
}

/// Returns to an earlier version: creates a new one that repeats it.
#[utoipa::path(
    post,
    path = "/v1/agents/{id}/rollback",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$")),
    request_body = RollBack,
    responses(
        (status = 200, description = "The agent in its newest version", body = AgentView),
        (status = 404, description = "No such agent or version", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The agent comes from a file", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn roll_back_agent(
    State(store): State<Store>,
    State(admission): State<Admission>,
    authorized: Authorized<AgentsWrite>,
    origin: Origin,
    AgentPath(key): AgentPath,
    JsonBody(RollBack { version }): JsonBody<RollBack>,
) -> Result<Json<AgentView>, ApiError> {
    let caller = authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let newest = lock(&mut tx, &key).await?;
    let earlier = tx.agent_version(&key, version).await?;
    let earlier = earlier.ok_or_else(|| no_such_version(version))?;
    // Its tools may have been removed since.
    check(&admission, &earlier.version.definition)?;
    let next = NextVersion {
        definition: &earlier.version.definition,
        restored_from: Some(version),
        action: "agent.rolled_back",
    };
    let agent = next.add(&admission, tx, &caller, &origin, newest).await?;
    Ok(Json(agent.into()))
}
