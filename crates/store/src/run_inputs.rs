//! The table `run_inputs`: messages that clients send to a run while it works.
//!
//! A message is accepted under the lock of the run's row, which counts the waiting ones. A commit of
//! the holder takes them: see `steps/turns.rs` and `steps/calls.rs`. The end of a run that may go on
//! fails while one waits. So a message is applied once, or its run ends for another reason and the
//! message is handed back.

use baton_protocol::{EventId, Fence, MessageId, RunId, WorkerId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::columns::{self, int4, int8};
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The most messages that wait for one run.
pub const MOST_WAITING_INPUTS: u32 = 10;

/// A message that a client sent to a run.
#[derive(Debug, Clone)]
pub struct RunInput {
    /// Its id.
    pub id: MessageId,
    /// Its place among the messages sent to the run, rising from 1.
    pub position: u32,
    /// Its state.
    pub state: InputState,
    /// The message, an OpenAI chat message.
    pub message: Box<RawValue>,
    /// The time at which it was accepted.
    pub created_at: DateTime<Utc>,
}

/// The state of a message that a client sent to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputState {
    /// It waits for the next commit of the run.
    Waiting,
    /// It is part of the run's transcript, as this step; 0 if it joined the input of a run that had
    /// not begun.
    Applied(u32),
    /// The run has ended without it.
    Returned,
}

/// A message that waits for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct WaitingInput {
    /// Its id.
    pub id: MessageId,
    /// Its place among the messages sent to the run.
    pub position: u32,
    /// The event that shows its acceptance, perhaps a withdrawn one.
    pub accepted_event_id: Option<EventId>,
}

/// A message to be sent to a run.
#[derive(Debug, Clone, Copy)]
pub struct NewInput<'a> {
    /// Its id, which makes sending it repeatable.
    pub id: MessageId,
    /// The message, an OpenAI chat message.
    pub message: &'a RawValue,
    /// The actor that sends it, as the audit log names actors.
    pub created_by: &'a str,
}

/// The outcome of [`TenantTx::send_input`].
#[derive(Debug, Clone)]
pub enum SendInput {
    /// It waits, once the transaction is committed. The worker holds the run, if one does.
    Accepted(RunInput, Option<WorkerId>),
    /// A message with this id was sent to the run before.
    Known(RunInput),
    /// As many messages as may wait do. Nothing was written.
    Full,
    /// The run has ended, or is to be cancelled. Nothing was written.
    Ended,
    /// The run asks no model. Nothing was written.
    NoModel,
    /// The id belongs to a message of another run. Nothing was written.
    IdTaken,
    /// The tenant has no such run.
    NotFound,
}

/// The outcome of [`TenantTx::withdraw_input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithdrawInput {
    /// It is withdrawn, once the transaction is committed.
    Withdrawn,
    /// It no longer waits.
    NotWaiting(InputState),
    /// The run has no such message.
    NotFound,
}

/// A page of the messages that were sent to a run.
#[derive(Debug, Clone)]
pub struct RunInputPage {
    /// The messages, the first one first.
    pub data: Vec<RunInput>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<u32>,
}

/// The locked row of a run.
struct Held {
    /// Whether it has ended, or is to be cancelled.
    ended: bool,
    /// Whether it asks a model.
    asks_model: bool,
    worker_id: Option<Uuid>,
    waiting_inputs: i32,
    inputs: i32,
}

struct Row {
    id: Uuid,
    position: i32,
    step: Option<i32>,
    ended: bool,
    message: String,
    created_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<RunInput, StoreError> {
        Ok(RunInput {
            id: MessageId::from_uuid(self.id),
            position: columns::count(self.position),
            state: match self.step {
                Some(step) => InputState::Applied(columns::count(step)),
                None if self.ended => InputState::Returned,
                None => InputState::Waiting,
            },
            message: columns::json("run_inputs.message", self.message)?,
            created_at: self.created_at,
        })
    }
}

impl TenantTx {
    /// Sends a message to a run that has not ended. Repeated with the same id it returns the message
    /// as it is by now.
    pub async fn send_input(
        &mut self,
        run: RunId,
        input: NewInput<'_>,
    ) -> Result<SendInput, StoreError> {
        let tenant = self.tenant;
        let held = self.lock_inputs(run).await?;
        let Some(held) = held else {
            return Ok(SendInput::NotFound);
        };
        // Under the lock, so that of two requests with one id the second sees the first.
        if let Some(known) = self.run_input(run, input.id).await? {
            return Ok(SendInput::Known(known));
        }
        if !held.asks_model {
            return Ok(SendInput::NoModel);
        }
        if held.ended {
            return Ok(SendInput::Ended);
        }
        if columns::count(held.waiting_inputs) >= MOST_WAITING_INPUTS {
            return Ok(SendInput::Full);
        }
        let position = held.inputs + 1;
        let inserted = sqlx::query_scalar!(
            r#"
            -- run_inputs.insert
            INSERT INTO run_inputs (tenant_id, run_id, id, position, created_by, message)
            VALUES ($1, $2, $3, $4, $5, $6::text::json)
            ON CONFLICT (tenant_id, id) DO NOTHING
            RETURNING created_at
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            input.id.as_uuid(),
            position,
            input.created_by,
            input.message.get(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(created_at) = inserted else {
            return Ok(SendInput::IdTaken);
        };
        sqlx::query!(
            r#"
            -- run_inputs.count
            UPDATE runs SET inputs = $3, waiting_inputs = waiting_inputs + 1
            WHERE tenant_id = $1 AND id = $2
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            position,
        )
        .execute(self.connection())
        .await?;
        let holder = held.worker_id.map(WorkerId::from_uuid);
        let input = RunInput {
            id: input.id,
            position: columns::count(position),
            state: InputState::Waiting,
            message: input.message.to_owned(),
            created_at,
        };
        Ok(SendInput::Accepted(input, holder))
    }

    /// Returns a message that was sent to a run.
    pub async fn run_input(
        &mut self,
        run: RunId,
        id: MessageId,
    ) -> Result<Option<RunInput>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            Row,
            r#"
            -- run_inputs.by_id
            SELECT sent.id, sent.position, sent.step, runs.finished_at IS NOT NULL AS "ended!",
                   sent.message::text AS "message!", sent.created_at
            FROM run_inputs AS sent
            JOIN runs ON runs.tenant_id = sent.tenant_id AND runs.id = sent.run_id
            WHERE sent.tenant_id = $1 AND sent.run_id = $2 AND sent.id = $3
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            id.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Row::read).transpose()
    }

    /// Returns messages that were sent to a run: at most `limit` of those after `cursor`.
    pub async fn run_inputs(
        &mut self,
        run: RunId,
        cursor: Option<u32>,
        limit: u32,
    ) -> Result<RunInputPage, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- run_inputs.list
            SELECT sent.id, sent.position, sent.step, runs.finished_at IS NOT NULL AS "ended!",
                   sent.message::text AS "message!", sent.created_at
            FROM run_inputs AS sent
            JOIN runs ON runs.tenant_id = sent.tenant_id AND runs.id = sent.run_id
            WHERE sent.tenant_id = $1 AND sent.run_id = $2 AND sent.position > $3
            ORDER BY sent.position LIMIT $4
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            int4(cursor.unwrap_or(0)),
            i64::from(limit) + 1,
        )
        .fetch_all(self.connection())
        .await?;
        let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > asked_for;
        let rows = rows.into_iter().take(asked_for);
        let data = rows.map(Row::read).collect::<Result<Vec<_>, _>>()?;
        Ok(RunInputPage {
            next_cursor: data.last().filter(|_| more).map(|input| input.position),
            data,
        })
    }

    /// Withdraws a message that waits for a run.
    pub async fn withdraw_input(
        &mut self,
        run: RunId,
        id: MessageId,
    ) -> Result<WithdrawInput, StoreError> {
        let tenant = self.tenant;
        if self.lock_inputs(run).await?.is_none_or(|held| held.ended) {
            return self.not_waiting(run, id).await;
        }
        let deleted = sqlx::query!(
            "
            -- run_inputs.withdraw
            DELETE FROM run_inputs
            WHERE tenant_id = $1 AND run_id = $2 AND id = $3 AND step IS NULL
            ",
            tenant.as_uuid(),
            run.as_uuid(),
            id.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        if deleted.rows_affected() == 0 {
            return self.not_waiting(run, id).await;
        }
        sqlx::query!(
            "
            -- run_inputs.uncount
            UPDATE runs SET waiting_inputs = waiting_inputs - 1 WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(WithdrawInput::Withdrawn)
    }

    async fn not_waiting(
        &mut self,
        run: RunId,
        id: MessageId,
    ) -> Result<WithdrawInput, StoreError> {
        Ok(match self.run_input(run, id).await? {
            Some(input) => WithdrawInput::NotWaiting(input.state),
            None => WithdrawInput::NotFound,
        })
    }

    /// Locks the row of a run, which every change of its messages and every commit of its holder
    /// changes; `None` if the tenant has no such run.
    async fn lock_inputs(&mut self, run: RunId) -> Result<Option<Held>, StoreError> {
        let tenant = self.tenant;
        let held = sqlx::query_as!(
            Held,
            r#"
            -- run_inputs.lock
            SELECT finished_at IS NOT NULL OR cancel_requested_at IS NOT NULL AS "ended!",
                   model <> '' AS "asks_model!", waiting_inputs, inputs,
                   CASE WHEN status = 'running' THEN worker_id END AS worker_id
            FROM runs WHERE tenant_id = $1 AND id = $2
            FOR NO KEY UPDATE
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(held)
    }
}

impl SystemTx<'_> {
    /// Notes the event by which the holder of a run shows that a message was accepted. Does nothing
    /// if another attempt holds the run, or if the message was taken or withdrawn.
    pub async fn note_accepted(
        &self,
        fence: &Fence,
        position: u32,
        event: EventId,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "
            -- run_inputs.note_accepted
            WITH held AS MATERIALIZED (
                SELECT id FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                -- A claim waits for the note, or the note sees that it is too late.
                FOR SHARE
            )
            UPDATE run_inputs SET accepted_event_id = $6
            FROM held
            WHERE tenant_id = $1 AND run_id = held.id AND position = $5 AND step IS NULL
              AND coalesce(accepted_event_id, 0) < $6
            ",
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(position),
            int8(event.as_u64()),
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }
}
