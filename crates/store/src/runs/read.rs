//! Reads runs on behalf of their tenant.

use std::time::Duration;

use baton_protocol::{
    AgentRef, ApiKeyId, EventId, Lane, Outcome, RunId, RunStatus, ThreadId, Usage,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::columns::{self, OutcomeColumns};
use crate::errors::StoreError;
use crate::runs::EndedRun;
use crate::tenant_tx::TenantTx;

/// A run as stored.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// Its state.
    pub status: RunStatus,
    /// Its outcome; `None` while it has not ended.
    pub outcome: Option<Outcome>,
    /// Its lane.
    pub lane: Lane,
    /// The agent, with the version of its configuration.
    pub agent: AgentRef,
    /// The upstream's name of the model.
    pub model: String,
    /// The thread it continues.
    pub thread_id: Option<ThreadId>,
    /// The number of messages of that thread that are part of its input; 0 before its first claim.
    pub thread_messages: u32,
    /// The key it was submitted with.
    pub api_key_id: Option<ApiKeyId>,
    /// The actor that submitted it, as the audit log names actors.
    pub created_by: Option<String>,
    /// The JSON text of its `RunSpec`; the input is part of it.
    pub spec_json: String,
    /// The client's metadata, a JSON object.
    pub metadata: Option<Box<RawValue>>,
    /// The newest attempt; 0 before the first.
    pub attempt: u32,
    /// The last event covered by a commit; the terminal event once the run has ended.
    pub last_event_id: EventId,
    /// The tokens of all recorded turns.
    pub usage: Usage,
    /// The time from the cancel request to the end; `None` unless cancelled.
    pub cancel_latency: Option<Duration>,
    /// Whether its holder has been asked to stop.
    pub cancel_requested: bool,
    /// Whether the run is cancelled if the client disconnects.
    pub cancel_on_disconnect: bool,
    /// The time at which it was accepted.
    pub created_at: DateTime<Utc>,
    /// The time of its first claim.
    pub started_at: Option<DateTime<Utc>>,
    /// The time at which it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The time from which on it is not found, if it has ended by then.
    pub expires_at: Option<DateTime<Utc>>,
}

impl RunRecord {
    /// Returns the ending of a run that has ended.
    pub fn ended(&self) -> Option<EndedRun> {
        Some(EndedRun {
            attempt: self.attempt,
            outcome: self.outcome.clone()?,
            last_event_id: self.last_event_id,
            usage: self.usage,
            cancel_latency: self.cancel_latency,
            newly: false,
        })
    }
}

/// A filter of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only runs in this state.
    pub status: Option<RunStatus>,
    /// Only runs of this thread.
    pub thread_id: Option<ThreadId>,
}

/// A page of a list of runs.
#[derive(Debug, Clone)]
pub struct Page {
    /// The runs, the newest first.
    pub data: Vec<RunRecord>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<RunId>,
}

/// A row of the table.
struct Row {
    id: Uuid,
    status: String,
    lane: String,
    finish_reason: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    error_upstream: Option<String>,
    cancel_reason: Option<String>,
    agent_name: String,
    agent_version: i32,
    model: String,
    thread_id: Option<Uuid>,
    thread_messages: Option<i32>,
    api_key_id: Option<Uuid>,
    created_by: Option<String>,
    spec: String,
    metadata: Option<String>,
    attempt: i32,
    last_event_id: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    usage_estimated: bool,
    cancel_requested: bool,
    cancel_seconds: Option<f64>,
    cancel_on_disconnect: bool,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<RunRecord, StoreError> {
        let status = columns::status(&self.status)?;
        let outcome = OutcomeColumns {
            finish_reason: self.finish_reason,
            error_code: self.error_code,
            error_message: self.error_message,
            error_upstream: self.error_upstream,
            cancel_reason: self.cancel_reason,
        };
        Ok(RunRecord {
            id: RunId::from_uuid(self.id),
            status,
            outcome: outcome.read(status)?,
            lane: columns::lane(&self.lane)?,
            agent: AgentRef {
                name: self.agent_name,
                version: columns::count(self.agent_version),
            },
            model: self.model,
            thread_id: self.thread_id.map(ThreadId::from_uuid),
            thread_messages: columns::count(self.thread_messages.unwrap_or(0)),
            api_key_id: self.api_key_id.map(ApiKeyId::from_uuid),
            created_by: self.created_by,
            spec_json: self.spec,
            metadata: self
                .metadata
                .map(|metadata| columns::json("runs.metadata", metadata))
                .transpose()?,
            attempt: columns::count(self.attempt),
            last_event_id: columns::event_id(self.last_event_id),
            usage: columns::usage_or_guess(
                self.prompt_tokens,
                self.completion_tokens,
                self.total_tokens,
                self.usage_estimated,
            ),
            cancel_latency: columns::latency(self.cancel_seconds)
                .filter(|_| status == RunStatus::Cancelled),
            cancel_requested: self.cancel_requested,
            cancel_on_disconnect: self.cancel_on_disconnect,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            expires_at: self.expires_at,
        })
    }
}

impl TenantTx {
    /// Returns the run with this id; `None` also if it has expired.
    pub async fn run(&mut self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            r#"
            -- runs.by_id
            SELECT id, status AS "status!", lane AS "lane!", finish_reason, error_code,
                   error_message, error_upstream::text AS error_upstream, cancel_reason,
                   agent_name, agent_version, model, thread_id, thread_messages, api_key_id,
                   created_by,
                   spec::text AS "spec!", metadata::text AS metadata, attempt, last_event_id,
                   prompt_tokens, completion_tokens, total_tokens, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds,
                   cancel_requested_at IS NOT NULL AS "cancel_requested!", cancel_on_disconnect,
                   created_at, started_at, finished_at, expires_at
            FROM runs
            WHERE tenant_id = $1 AND id = $2
              -- One that works is found until it ends.
              AND (expires_at IS NULL OR finished_at IS NULL OR expires_at > clock_timestamp())
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Returns the runs of this tenant, the newest first: at most `limit` of those before `cursor`.
    pub async fn list_runs(
        &mut self,
        filter: &RunFilter,
        cursor: Option<RunId>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- runs.list
            SELECT id, status AS "status!", lane AS "lane!", finish_reason, error_code,
                   error_message, error_upstream::text AS error_upstream, cancel_reason,
                   agent_name, agent_version, model, thread_id, thread_messages, api_key_id,
                   created_by,
                   spec::text AS "spec!", metadata::text AS metadata, attempt, last_event_id,
                   prompt_tokens, completion_tokens, total_tokens, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds,
                   cancel_requested_at IS NOT NULL AS "cancel_requested!", cancel_on_disconnect,
                   created_at, started_at, finished_at, expires_at
            FROM runs
            WHERE tenant_id = $1
              AND id < $2
              AND ($3::text IS NULL OR status = $3)
              AND ($4::uuid IS NULL OR thread_id = $4)
              AND (expires_at IS NULL OR finished_at IS NULL OR expires_at > clock_timestamp())
            ORDER BY id DESC
            LIMIT $5
            "#,
            tenant.as_uuid(),
            cursor.map_or(Uuid::max(), |cursor| cursor.as_uuid()),
            filter.status.map(RunStatus::as_str),
            filter.thread_id.map(|thread| thread.as_uuid()),
            // One row more than the page holds, which shows whether there is a next page.
            columns::int8(u64::from(limit) + 1),
        )
        .fetch_all(self.connection())
        .await?;
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked_for;
        let data = rows
            .into_iter()
            .take(asked_for)
            .map(Row::read)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page {
            next_cursor: more.then(|| data.last().map(|run| run.id)).flatten(),
            data,
        })
    }
}
