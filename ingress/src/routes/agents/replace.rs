//! `PUT` and `DELETE /v1/agents/{id}`.

use axum::Json;
use axum::extract::State;
use baton_admission::Admission;
use baton_protocol::AgentDefinition;
use baton_store::{AgentRecord, AuditEntry, Store, TenantTx};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::AgentView;
use super::{AgentPath, check, detail, lock, no_such_agent, target};
use crate::access::body::JsonBody;
use crate::access::{AgentsWrite, Authorized, Caller, Origin};
use crate::error::{ApiError, Problem};
use crate::routes::query::QueryParams;

/// The condition of a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReplaceParams {
    /// Change the agent only if this is its newest version.
    #[param(minimum = 1)]
    if_version: Option<u32>,
}

/// Replaces an agent's definition by the given one, as a new version. Accepted runs keep the
/// version that they began with. A definition equal to the newest version creates no new one.
#[utoipa::path(
    put,
    path = "/v1/agents/{id}",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$"), ReplaceParams),
    request_body = AgentDefinition,
    responses(
        (status = 200, description = "The agent in its newest version", body = AgentView),
        (status = 404, description = "No such agent", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another version is the newest, or the agent comes from a file", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn replace_agent(
    State(store): State<Store>,
    State(admission): State<Admission>,
    authorized: Authorized<AgentsWrite>,
    origin: Origin,
    AgentPath(key): AgentPath,
    QueryParams(params): QueryParams<ReplaceParams>,
    JsonBody(definition): JsonBody<AgentDefinition>,
) -> Result<Json<AgentView>, ApiError> {
    let caller = authorized.caller;
    check(&admission, &definition)?;
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let newest = lock(&mut tx, &key).await?;
    if definition.name != newest.version.definition.name {
        let message = format!(
            "`name` cannot change: it is `{}`; make another agent",
            newest.version.definition.name
        );
        let error = ApiError::new(StatusCode::BAD_REQUEST, "agent_name_fixed", message);
        return Err(error.param("name"));
    }
    let number = newest.version.number;
    if params.if_version.is_some_and(|version| version != number) {
        let message = format!("the newest version is {number}: read it and change that");
        let error = ApiError::new(StatusCode::CONFLICT, "agent_changed", message);
        return Err(error.param("if_version"));
    }
    let next = NextVersion {
        definition: &definition,
        restored_from: None,
        action: "agent.changed",
    };
    let agent = next.add(&admission, tx, &caller, &origin, newest).await?;
    Ok(Json(agent.into()))
}

/// A new version of an agent.
pub(super) struct NextVersion<'a> {
    pub(super) definition: &'a AgentDefinition,
    pub(super) restored_from: Option<u32>,
    /// The action in the audit log.
    pub(super) action: &'static str,
}

impl NextVersion<'_> {
    /// Adds the version after `newest`, which `tx` has locked, unless the definition is the same.
    pub(super) async fn add(
        &self,
        admission: &Admission,
        mut tx: TenantTx,
        caller: &Caller,
        origin: &Origin,
        newest: AgentRecord,
    ) -> Result<AgentRecord, ApiError> {
        if text(self.definition) == text(&newest.version.definition) {
            return Ok(newest);
        }
        let by = caller.actor().to_string();
        let agent = tx
            .add_agent_version(newest.id, self.definition, self.restored_from, &by)
            .await?
            .ok_or_else(no_such_agent)?;
        let entry = AuditEntry {
            target: Some(target(&agent)),
            detail: Some(detail(&agent)),
            ..origin.entry(caller.actor(), Some(caller.tenant), self.action)
        };
        tx.record_audit(&entry).await?;
        tx.commit().await?;
        let name = &agent.version.definition.name;
        admission.forget_agent(caller.tenant, name).await;
        Ok(agent)
    }
}

/// Returns the definition as it is stored.
fn text(definition: &AgentDefinition) -> Option<String> {
    serde_json::to_string(definition).ok()
}

/// Deletes an agent with all its versions. Accepted runs keep their copies.
#[utoipa::path(
    delete,
    path = "/v1/agents/{id}",
    tag = "Agents",
    params(("id" = String, Path, description = "The agent's id or name", pattern = "^([a-z][a-z0-9-]{0,62}|[0-9a-fA-F-]{32,36})$")),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 404, description = "No such agent", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The agent comes from a file", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn delete_agent(
    State(store): State<Store>,
    State(admission): State<Admission>,
    authorized: Authorized<AgentsWrite>,
    origin: Origin,
    AgentPath(key): AgentPath,
) -> Result<StatusCode, ApiError> {
    let caller = authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let agent = lock(&mut tx, &key).await?;
    if !tx.delete_agent(agent.id).await? {
        return Err(no_such_agent());
    }
    let entry = AuditEntry {
        target: Some(target(&agent)),
        detail: Some(detail(&agent)),
        ..origin.entry(caller.actor(), Some(caller.tenant), "agent.deleted")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    let name = &agent.version.definition.name;
    admission.forget_agent(caller.tenant, name).await;
    Ok(StatusCode::NO_CONTENT)
}
