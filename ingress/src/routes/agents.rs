//! `/v1/agents`: named configurations that runs are made from, and their versions.

mod create;
mod read;
mod replace;
mod versions;
mod view;

use axum::extract::{FromRequestParts, Path};
use baton_admission::{Admission, check_definition};
use baton_protocol::AgentDefinition;
use baton_protocol::agent::InvalidDefinition;
use baton_store::{AgentKey, AgentRecord, TenantTx};
use http::StatusCode;
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::routes::AppState;

/// The most agents that a tenant makes.
pub(crate) const MOST_AGENTS: u32 = 1_000;
/// The most agents of the server's files.
pub(crate) const MOST_FILE_AGENTS: u32 = 1_000;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_agent, read::list_agents))
        .routes(routes!(
            read::read_agent,
            replace::replace_agent,
            replace::delete_agent
        ))
        .routes(routes!(versions::list_agent_versions))
        .routes(routes!(versions::compare_agent_versions))
        .routes(routes!(versions::roll_back_agent))
}

/// The agent that a path names by id or by name.
struct AgentPath(AgentKey);

impl<S: Send + Sync> FromRequestParts<S> for AgentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(given) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_agent())?;
        Ok(Self(AgentKey::parse(&given)))
    }
}

fn no_such_agent() -> ApiError {
    let message = "there is no agent with this id or name";
    ApiError::new(StatusCode::NOT_FOUND, "agent_not_found", message)
}

fn no_such_version(version: u32) -> ApiError {
    let message = format!("the agent has no version {version}");
    ApiError::new(StatusCode::NOT_FOUND, "agent_version_not_found", message)
}

fn check(admission: &Admission, definition: &AgentDefinition) -> Result<(), ApiError> {
    let invalid = |InvalidDefinition { param, message }| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_agent", message).param(param)
    };
    check_definition(definition, &admission.tool_names()).map_err(invalid)
}

/// Locks the agent that a request changes. One of the operator's files is refused.
async fn lock(tx: &mut TenantTx, key: &AgentKey) -> Result<AgentRecord, ApiError> {
    if let Some(agent) = tx.lock_agent(key).await? {
        return Ok(agent);
    }
    match tx.agent(key).await? {
        Some(agent) if agent.of_file => Err(in_file(&agent.version.definition.name)),
        _ => Err(no_such_agent()),
    }
}

fn in_file(name: &str) -> ApiError {
    let message = format!(
        "the agent `{name}` comes from a file of this server: have its operator change it there, or make an \
         agent of another name"
    );
    ApiError::new(StatusCode::CONFLICT, "agent_in_file", message)
}

/// Returns the agent as the target of an audit entry.
fn target(agent: &AgentRecord) -> String {
    format!("agent:{}", agent.id)
}

/// Returns the agent's name and version for an audit entry.
fn detail(agent: &AgentRecord) -> String {
    let version = &agent.version;
    format!("{}@{}", version.definition.name, version.number)
}
