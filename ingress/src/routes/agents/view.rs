//! An agent as clients see it.

use baton_protocol::{AgentDefinition, AgentId};
use baton_store::{AgentRecord, AgentVersion};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// An agent in one of its versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentView {
    id: AgentId,
    object: &'static str,
    version: u32,
    created_at: DateTime<Utc>,
    /// The time of this version.
    updated_at: DateTime<Utc>,
    #[serde(flatten)]
    definition: AgentDefinition,
}

impl From<AgentRecord> for AgentView {
    fn from(agent: AgentRecord) -> Self {
        Self {
            id: agent.id,
            object: "agent",
            version: agent.version.number,
            created_at: agent.created_at,
            updated_at: agent.version.created_at,
            definition: agent.version.definition,
        }
    }
}

/// Agents in their newest versions, the newest agent first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentList {
    pub(super) data: Vec<AgentView>,
    pub(super) next_cursor: Option<String>,
}

/// A version of an agent.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentVersionView {
    version: u32,
    created_at: DateTime<Utc>,
    /// The actor that created it.
    created_by: String,
    /// The older version that it repeats, if a rollback created it.
    restored_from: Option<u32>,
    definition: AgentDefinition,
}

impl From<AgentVersion> for AgentVersionView {
    fn from(version: AgentVersion) -> Self {
        Self {
            version: version.number,
            created_at: version.created_at,
            created_by: version.created_by,
            restored_from: version.restored_from,
            definition: version.definition,
        }
    }
}

/// Versions of an agent, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentVersionList {
    pub(super) data: Vec<AgentVersionView>,
    pub(super) next_cursor: Option<String>,
}
