//! `POST /v1/agents`.

use axum::Json;
use axum::extract::State;
use baton_admission::Admission;
use baton_protocol::{AgentDefinition, AgentId};
use baton_service::SharedClock;
use baton_store::{AgentCreation, AuditEntry, Store};
use http::StatusCode;

use super::view::AgentView;
use super::{MOST_AGENTS, check, detail, in_file, target};
use crate::access::body::JsonBody;
use crate::access::{AgentsWrite, Authorized, Origin};
use crate::error::{ApiError, Problem};

/// Creates an agent. Requests select it by its name, in `agent` or in `model`. Requests that name
/// only a model use the agent `default`.
#[utoipa::path(
    post,
    path = "/v1/agents",
    tag = "Agents",
    request_body = AgentDefinition,
    responses(
        (status = 201, description = "The agent", body = AgentView),
        (status = 409, description = "There is an agent of this name, here or in a file of the server, or there are too many", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_agent(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(admission): State<Admission>,
    authorized: Authorized<AgentsWrite>,
    origin: Origin,
    JsonBody(definition): JsonBody<AgentDefinition>,
) -> Result<(StatusCode, Json<AgentView>), ApiError> {
    let caller = authorized.caller;
    check(&admission, &definition)?;
    let by = caller.actor().to_string();
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    let id = AgentId::new(clock.now());
    let agent = match tx.create_agent(id, &definition, &by, MOST_AGENTS).await? {
        AgentCreation::Created(agent) => *agent,
        AgentCreation::NameTaken => {
            let message = format!("there is an agent `{}` already", definition.name);
            let error = ApiError::new(StatusCode::CONFLICT, "agent_exists", message);
            return Err(error.param("name"));
        }
        AgentCreation::NameInFile => return Err(in_file(&definition.name).param("name")),
        AgentCreation::TooMany => {
            let message = format!("the tenant has {MOST_AGENTS} agents, as many as it may");
            let error = ApiError::new(StatusCode::CONFLICT, "too_many_agents", message);
            return Err(error);
        }
    };
    let entry = AuditEntry {
        target: Some(target(&agent)),
        detail: Some(detail(&agent)),
        ..origin.entry(caller.actor(), Some(caller.tenant), "agent.created")
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    admission
        .forget_agent(caller.tenant, &definition.name)
        .await;
    Ok((StatusCode::CREATED, Json(agent.into())))
}
