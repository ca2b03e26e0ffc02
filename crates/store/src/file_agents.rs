//! The tables `file_agents` and `file_agent_versions`: agents of the operator's files.
//!
//! A load of the files is one commit of these operations, under [`SystemTx::lock_file_agents`].

use baton_protocol::{AgentDefinition, AgentId, TenantId};

use crate::agents::encode;
use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The advisory lock between loads of the files and agents that are made over the API: each sees the
/// names that the other has taken.
const LOCK: i64 = 0x6261_746f_6e61_6766;

/// An agent of the files as it was loaded last.
#[derive(Debug, Clone)]
pub struct FileAgentRecord {
    /// Its id.
    pub id: AgentId,
    /// The only tenant that has it; `None` if all have it.
    pub tenant: Option<TenantId>,
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: u32,
    /// The JSON text of that version.
    pub definition: String,
    /// Whether the last load found it no longer.
    pub removed: bool,
}

/// An agent of the files, and agents that tenants have made under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowedFileAgent {
    /// The agent of the files.
    pub file_agent: AgentId,
    /// The number of those tenants.
    pub tenants: u64,
    /// The first of them.
    pub tenant: TenantId,
    /// The tenant's own agent, which its requests get.
    pub agent: AgentId,
}

impl SystemTx<'_> {
    /// Makes other loads wait, and tenants that make agents, until the end of the commit.
    pub async fn lock_file_agents(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- file_agents.lock
            SELECT pg_advisory_xact_lock($1)
            ",
            LOCK,
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }

    /// Returns all agents of the files, also those that were removed.
    pub async fn file_agents(&self) -> Result<Vec<FileAgentRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- file_agents.list
            SELECT f.id, f.tenant_id, f.name, f.version, v.definition::text AS "definition!",
                   f.removed_at IS NOT NULL AS "removed!"
            FROM file_agents f
            JOIN file_agent_versions v ON v.agent_id = f.id AND v.version = f.version
            "#,
        )
        .fetch_all(self.pool)
        .await?;
        let records = rows.into_iter().map(|row| FileAgentRecord {
            id: AgentId::from_uuid(row.id),
            tenant: row.tenant_id.map(TenantId::from_uuid),
            name: row.name,
            version: columns::count(row.version),
            definition: row.definition,
            removed: row.removed,
        });
        Ok(records.collect())
    }

    /// Stores an agent of a tenant, or of all tenants, with its first version.
    pub async fn create_file_agent(
        &self,
        id: AgentId,
        tenant: Option<TenantId>,
        definition: &AgentDefinition,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- file_agents.create
            WITH agent AS (
                INSERT INTO file_agents (id, tenant_id, name, version)
                VALUES ($1, $2, $3, 1)
            )
            INSERT INTO file_agent_versions (agent_id, tenant_id, version, definition)
            VALUES ($1, $2, 1, $4::text::json)
            ",
            id.as_uuid(),
            tenant.map(|tenant| tenant.as_uuid()),
            definition.name,
            encode(definition)?,
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }

    /// Adds the version after `newest`, and ends the agent's removal. Returns whether `newest` was the
    /// newest.
    pub async fn change_file_agent(
        &self,
        id: AgentId,
        newest: u32,
        definition: &AgentDefinition,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "
            -- file_agents.change
            WITH agent AS (
                UPDATE file_agents SET version = version + 1, removed_at = NULL
                WHERE id = $1 AND version = $2
                RETURNING id, tenant_id, version
            )
            INSERT INTO file_agent_versions (agent_id, tenant_id, version, definition)
            SELECT id, tenant_id, version, $3::text::json FROM agent
            ",
            id.as_uuid(),
            columns::int4(newest),
            encode(definition)?,
        )
        .execute(self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes an agent, or ends its removal, and returns whether that is a change. Runs keep their copies.
    pub async fn remove_file_agent(&self, id: AgentId, removed: bool) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "
            -- file_agents.remove
            UPDATE file_agents SET removed_at = CASE WHEN $2 THEN clock_timestamp() END
            WHERE id = $1 AND (removed_at IS NOT NULL) <> $2
            ",
            id.as_uuid(),
            removed,
        )
        .execute(self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Returns the agents of the files that have a namesake which a tenant has made.
    pub async fn shadowed_file_agents(&self) -> Result<Vec<ShadowedFileAgent>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- file_agents.shadowed
            SELECT DISTINCT ON (f.id) f.id AS file_agent, a.tenant_id, a.id,
                   count(*) OVER (PARTITION BY f.id) AS "tenants!"
            FROM file_agents f
            JOIN agents a ON a.name = f.name AND (f.tenant_id IS NULL OR f.tenant_id = a.tenant_id)
            WHERE f.removed_at IS NULL
            ORDER BY f.id, a.id
            "#,
        )
        .fetch_all(self.pool)
        .await?;
        let shadowed = rows.into_iter().map(|row| ShadowedFileAgent {
            file_agent: AgentId::from_uuid(row.file_agent),
            tenant: TenantId::from_uuid(row.tenant_id),
            agent: AgentId::from_uuid(row.id),
            tenants: columns::number(row.tenants),
        });
        Ok(shadowed.collect())
    }
}

impl TenantTx {
    /// Makes loads of the files wait until the end of the transaction.
    pub(crate) async fn hold_file_agents(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- file_agents.hold
            SELECT pg_advisory_xact_lock_shared($1)
            ",
            LOCK,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
