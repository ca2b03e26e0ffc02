//! `running` → `completed`, `failed`, `cancelled`: the holder ends the run. The last step, its
//! message, the usage and the state are one statement and one commit.

use std::borrow::Cow;
use std::time::Duration;

use baton_protocol::{
    Charge, EventId, Fence, FinishReason, Lane, Outcome, RunId, TenantId, ThreadId, Usage,
};

use crate::columns::{self, int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::runs::rescue::QueuedJob;
use crate::steps::TurnTimes;
use crate::system::SystemTx;

/// The end of a run.
#[derive(Debug, Clone)]
pub struct FinishCommit<'a> {
    /// The outcome.
    pub outcome: &'a Outcome,
    /// The id of the terminal event, which is appended after this commit.
    pub last_event_id: EventId,
    /// The tokens of all turns, the last one included.
    pub usage_total: Usage,
    /// The model's last turn, if the run ends with one that is not recorded yet.
    pub turn: Option<FinalTurn<'a>>,
    /// Instead of a last turn, the turn that was broken off by a cancel or a failure.
    pub cut: Option<CutTurn<'a>>,
}

/// The turn that a run ends with.
#[derive(Debug, Clone)]
pub struct FinalTurn<'a> {
    /// Its place in the transcript, from 1.
    pub step: u32,
    /// The JSON text of the assistant's message.
    pub message: &'a str,
    /// The JSON text of the other fields of the answer, which are passed on.
    pub answer_fields: Option<&'a str>,
    /// The model that is charged; `None` for the requested one.
    pub charged_model: Option<&'a str>,
    /// The turn's own tokens.
    pub usage: Usage,
    /// The charge for the turn.
    pub charge: Charge,
    /// Its times.
    pub times: TurnTimes,
    /// The reason why the turn ended.
    pub finish_reason: FinishReason,
    /// The last event of the turn, before the terminal one.
    pub last_event_id: EventId,
}

/// A turn that was broken off. The ledger keeps the part that was shown; it never counts as an
/// answer.
#[derive(Debug, Clone)]
pub struct CutTurn<'a> {
    /// The place in the transcript that it would have had, from 1.
    pub step: u32,
    /// The JSON text of the received part of the assistant's message.
    pub message: &'a str,
    /// The JSON text of the other fields of the answer that were received.
    pub answer_fields: Option<&'a str>,
    /// The model that is charged; `None` for the requested one.
    pub charged_model: Option<&'a str>,
    /// The turn's own tokens, known or estimated.
    pub usage: Usage,
    /// The charge for the turn.
    pub charge: Charge,
    /// Its times.
    pub times: TurnTimes,
    /// The last event of the turn, before the terminal one.
    pub last_event_id: EventId,
}

/// The values that the statement writes for either kind of last turn.
struct LastTurn<'a> {
    step: u32,
    message: &'a str,
    answer_fields: Option<&'a str>,
    charged_model: Option<&'a str>,
    usage: Usage,
    charge: Charge,
    times: TurnTimes,
    finish_reason: Option<&'static str>,
    last_event_id: EventId,
}

impl<'a> FinishCommit<'a> {
    fn last_turn(&self) -> Option<LastTurn<'a>> {
        let whole = self.turn.as_ref().map(|turn| LastTurn {
            step: turn.step,
            message: turn.message,
            answer_fields: turn.answer_fields,
            charged_model: turn.charged_model,
            usage: turn.usage,
            charge: turn.charge,
            times: turn.times,
            finish_reason: Some(turn.finish_reason.as_str()),
            last_event_id: turn.last_event_id,
        });
        whole.or_else(|| {
            self.cut.as_ref().map(|cut| LastTurn {
                step: cut.step,
                message: cut.message,
                answer_fields: cut.answer_fields,
                charged_model: cut.charged_model,
                usage: cut.usage,
                charge: cut.charge,
                times: cut.times,
                finish_reason: None,
                last_event_id: cut.last_event_id,
            })
        })
    }
}

/// The result of ending a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The next run of its thread, which now needs a job.
    pub promoted: Option<QueuedJob>,
    /// The time from the cancel request to the end of a cancelled run; `None` unless cancelled.
    pub cancel_latency: Option<Duration>,
}

/// The columns that distinguish the outcomes.
struct OutcomeParameters<'a> {
    finish_reason: Option<&'static str>,
    error_code: Option<Cow<'a, str>>,
    error_message: Option<Cow<'a, str>>,
    error_upstream: Option<String>,
    cancel_reason: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Outcome> for OutcomeParameters<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        let none = Self {
            finish_reason: None,
            error_code: None,
            error_message: None,
            error_upstream: None,
            cancel_reason: None,
        };
        match outcome {
            Outcome::Completed(reason) => Self {
                finish_reason: Some(reason.as_str()),
                ..none
            },
            Outcome::Failed(error) => Self {
                error_code: Some(columns::text(&error.code)),
                error_message: Some(columns::text(&error.message)),
                error_upstream: error.upstream.as_ref().and_then(|upstream| {
                    // Two texts and a number can always be written as JSON, which escapes a NUL.
                    serde_json::to_string(upstream).ok()
                }),
                ..none
            },
            Outcome::Cancelled(reason) => Self {
                cancel_reason: Some(columns::text(reason)),
                ..none
            },
        }
    }
}

impl SystemTx<'_> {
    /// Ends the run. Repeated after its answer was lost, it returns the same result.
    pub async fn finish_run(
        &self,
        fence: &Fence,
        finish: &FinishCommit<'_>,
    ) -> Result<Finished, FenceError> {
        let outcome = OutcomeParameters::from(finish.outcome);
        let last = finish.last_turn();
        let turn = last.as_ref();
        let charged_model = columns::optional_text(turn.and_then(|turn| turn.charged_model));
        let row = sqlx::query!(
            r#"
            -- runs.finish
            WITH ended AS (
                UPDATE runs SET
                    status = $5::text,
                    finish_reason = $6::text,
                    error_code = $7,
                    error_message = $8,
                    error_upstream = $27::text::json,
                    -- The words of whoever asked for the cancel stand.
                    cancel_reason = coalesce(cancel_reason, $9),
                    last_event_id = $10,
                    prompt_tokens = $11,
                    completion_tokens = $12,
                    total_tokens = $13,
                    usage_estimated = $21,
                    failures = CASE WHEN $14::integer IS NULL THEN failures ELSE 0 END,
                    lease_expires_at = NULL,
                    finished_at = clock_timestamp()
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING thread_id, api_key_id, model, created_at,
                          CASE status WHEN 'cancelled' THEN
                              extract(epoch FROM finished_at - cancel_requested_at)::float8
                          END AS cancel_seconds
            ), recorded AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                                   finished_at, usage_estimated, cut_message, answer_fields,
                                   started_at, duration_ms, first_token_ms)
                SELECT $1, $2, $14, $3, 'turn', 'finished', $16::text, $17, $18, $19, $20,
                       clock_timestamp(), $22,
                       CASE WHEN $16 IS NULL THEN $15::text::json END, $28::text::json,
                       clock_timestamp() - $30::bigint * interval '1 ms', $30::bigint, $31::bigint
                FROM ended WHERE $14 IS NOT NULL
                ON CONFLICT DO NOTHING
            ), entered AS (
                INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                           input_tokens, cached_tokens, output_tokens, cost_nanos,
                                           estimated)
                SELECT $1, (ended.created_at AT TIME ZONE 'UTC')::date, $2, $14, ended.api_key_id,
                       coalesce($29::text, ended.model), $23::bigint, $24::bigint, $25::bigint, $26::bigint, $22
                FROM ended WHERE $14 IS NOT NULL
                ON CONFLICT DO NOTHING
            ), said AS (
                INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
                SELECT $1, $2, $14, ended.thread_id, $15::text::json
                FROM ended WHERE $14 IS NOT NULL AND $16 IS NOT NULL
                ON CONFLICT DO NOTHING
            )
            SELECT thread_id, cancel_seconds FROM ended
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            finish.outcome.status().as_str(),
            outcome.finish_reason,
            outcome.error_code.as_deref(),
            outcome.error_message.as_deref(),
            outcome.cancel_reason.as_deref(),
            int8(finish.last_event_id.as_u64()),
            int8(finish.usage_total.prompt_tokens),
            int8(finish.usage_total.completion_tokens),
            int8(finish.usage_total.total_tokens),
            turn.map(|turn| int4(turn.step)),
            turn.map(|turn| turn.message),
            turn.and_then(|turn| turn.finish_reason),
            turn.map(|turn| int8(turn.usage.prompt_tokens)),
            turn.map(|turn| int8(turn.usage.completion_tokens)),
            turn.map(|turn| int8(turn.usage.total_tokens)),
            turn.map(|turn| int8(turn.last_event_id.as_u64())),
            finish.usage_total.estimated,
            turn.is_some_and(|turn| turn.usage.estimated),
            turn.map(|turn| int8(turn.charge.input_tokens)),
            turn.map(|turn| int8(turn.charge.cached_tokens)),
            turn.map(|turn| int8(turn.charge.output_tokens)),
            turn.and_then(|turn| turn.charge.cost)
                .map(|cost| int8(cost.0)),
            outcome.error_upstream,
            turn.and_then(|turn| turn.answer_fields),
            charged_model,
            turn.and_then(|turn| turn.times.duration_ms()),
            turn.and_then(|turn| turn.times.first_token_ms()),
        )
        .fetch_optional(self.pool)
        .await?;
        let (thread, cancel_seconds) = match row {
            Some(row) => (row.thread_id, row.cancel_seconds),
            None => self.ended_by(fence, finish).await?,
        };
        Ok(Finished {
            cancel_latency: columns::latency(cancel_seconds),
            promoted: match thread {
                Some(thread) => {
                    self.next_in_thread(fence.tenant, ThreadId::from_uuid(thread))
                        .await?
                }
                None => None,
            },
        })
    }

    /// Returns the thread of a run that this attempt has already ended in the same way, and the
    /// time since the cancel request.
    async fn ended_by(
        &self,
        fence: &Fence,
        finish: &FinishCommit<'_>,
    ) -> Result<(Option<uuid::Uuid>, Option<f64>), FenceError> {
        let row = sqlx::query!(
            "
            -- runs.ended_by
            SELECT thread_id,
                   CASE status WHEN 'cancelled' THEN
                       extract(epoch FROM finished_at - cancel_requested_at)::float8
                   END AS cancel_seconds
            FROM runs
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND status = $5 AND last_event_id = $6
            ",
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            finish.outcome.status().as_str(),
            int8(finish.last_event_id.as_u64()),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        Ok((row.thread_id, row.cancel_seconds))
    }

    /// Returns the oldest waiting run of a thread without an active run.
    pub async fn next_in_thread(
        &self,
        tenant: TenantId,
        thread: ThreadId,
    ) -> Result<Option<QueuedJob>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- runs.next_in_thread
            SELECT id, lane AS "lane!", queued_at, published_at
            FROM runs
            WHERE tenant_id = $1 AND thread_id = $2 AND status = 'queued'
              AND NOT EXISTS (
                  SELECT FROM runs AS active
                  WHERE active.tenant_id = $1 AND active.thread_id = $2
                    AND active.status IN ('running', 'awaiting_approval'))
            ORDER BY id LIMIT 1
            "#,
            tenant.as_uuid(),
            thread.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        row.map(|row| {
            let lane: Lane = columns::lane(&row.lane)?;
            Ok(QueuedJob {
                tenant,
                run: RunId::from_uuid(row.id),
                lane,
                queued_at: row.queued_at,
                published_at: row.published_at,
            })
        })
        .transpose()
    }
}
