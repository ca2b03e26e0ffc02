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
    source: SourceView,
    created_at: DateTime<Utc>,
    /// The time of this version.
    updated_at: DateTime<Utc>,
    #[serde(flatten)]
    definition: AgentDefinition,
}

/// The place where an agent is made and changed.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentSource)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SourceView {
    /// This API.
    Api,
    /// A file of the server, which only its operator changes.
    File,
}

impl From<AgentRecord> for AgentView {
    fn from(agent: AgentRecord) -> Self {
        Self {
            id: agent.id,
            object: "agent",
            version: agent.version.number,
            source: if agent.of_file {
                SourceView::File
            } else {
                SourceView::Api
            },
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
    /// The actor that created it; `file` if it was loaded from a file.
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
