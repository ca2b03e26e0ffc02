//! The tables `agents` and `agent_versions`. Reads also find the agents of the operator's files
//! (`file_agents`), unless the tenant has made an agent of the same name.

use baton_protocol::{AgentDefinition, AgentId};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// An agent in one of its versions.
#[derive(Debug, Clone)]
pub struct AgentRecord {
    /// Its id.
    pub id: AgentId,
    /// The time of its first version.
    pub created_at: DateTime<Utc>,
    /// The version.
    pub version: AgentVersion,
    /// Whether it comes from the operator's files, so that no request changes it.
    pub of_file: bool,
}

/// A version of an agent. It never changes.
#[derive(Debug, Clone)]
pub struct AgentVersion {
    /// Its number, dense from 1.
    pub number: u32,
    /// The whole definition.
    pub definition: AgentDefinition,
    /// The older version that it repeats, if a roll back made it.
    pub restored_from: Option<u32>,
    /// The actor that made it; `file` if it was loaded from a file.
    pub created_by: String,
    /// The time at which it was made.
    pub created_at: DateTime<Utc>,
}

/// An agent as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentKey {
    /// By its id.
    Id(AgentId),
    /// By its name.
    Name(String),
}

impl AgentKey {
    /// Reads an id or a name. They cannot be confused, because no name has the form of an id.
    pub fn parse(given: &str) -> Self {
        given
            .parse()
            .map_or_else(|_| Self::Name(given.to_owned()), Self::Id)
    }

    /// Returns the values of the two columns that identify the agent; one of them is NULL.
    fn columns(&self) -> (Option<Uuid>, Option<&str>) {
        match self {
            Self::Id(id) => (Some(id.as_uuid()), None),
            // No name holds a NUL, and PostgreSQL refuses one in a text.
            Self::Name(name) if name.contains('\0') => (None, None),
            Self::Name(name) => (None, Some(name)),
        }
    }
}

/// The outcome of [`TenantTx::create_agent`].
#[derive(Debug, Clone)]
pub enum AgentCreation {
    /// The agent is stored.
    Created(Box<AgentRecord>),
    /// The tenant has an agent of this name.
    NameTaken,
    /// The operator's files have an agent of this name for the tenant.
    NameInFile,
    /// The tenant has as many agents as it may.
    TooMany,
}

/// A page of the list of agents.
#[derive(Debug, Clone)]
pub struct AgentPage {
    /// The newest version of each agent, the newest agent first.
    pub data: Vec<AgentRecord>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<AgentId>,
}

/// A page of the list of an agent's versions.
#[derive(Debug, Clone)]
pub struct AgentVersionPage {
    /// The versions, the newest first.
    pub data: Vec<AgentVersion>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<u32>,
}

/// An agent's row with one of its versions.
struct Row {
    id: Uuid,
    agent_created_at: DateTime<Utc>,
    version: i32,
    definition: String,
    restored_from: Option<i32>,
    created_by: String,
    created_at: DateTime<Utc>,
    of_file: bool,
}

impl Row {
    fn read(self) -> Result<AgentRecord, StoreError> {
        Ok(AgentRecord {
            id: AgentId::from_uuid(self.id),
            created_at: self.agent_created_at,
            version: AgentVersion {
                number: columns::count(self.version),
                definition: serde_json::from_str(&self.definition).map_err(|error| {
                    StoreError::unreadable("agent_versions.definition", &error.to_string())
                })?,
                restored_from: self.restored_from.map(columns::count),
                created_by: self.created_by,
                created_at: self.created_at,
            },
            of_file: self.of_file,
        })
    }
}

/// Returns the JSON text of a definition.
pub(crate) fn encode(definition: &AgentDefinition) -> Result<String, StoreError> {
    serde_json::to_string(definition).map_err(StoreError::Encode)
}

/// Cuts the rows to the page and says whether more follow. The query asks for one row more than the
/// page holds.
fn page<T>(mut rows: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > asked_for;
    rows.truncate(asked_for);
    (rows, more)
}

impl TenantTx {
    /// Stores an agent with its first version, unless the tenant already has an agent of this name,
    /// also from a file, or has made `most` agents.
    pub async fn create_agent(
        &mut self,
        id: AgentId,
        definition: &AgentDefinition,
        by: &str,
        most: u32,
    ) -> Result<AgentCreation, StoreError> {
        let tenant = self.tenant;
        self.hold_file_agents().await?;
        let row = sqlx::query_as!(
            Row,
            r#"
            -- agents.create
            WITH agent AS (
                INSERT INTO agents (tenant_id, id, name, version)
                SELECT $1, $2, $3, 1
                WHERE (SELECT count(*) FROM agents WHERE tenant_id = $1) < $6
                  AND NOT EXISTS (
                      SELECT FROM file_agents f
                      WHERE (f.tenant_id = $1 OR f.tenant_id IS NULL) AND f.name = $3
                        AND f.removed_at IS NULL
                  )
                ON CONFLICT ON CONSTRAINT agents_name DO NOTHING
                RETURNING id, created_at
            )
            INSERT INTO agent_versions (tenant_id, agent_id, version, definition, created_by,
                                        created_at)
            SELECT $1, agent.id, 1, $4::text::json, $5, agent.created_at FROM agent
            RETURNING agent_id AS id, created_at AS agent_created_at, version,
                      definition::text AS "definition!", restored_from, created_by, created_at,
                      false AS "of_file!"
            "#,
            tenant.as_uuid(),
            id.as_uuid(),
            definition.name,
            encode(definition)?,
            &*columns::text(by),
            i64::from(most),
        )
        .fetch_optional(self.connection())
        .await?;
        if let Some(row) = row {
            return Ok(AgentCreation::Created(Box::new(row.read()?)));
        }
        let key = AgentKey::Name(definition.name.clone());
        Ok(match self.agent(&key).await? {
            Some(taken) if taken.of_file => AgentCreation::NameInFile,
            Some(_) => AgentCreation::NameTaken,
            None => AgentCreation::TooMany,
        })
    }

    /// Returns the agent in its newest version.
    pub async fn agent(&mut self, key: &AgentKey) -> Result<Option<AgentRecord>, StoreError> {
        self.find_agent(key, None).await
    }

    /// Returns the agent in this version.
    pub async fn agent_version(
        &mut self,
        key: &AgentKey,
        version: u32,
    ) -> Result<Option<AgentRecord>, StoreError> {
        self.find_agent(key, Some(version)).await
    }

    /// Finds the agent in `version`; without a version, in its newest.
    async fn find_agent(
        &mut self,
        key: &AgentKey,
        version: Option<u32>,
    ) -> Result<Option<AgentRecord>, StoreError> {
        let tenant = self.tenant;
        let (id, name) = key.columns();
        let row = sqlx::query_as!(
            Row,
            r#"
            -- agents.find
            SELECT a.id AS "id!", a.created_at AS "agent_created_at!", v.version AS "version!",
                   v.definition::text AS "definition!", v.restored_from AS "restored_from?",
                   v.created_by AS "created_by!", v.created_at AS "created_at!",
                   false AS "of_file!"
            FROM agents a
            JOIN agent_versions v
              ON v.tenant_id = a.tenant_id AND v.agent_id = a.id
             AND v.version = coalesce($4, a.version)
            WHERE a.tenant_id = $1 AND (a.id = $2 OR a.name = $3)
            UNION ALL
            SELECT f.id, f.created_at, v.version, v.definition::text, NULL, 'file', v.created_at,
                   true
            FROM file_agents f
            JOIN file_agent_versions v
              ON v.agent_id = f.id AND v.version = coalesce($4, f.version)
            WHERE (f.tenant_id = $1 OR f.tenant_id IS NULL) AND (f.id = $2 OR f.name = $3)
              AND f.removed_at IS NULL
              AND NOT EXISTS (SELECT FROM agents a WHERE a.tenant_id = $1 AND a.name = f.name)
            "#,
            tenant.as_uuid(),
            id,
            name,
            version.map(columns::int4),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Returns the agent in its newest version and locks it: no version is added before the end of
    /// the transaction. An agent of a file is not found.
    pub async fn lock_agent(&mut self, key: &AgentKey) -> Result<Option<AgentRecord>, StoreError> {
        let tenant = self.tenant;
        let (id, name) = key.columns();
        let locked = sqlx::query_scalar!(
            "
            -- agents.lock
            SELECT id FROM agents
            WHERE tenant_id = $1 AND (id = $2 OR name = $3)
            FOR UPDATE
            ",
            tenant.as_uuid(),
            id,
            name,
        )
        .fetch_optional(self.connection())
        .await?;
        match locked {
            // This is a separate statement, because only a new snapshot shows a version that was
            // committed while the lock was waited for.
            Some(id) => self.agent(&AgentKey::Id(AgentId::from_uuid(id))).await,
            None => Ok(None),
        }
    }

    /// Returns the tenant's agents and those of files, the newest first: at most `limit` of those before
    /// `cursor`.
    pub async fn list_agents(
        &mut self,
        cursor: Option<AgentId>,
        limit: u32,
    ) -> Result<AgentPage, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- agents.list
            SELECT a.id AS "id!", a.created_at AS "agent_created_at!", v.version AS "version!",
                   v.definition::text AS "definition!", v.restored_from AS "restored_from?",
                   v.created_by AS "created_by!", v.created_at AS "created_at!",
                   false AS "of_file!"
            FROM agents a
            JOIN agent_versions v
              ON v.tenant_id = a.tenant_id AND v.agent_id = a.id AND v.version = a.version
            WHERE a.tenant_id = $1 AND a.id < $2
            UNION ALL
            SELECT f.id, f.created_at, v.version, v.definition::text, NULL, 'file', v.created_at,
                   true
            FROM file_agents f
            JOIN file_agent_versions v ON v.agent_id = f.id AND v.version = f.version
            WHERE (f.tenant_id = $1 OR f.tenant_id IS NULL) AND f.id < $2
              AND f.removed_at IS NULL
              AND NOT EXISTS (SELECT FROM agents a WHERE a.tenant_id = $1 AND a.name = f.name)
            ORDER BY 1 DESC
            LIMIT $3
            "#,
            tenant.as_uuid(),
            cursor.map_or(Uuid::max(), |cursor| cursor.as_uuid()),
            i64::from(limit) + 1,
        )
        .fetch_all(self.connection())
        .await?;
        let (rows, more) = page(rows, limit);
        let data = rows
            .into_iter()
            .map(Row::read)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(AgentPage {
            next_cursor: data.last().filter(|_| more).map(|agent| agent.id),
            data,
        })
    }

    /// Adds the next version to an agent. The caller must hold [`TenantTx::lock_agent`]. Returns
    /// `None` if the agent has been deleted.
    pub async fn add_agent_version(
        &mut self,
        id: AgentId,
        definition: &AgentDefinition,
        restored_from: Option<u32>,
        by: &str,
    ) -> Result<Option<AgentRecord>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            r#"
            -- agents.add_version
            WITH agent AS (
                UPDATE agents SET version = version + 1
                WHERE tenant_id = $1 AND id = $2
                RETURNING id, version, created_at
            ), added AS (
                INSERT INTO agent_versions (tenant_id, agent_id, version, definition,
                                            restored_from, created_by)
                SELECT $1, agent.id, agent.version, $3::text::json, $4, $5 FROM agent
                RETURNING version, definition, restored_from, created_by, created_at
            )
            SELECT agent.id, agent.created_at AS agent_created_at, added.version,
                   added.definition::text AS "definition!", added.restored_from,
                   added.created_by, added.created_at, false AS "of_file!"
            FROM agent, added
            "#,
            tenant.as_uuid(),
            id.as_uuid(),
            encode(definition)?,
            restored_from.map(columns::int4),
            &*columns::text(by),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Removes an agent with all its versions and returns whether it existed. Its runs keep their
    /// copies of the definition.
    pub async fn delete_agent(&mut self, id: AgentId) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- agents.delete
            DELETE FROM agents WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Returns an agent's versions, the newest first: at most `limit` of those before `cursor`.
    pub async fn agent_versions(
        &mut self,
        id: AgentId,
        cursor: Option<u32>,
        limit: u32,
    ) -> Result<AgentVersionPage, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- agents.list_versions
            SELECT agent_id AS "id!", created_at AS "agent_created_at!", version AS "version!",
                   definition::text AS "definition!", restored_from AS "restored_from?",
                   created_by AS "created_by!", created_at AS "created_at!", false AS "of_file!"
            FROM agent_versions
            WHERE tenant_id = $1 AND agent_id = $2 AND version < $3
            UNION ALL
            SELECT agent_id, created_at, version, definition::text, NULL, 'file', created_at, true
            FROM file_agent_versions
            WHERE (tenant_id = $1 OR tenant_id IS NULL) AND agent_id = $2 AND version < $3
            ORDER BY 3 DESC
            LIMIT $4
            "#,
            tenant.as_uuid(),
            id.as_uuid(),
            cursor.map_or(i32::MAX, columns::int4),
            i64::from(limit) + 1,
        )
        .fetch_all(self.connection())
        .await?;
        let (rows, more) = page(rows, limit);
        let data = rows
            .into_iter()
            .map(|row| row.read().map(|record| record.version))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(AgentVersionPage {
            next_cursor: data.last().filter(|_| more).map(|version| version.number),
            data,
        })
    }
}
