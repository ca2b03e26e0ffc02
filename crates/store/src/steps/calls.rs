//! Records the beginning and the result of a tool call.

mod alone;
mod group;
mod row;

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{CallFailure, CallPause, EventId, Fence, RunId, TenantId};

pub(crate) use self::group::commit_call_group;
pub(crate) use self::row::CallCommitRow;
use crate::columns::{self, int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::steps::StepRecord;
use crate::system::SystemTx;

/// The result of a call.
#[derive(Debug, Clone)]
pub struct CallCommit<'a> {
    /// The call's place in the transcript.
    pub step: u32,
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The reason why it has no result, unless a person decided that.
    pub failure: Option<CallFailure>,
    /// The JSON text of the tool's message to the model.
    pub message: &'a str,
    /// Its duration in milliseconds.
    pub duration_ms: u64,
    /// The last event that the stream has confirmed; the call's own finished-event follows.
    pub last_event_id: EventId,
    /// The event that showed the call's beginning.
    pub started_event_id: EventId,
    /// The step from which on the commit records the messages that wait for the run; `None` while
    /// other calls of the turn have no result.
    pub inputs_step: Option<u32>,
}

/// The state in which a call's server has left the call without a result.
#[derive(Debug, Clone)]
pub struct PauseCommit<'a> {
    /// The call's place in the transcript.
    pub step: u32,
    /// The state.
    pub pause: &'a CallPause,
    /// The last event that the stream has confirmed.
    pub last_event_id: EventId,
    /// The event that showed the call's beginning.
    pub started_event_id: EventId,
}

/// A task of a server, of a run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTask {
    /// The call's place in the transcript.
    pub step: u32,
    /// The name of the tool.
    pub name: String,
    /// The server's name for the task.
    pub id: String,
}

impl SystemTx<'_> {
    /// Returns the tasks of an ended run that its servers may still work on.
    pub async fn open_tasks(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Vec<OpenTask>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- steps.open_tasks
            SELECT s.step, s.name AS "name!", s.paused::text AS "paused!"
            FROM steps AS s
            JOIN runs AS r ON r.tenant_id = s.tenant_id AND r.id = s.run_id
                              AND r.finished_at IS NOT NULL
            WHERE s.tenant_id = $1 AND s.run_id = $2 AND s.poll_at IS NOT NULL
              AND s.paused IS NOT NULL AND s.name IS NOT NULL
            ORDER BY s.step
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            let pause: CallPause = serde_json::from_str(&row.paused)
                .map_err(|error| StoreError::unreadable("steps.paused", &error.to_string()))?;
            tasks.extend(pause.task().map(|task| OpenTask {
                step: columns::count(row.step),
                name: row.name,
                id: task.id.clone(),
            }));
        }
        Ok(tasks)
    }

    /// Records that the task of an ended run is cancelled at its server.
    pub async fn close_task(
        &self,
        tenant: TenantId,
        run: RunId,
        step: u32,
    ) -> Result<(), StoreError> {
        // A run that was removed since is not there, so the number of rows does not matter.
        sqlx::query!(
            "
            -- steps.close_task
            UPDATE steps SET poll_at = NULL, paused = NULL
            WHERE tenant_id = $1 AND run_id = $2 AND step = $3
            ",
            tenant.as_uuid(),
            run.as_uuid(),
            int4(step),
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }

    /// Records that a call's server has left the call: it has no unknown outcome, and goes on from this state in
    /// any attempt. Repeated after its answer was lost, it changes nothing.
    pub async fn pause_call(
        &self,
        fence: &Fence,
        paused: &PauseCommit<'_>,
    ) -> Result<(), FenceError> {
        let task = paused.pause.task();
        let poll_after = task.map(|task| Duration::from_millis(task.poll_ms));
        let pause = serde_json::to_string(paused.pause)
            .map_err(|error| StoreError::unreadable("steps.paused", &error.to_string()))?;
        sqlx::query!(
            r#"
            -- steps.pause_call
            WITH held AS (
                UPDATE runs SET failures = 0, last_event_id = greatest(last_event_id, $5)
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING 1
            )
            UPDATE steps SET
                -- Earlier decisions about the call are used up.
                state = 'pending', attempt = $3, started_event_id = $7, paused = $8::text::json,
                poll_at = clock_timestamp() + $9::interval * (1 + random() * 0.1)
            FROM held
            WHERE tenant_id = $1 AND run_id = $2 AND step = $6 AND kind = 'call'
              AND state IN ('pending', 'started')
            RETURNING true AS "paused!"
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(paused.last_event_id.as_u64()),
            int4(paused.step),
            int8(paused.started_event_id.as_u64()),
            pause,
            poll_after as _,
        )
        .fetch_optional(self.pool)
        .await?
        .map(|_| ())
        .ok_or(FenceError::Lost)
    }

    /// Records that a call begins, of a tool that must not be called twice. The tool may be called
    /// only after this has returned. This locks the run's row, so that an attempt which takes over
    /// either sees the record or prevents it.
    pub async fn start_call(&self, fence: &Fence, step: u32) -> Result<(), FenceError> {
        sqlx::query!(
            r#"
            -- steps.start_call
            WITH held AS (
                SELECT FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                FOR NO KEY UPDATE
            )
            UPDATE steps SET
                state = 'started', attempt = $3,
                started_at = coalesce(started_at, clock_timestamp())
            FROM held
            WHERE tenant_id = $1 AND run_id = $2 AND step = $5 AND kind = 'call'
              AND state IN ('pending', 'started')
            RETURNING true AS "started!"
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(step),
        )
        .fetch_optional(self.pool)
        .await?
        .map(|_| ())
        .ok_or(FenceError::Lost)
    }

    /// Records a call's result and its message in one commit; this is progress of the run. Repeated
    /// after its answer was lost, it changes nothing. Returns the messages that it took.
    pub async fn commit_call(
        &self,
        fence: &Fence,
        call: &CallCommit<'_>,
    ) -> Result<Vec<StepRecord>, FenceError> {
        let row = Arc::new(CallCommitRow::new(fence, call));
        let grouped = match self.groups {
            Some(groups) => groups.commit_call(&row).await,
            None => None,
        };
        let took = match grouped {
            Some(answer) => answer?,
            None => self.commit_call_alone(&row).await?,
        };
        match call.inputs_step {
            Some(step) if took => Ok(self.taken_inputs(fence.tenant, fence.run, step).await?),
            _ => Ok(Vec::new()),
        }
    }
}
