//! A run's timeline: its waits, attempts, turns, calls and end with their times, out of five tables.

mod assemble;

use baton_protocol::{
    ApprovalId, ApprovalReason, FinishReason, Lane, Nanos, RunId, RunStatus, TenantId, TurnRoute,
    Usage, WorkerId,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::steps::StepState;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The timeline of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The run.
    pub run: RunId,
    /// Its state.
    pub status: RunStatus,
    /// The error code of a failed run.
    pub error_code: Option<String>,
    /// The W3C trace context that its spans belong to.
    pub traceparent: Option<String>,
    /// Its entries, by the time at which they began.
    pub entries: Vec<TimelineEntry>,
}

impl Timeline {
    /// The id of the run's trace: the second part of its `traceparent`.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.split('-').nth(1)
    }
}

/// A stretch of a run's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// When it began, by the ledger's clock.
    pub began_at: DateTime<Utc>,
    /// When it ended; `None` if it goes on, and if the end was not recorded.
    pub ended_at: Option<DateTime<Utc>>,
    /// Its kind, with the fields of that.
    pub data: TimelineData,
}

/// The kinds of [`TimelineEntry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineData {
    /// The run waited for a worker.
    Queued {
        /// The lane that it waited in.
        lane: Lane,
    },
    /// A worker held the run.
    Attempt {
        /// Its number.
        attempt: u32,
        /// The worker, as far as it is recorded.
        worker: Option<WorkerId>,
        /// Why it ended; `None` if it goes on, and if that was not recorded.
        ending: Option<AttemptEnding>,
    },
    /// The model answered. It ends with the commit that records it.
    Turn {
        /// Its place in the transcript, from 1.
        step: u32,
        /// The attempt that recorded it.
        attempt: u32,
        /// The model that is charged.
        model: Option<String>,
        /// When its first output came.
        first_token_at: Option<DateTime<Utc>>,
        /// Why it ended; `None` if it was broken off.
        finish_reason: Option<FinishReason>,
        /// Its own tokens.
        usage: Usage,
        /// Tokens of its prompt that the upstream had read before.
        cached_tokens: u64,
        /// Its cost; `None` if the model has no price.
        cost: Option<Nanos>,
        /// Its way to its upstream, if others were left before it.
        route: Option<TurnRoute>,
    },
    /// The model summarised the conversation. It ends with the commit that records the summary.
    Compaction {
        /// Its place in the transcript, from 1.
        step: u32,
        /// The attempt that recorded it.
        attempt: u32,
        /// The model that is charged.
        model: Option<String>,
        /// Its own tokens.
        usage: Usage,
        /// Its cost; `None` if the model has no price.
        cost: Option<Nanos>,
        /// Its way to its upstream, if others were left before it.
        route: Option<TurnRoute>,
    },
    /// A server-side tool was called. It ends with the commit that records the result.
    Call {
        /// Its place in the transcript, from 1.
        step: u32,
        /// The attempt that wrote it last.
        attempt: u32,
        /// The call's id, as the model gave it.
        call_id: String,
        /// The tool.
        name: String,
        /// Its state.
        state: StepState,
        /// Whether the tool did what it was asked; `None` before its result.
        ok: Option<bool>,
    },
    /// A call waited for a person.
    Approval {
        /// The question.
        id: ApprovalId,
        /// The call's place in the transcript.
        step: u32,
        /// The reason for the question.
        reason: ApprovalReason,
        /// The name of the decision; `None` before.
        decision: Option<&'static str>,
        /// Whether the person approved other arguments than the model's.
        edited: bool,
    },
    /// Somebody asked for the run to be cancelled: until it ended.
    Cancel {
        /// The reason that was given.
        reason: String,
    },
}

/// Why an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnding {
    /// It ended the run.
    Ended(RunStatus),
    /// Its worker gave the run back, mostly because it drained.
    HandedOver,
    /// A call of the run waits for a person.
    Parked,
    /// The next turn waits until other runs of the key have settled.
    AwaitsBudget,
    /// Its worker did not renew the lease.
    LeaseExpired,
    /// Its worker had left the bus and wrote nothing.
    WorkerLost,
}

impl AttemptEnding {
    /// Those that leave the run to another attempt.
    pub const RELEASES: [Self; 5] = [
        Self::HandedOver,
        Self::Parked,
        Self::AwaitsBudget,
        Self::LeaseExpired,
        Self::WorkerLost,
    ];

    /// The name in SQL and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ended(status) => status.as_str(),
            Self::HandedOver => "handed_over",
            Self::Parked => "parked",
            Self::AwaitsBudget => "awaits_budget",
            Self::LeaseExpired => "lease_expired",
            Self::WorkerLost => "worker_lost",
        }
    }

    fn read(stored: &str) -> Result<Self, StoreError> {
        Self::RELEASES
            .into_iter()
            .find(|ending| ending.as_str() == stored)
            .ok_or_else(|| StoreError::unreadable("attempts.ending", stored))
    }
}

/// The columns of `runs` that a timeline needs.
struct RunRow {
    status: String,
    lane: String,
    error_code: Option<String>,
    cancel_reason: Option<String>,
    traceparent: Option<String>,
    attempt: i32,
    worker_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    queued_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
}

struct AttemptRow {
    attempt: i32,
    worker_id: Option<Uuid>,
    queued_at: Option<DateTime<Utc>>,
    claimed_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    ending: Option<String>,
}

/// A step without its message, with its entry in the books.
struct StepRow {
    step: i32,
    attempt: i32,
    kind: String,
    state: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    duration_ms: Option<i64>,
    first_token_ms: Option<i64>,
    finish_reason: Option<String>,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    usage_estimated: bool,
    call_id: Option<String>,
    name: Option<String>,
    ok: Option<bool>,
    is_summary: bool,
    model: Option<String>,
    cached_tokens: Option<i64>,
    cost_nanos: Option<i64>,
}

impl TenantTx {
    /// Returns the run's timeline; `None` if the tenant has no such run.
    pub async fn timeline(&mut self, run: RunId) -> Result<Option<Timeline>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query_as!(
            RunRow,
            r#"
            -- timeline.run
            SELECT status AS "status!", lane AS "lane!", error_code, cancel_reason, traceparent,
                   attempt, worker_id, created_at, queued_at, started_at, finished_at,
                   cancel_requested_at
            FROM runs WHERE tenant_id = $1 AND id = $2
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let attempts = sqlx::query_as!(
            AttemptRow,
            "
            -- timeline.attempts
            SELECT attempt, worker_id, queued_at, claimed_at, ended_at, ending
            FROM attempts WHERE tenant_id = $1 AND run_id = $2
            ORDER BY attempt
            ",
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        let steps = sqlx::query_as!(
            StepRow,
            r#"
            -- timeline.steps
            SELECT s.step, s.attempt, s.kind AS "kind!", s.state AS "state!", s.created_at,
                   s.started_at, s.finished_at, s.duration_ms, s.first_token_ms, s.finish_reason,
                   s.prompt_tokens, s.completion_tokens, s.total_tokens, s.usage_estimated,
                   s.call_id, s.name, s.ok, s.summary IS NOT NULL AS "is_summary!",
                   used.model AS "model?",
                   used.cached_tokens AS "cached_tokens?", used.cost_nanos
            FROM steps AS s
            -- By the day as well, which the key of the table has first.
            LEFT JOIN usage_entries AS used
                   ON s.kind = 'turn' AND used.tenant_id = s.tenant_id AND used.run_id = s.run_id
                      AND used.step = s.step AND used.day = ($3::timestamptz AT TIME ZONE 'UTC')::date
            -- A message of a client takes no time.
            WHERE s.tenant_id = $1 AND s.run_id = $2 AND s.kind <> 'input'
            ORDER BY s.step
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            row.created_at,
        )
        .fetch_all(self.connection())
        .await?;
        let approvals = self.run_approvals(run).await?;
        let routes = self.turn_routes(run).await?;
        assemble::timeline(run, row, attempts, steps, approvals, routes).map(Some)
    }
}

impl SystemTx<'_> {
    /// Returns the tenant of a run; `None` if there is no such run.
    pub async fn tenant_of_run(&self, run: RunId) -> Result<Option<TenantId>, StoreError> {
        let tenant = sqlx::query_scalar!(
            "
            -- runs.tenant_of
            SELECT tenant_id FROM runs WHERE id = $1
            ",
            run.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(tenant.map(TenantId::from_uuid))
    }
}

fn worker(stored: Option<Uuid>) -> Option<WorkerId> {
    stored.map(WorkerId::from_uuid)
}

fn usage(row: &StepRow) -> Usage {
    columns::usage_or_guess(
        row.prompt_tokens.unwrap_or(0),
        row.completion_tokens.unwrap_or(0),
        row.total_tokens.unwrap_or(0),
        row.usage_estimated,
    )
}
