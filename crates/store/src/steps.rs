//! The table `steps`, a run's ledger: a recorded step is never executed again.

mod calls;
mod compactions;
mod given;
mod routes;
mod times;
mod turns;

use baton_protocol::{
    ApprovalScope, CallFailure, CallPause, Decision, Effect, EventId, FinishReason, MessageId,
    RunId, TenantId, Usage,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgExecutor;

use crate::columns;
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

pub use calls::{CallCommit, OpenTask, PauseCommit};
pub(crate) use calls::{CallCommitRow, commit_call_group};
pub use compactions::CompactionCommit;
pub use given::GivenCallsCommit;
pub use times::TurnTimes;
pub use turns::{NewCall, TurnCommit};
pub(crate) use turns::{TurnCommitRow, commit_turn_group};

/// A step as stored.
#[derive(Debug, Clone)]
pub struct StepRecord {
    /// Its place in the transcript, from 1, dense.
    pub step: u32,
    /// The attempt that wrote it last.
    pub attempt: u32,
    /// Its kind and state.
    pub data: StepData,
    /// The OpenAI chat message of the step, or the summary of a compaction; `None` before it is finished.
    pub message: Option<Box<RawValue>>,
    /// The received part of the message of a [`StepData::CutTurn`].
    pub cut_message: Option<Box<RawValue>>,
    /// The other fields of a turn's answer, which are passed on unread.
    pub answer_fields: Option<Box<RawValue>>,
    /// The event that showed the beginning of a call that is finished, or that its server has left.
    pub started_event_id: Option<EventId>,
    /// The last event that its record covers; `None` before it is finished.
    pub last_event_id: Option<EventId>,
    /// The time at which it was first recorded.
    pub created_at: DateTime<Utc>,
    /// The time at which its result was recorded.
    pub finished_at: Option<DateTime<Utc>>,
}

impl StepRecord {
    /// Returns whether the step is a call without a result.
    pub fn is_open_call(&self) -> bool {
        matches!(
            self.data,
            StepData::Call {
                state: CallState::Pending { .. } | CallState::Started { .. },
                ..
            }
        )
    }
}

/// The kind of a step, with the data of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepData {
    /// One answer of the model.
    Turn {
        /// The reason why the turn ended.
        finish_reason: FinishReason,
        /// The turn's own tokens.
        usage: Usage,
    },
    /// An answer of the model that was broken off by a cancel or a failure: the run's last step. It
    /// is not part of the transcript.
    CutTurn {
        /// The turn's own tokens, known or estimated.
        usage: Usage,
    },
    /// One call of a server-side tool.
    Call {
        /// The call's id, as the model gave it.
        call_id: String,
        /// The name of the tool.
        name: String,
        /// The arguments as the model wrote them; they need not be JSON.
        arguments: String,
        /// The JSON text of the arguments that a person approved in their place.
        edited_arguments: Option<String>,
        /// The effect of a repetition.
        effect: Effect,
        /// The state in which its server has left it without a result; `None` before, and after the result.
        paused: Option<Box<PausedCall>>,
        /// Its progress.
        state: CallState,
    },
    /// A summary that replaces the conversation before it.
    Compaction {
        /// The tokens of making it.
        usage: Usage,
    },
    /// A message that a client sent to the run while it worked.
    Input {
        /// The message.
        id: MessageId,
        /// Its place among the messages sent to the run.
        position: u32,
        /// The event that shows its acceptance; `None` if a process of the version before took it.
        accepted_event_id: Option<EventId>,
    },
}

/// A call that its server has left without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedCall {
    /// The state in which the server has left it.
    pub pause: CallPause,
    /// A person's answer to the server's questions; `None` before, or if it asked for nothing.
    pub given: Option<Decision>,
}

/// The progress of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// Not begun, or begun by a worker that was lost and harmless to begin again.
    Pending {
        /// A person's decision about it; `None` if nobody decided.
        decision: Option<Decision>,
    },
    /// Begun, with a tool that must not be called twice; there is no result.
    Started {
        /// A person's decision about it; `None` if nobody decided since it began.
        decision: Option<Decision>,
    },
    /// Its result is recorded.
    Finished {
        /// Whether the tool succeeded.
        ok: bool,
        /// The reason why it has no result; none if a person decided that, or if it was not recorded.
        failure: Option<CallFailure>,
        /// Its duration in milliseconds.
        duration_ms: u64,
    },
}

/// The name of a step's kind in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// One answer of the model.
    Turn,
    /// One call of a server-side tool.
    Call,
    /// A message that a client sent to the run while it worked.
    Input,
}

impl StepKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Turn, Self::Call, Self::Input];

    /// Returns the name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Call => "call",
            Self::Input => "input",
        }
    }
}

/// The name of a step's state in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// See [`CallState::Pending`].
    Pending,
    /// See [`CallState::Started`].
    Started,
    /// See [`CallState::Finished`]; a turn is always finished.
    Finished,
}

impl StepState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Started, Self::Finished];

    /// Returns the name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Finished => "finished",
        }
    }
}

/// A row of the table, with its message.
struct Row {
    step: i32,
    attempt: i32,
    kind: String,
    state: String,
    finish_reason: Option<String>,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    effect: Option<String>,
    ok: Option<bool>,
    failure: Option<String>,
    duration_ms: Option<i64>,
    last_event_id: Option<i64>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    message: Option<String>,
    is_summary: bool,
    cut_message: Option<String>,
    answer_fields: Option<String>,
    usage_estimated: bool,
    started_event_id: Option<i64>,
    decision: Option<String>,
    answer: Option<String>,
    decided_arguments: Option<String>,
    edited_arguments: Option<String>,
    position: Option<i32>,
    accepted_event_id: Option<i64>,
    paused: Option<String>,
    given: Option<String>,
    given_answer: Option<String>,
    given_input: Option<String>,
}

impl Row {
    /// Reads the state in which a server has left a call, with the answer to its newest questions.
    fn paused_call(&self) -> Result<Option<Box<PausedCall>>, StoreError> {
        let Some(paused) = self.paused.as_deref() else {
            return Ok(None);
        };
        let pause = serde_json::from_str(paused)
            .map_err(|error| StoreError::unreadable("steps.paused", &error.to_string()))?;
        let input = columns::requested_input(self.given_input.as_deref())?;
        // The newest question may be one of an earlier round.
        let is_of_it = match (CallPause::asked(&pause), input) {
            (Some(asked), Some(input)) => input.round == asked.round,
            _ => false,
        };
        let given = if is_of_it {
            let (name, answer) = (self.given.clone(), self.given_answer.clone());
            columns::decision(name, answer, None, ApprovalScope::Once)?
        } else {
            None
        };
        Ok(Some(Box::new(PausedCall { pause, given })))
    }

    fn read(self) -> Result<StepRecord, StoreError> {
        let state = StepState::ALL
            .into_iter()
            .find(|state| state.as_str() == self.state)
            .ok_or_else(|| StoreError::unreadable("steps.state", &self.state))?;
        let kind = StepKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
            .ok_or_else(|| StoreError::unreadable("steps.kind", &self.kind))?;
        let usage = columns::usage_or_guess(
            self.prompt_tokens.unwrap_or(0),
            self.completion_tokens.unwrap_or(0),
            self.total_tokens.unwrap_or(0),
            self.usage_estimated,
        );
        let paused = self.paused_call()?;
        let arguments = self.decided_arguments.as_deref();
        // Its scope is in the grants.
        let decision =
            columns::decision(self.decision, self.answer, arguments, ApprovalScope::Once)?;
        let data = match kind {
            StepKind::Turn if self.is_summary => StepData::Compaction { usage },
            StepKind::Turn if self.cut_message.is_some() => StepData::CutTurn { usage },
            StepKind::Turn => StepData::Turn {
                finish_reason: columns::finish_reason(
                    "steps.finish_reason",
                    self.finish_reason.as_deref().unwrap_or_default(),
                )?,
                usage,
            },
            StepKind::Input => {
                let id = self.call_id.unwrap_or_default();
                let read = id.parse();
                StepData::Input {
                    id: read.map_err(|_| StoreError::unreadable("steps.call_id", &id))?,
                    position: columns::count(self.position.unwrap_or(0)),
                    accepted_event_id: self.accepted_event_id.map(columns::event_id),
                }
            }
            StepKind::Call => StepData::Call {
                call_id: self.call_id.unwrap_or_default(),
                name: self.name.unwrap_or_default(),
                arguments: self.arguments.unwrap_or_default(),
                edited_arguments: self.edited_arguments,
                effect: columns::effect(self.effect.as_deref().unwrap_or_default())?,
                paused,
                state: match state {
                    StepState::Pending => CallState::Pending { decision },
                    StepState::Started => CallState::Started { decision },
                    StepState::Finished => CallState::Finished {
                        ok: self.ok.unwrap_or(false),
                        failure: self.failure.as_deref().map(columns::failure).transpose()?,
                        duration_ms: columns::number(self.duration_ms.unwrap_or(0)),
                    },
                },
            },
        };
        Ok(StepRecord {
            step: columns::count(self.step),
            attempt: columns::count(self.attempt),
            data,
            message: self
                .message
                .map(|message| columns::json("messages.message", message))
                .transpose()?,
            cut_message: self
                .cut_message
                .map(|message| columns::json("steps.cut_message", message))
                .transpose()?,
            answer_fields: self
                .answer_fields
                .map(|fields| columns::json("steps.answer_fields", fields))
                .transpose()?,
            started_event_id: self.started_event_id.map(columns::event_id),
            last_event_id: self.last_event_id.map(columns::event_id),
            created_at: self.created_at,
            finished_at: self.finished_at,
        })
    }
}

async fn steps_of(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: RunId,
) -> Result<Vec<StepRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"
        -- steps.of_run
        SELECT s.step, s.attempt, s.kind AS "kind!", s.state AS "state!", s.finish_reason,
               s.prompt_tokens, s.completion_tokens, s.total_tokens, s.call_id, s.name,
               s.arguments, s.effect, s.ok, s.failure, s.duration_ms, s.last_event_id, s.created_at,
               s.finished_at, coalesce(m.message, s.summary)::text AS message,
               s.summary IS NOT NULL AS "is_summary!", s.cut_message::text AS cut_message,
               s.answer_fields::text AS answer_fields, s.usage_estimated, s.started_event_id,
               asked.decision AS "decision?", asked.answer AS "answer?",
               asked.arguments::text AS decided_arguments,
               edited.arguments::text AS edited_arguments,
               sent.position AS "position?", sent.accepted_event_id AS "accepted_event_id?",
               s.paused::text AS paused, given.decision AS "given?", given.answer AS "given_answer?",
               given.input AS "given_input?"
        FROM steps AS s
        -- A decision is about the call as it was, begun or not, when it was asked for.
        LEFT JOIN approvals AS asked
               ON s.state IN ('pending', 'started') AND asked.decision IS NOT NULL
                  AND asked.tenant_id = s.tenant_id AND asked.run_id = s.run_id
                  AND asked.step = s.step AND asked.attempt >= s.attempt
        -- Approved arguments stay those of the call.
        LEFT JOIN approvals AS edited
               ON edited.tenant_id = s.tenant_id AND edited.run_id = s.run_id
                  AND edited.step = s.step AND edited.arguments IS NOT NULL
        LEFT JOIN messages AS m
               ON m.tenant_id = s.tenant_id AND m.run_id = s.run_id AND m.step = s.step
        LEFT JOIN run_inputs AS sent
               ON s.kind = 'input' AND sent.tenant_id = s.tenant_id AND sent.run_id = s.run_id
                  AND sent.step = s.step
        -- The newest questions of a server that has left its call.
        LEFT JOIN LATERAL (
            SELECT approvals.decision, approvals.answer, approvals.input::text AS input
            FROM approvals
            WHERE s.paused IS NOT NULL AND approvals.tenant_id = s.tenant_id
              AND approvals.run_id = s.run_id AND approvals.step = s.step
              AND approvals.reason = 'input'
            ORDER BY approvals.attempt DESC
            LIMIT 1
        ) AS given ON true
        WHERE s.tenant_id = $1 AND s.run_id = $2
        ORDER BY s.step
        "#,
        tenant.as_uuid(),
        run.as_uuid(),
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(Row::read)
    .collect()
}

impl TenantTx {
    /// Returns the run's steps in order.
    pub async fn run_steps(&mut self, run: RunId) -> Result<Vec<StepRecord>, StoreError> {
        let tenant = self.tenant;
        steps_of(self.connection(), tenant, run).await
    }
}

/// The events that a run's last commit names; both are [`EventId::ORIGIN`] without a recorded step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordedEvents {
    /// The event of the commit itself. Those before it were stored.
    pub of_commit: EventId,
    /// The last event of the messages that the commit took; the same if it took none.
    pub last: EventId,
}

impl SystemTx<'_> {
    /// Returns the last events that recorded steps cover.
    pub async fn last_recorded_events(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<RecordedEvents, StoreError> {
        let row = sqlx::query!(
            "
            -- steps.last_recorded_events
            SELECT max(last_event_id) FILTER (WHERE kind <> 'input') AS of_commit,
                   max(last_event_id) AS last
            FROM steps WHERE tenant_id = $1 AND run_id = $2
            ",
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_one(self.pool)
        .await?;
        Ok(RecordedEvents {
            of_commit: row.of_commit.map_or(EventId::ORIGIN, columns::event_id),
            last: row.last.map_or(EventId::ORIGIN, columns::event_id),
        })
    }

    /// Returns the messages that a commit of the run took, which it recorded from `step` on.
    async fn taken_inputs(
        &self,
        tenant: TenantId,
        run: RunId,
        step: u32,
    ) -> Result<Vec<StepRecord>, StoreError> {
        let mut steps = self.recorded_steps(tenant, run).await?;
        steps.retain(|taken| taken.step >= step && matches!(taken.data, StepData::Input { .. }));
        Ok(steps)
    }

    /// Returns the run's steps in order.
    pub async fn recorded_steps(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Vec<StepRecord>, StoreError> {
        steps_of(self.pool, tenant, run).await
    }
}
