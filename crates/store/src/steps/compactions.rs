//! Records a summary that replaces the conversation before it.

use baton_protocol::{Charge, EventId, Fence, Usage};

use crate::columns::{int4, int8, optional_text};
use crate::errors::FenceError;
use crate::steps::TurnTimes;
use crate::system::SystemTx;

/// A summary, with what it cost to make.
#[derive(Debug, Clone)]
pub struct CompactionCommit<'a> {
    /// Its place in the transcript, from 1.
    pub step: u32,
    /// The JSON text of the message in which the model wrote it.
    pub summary: &'a str,
    /// The model that is charged; `None` for the requested one.
    pub charged_model: Option<&'a str>,
    /// Its own tokens.
    pub usage: Usage,
    /// The charge for it.
    pub charge: Charge,
    /// Its times.
    pub times: TurnTimes,
    /// The tokens of all turns and summaries, this one included.
    pub usage_total: Usage,
    /// The event that shows it.
    pub last_event_id: EventId,
}

impl SystemTx<'_> {
    /// Records a summary and its charge in one commit. This is progress of the run, so that its count of
    /// failures starts again. Repeated after its answer was lost, it changes nothing.
    pub async fn commit_compaction(
        &self,
        fence: &Fence,
        compaction: &CompactionCommit<'_>,
    ) -> Result<(), FenceError> {
        let charge = compaction.charge;
        let held = sqlx::query_scalar!(
            r#"
            -- steps.commit_compaction
            WITH held AS (
                UPDATE runs SET
                    failures = 0,
                    -- As in steps.commit_turn, nothing goes back.
                    last_event_id = greatest(last_event_id, $5),
                    prompt_tokens = greatest(prompt_tokens, $6),
                    completion_tokens = greatest(completion_tokens, $7),
                    total_tokens = greatest(total_tokens, $8),
                    usage_estimated = usage_estimated OR $14
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING api_key_id, model, created_at
            ), recorded AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, summary,
                                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                                   finished_at, usage_estimated, started_at, duration_ms,
                                   first_token_ms)
                SELECT $1, $2, $9::integer, $3, 'turn', 'finished', $10::text::json, $11::bigint,
                       $12::bigint, $13::bigint, $5, clock_timestamp(), $14,
                       clock_timestamp() - $20::bigint * interval '1 ms', $20::bigint, $21::bigint
                FROM held
                ON CONFLICT DO NOTHING
            ), entered AS (
                INSERT INTO usage_entries (tenant_id, day, run_id, step, api_key_id, model,
                                           input_tokens, cached_tokens, output_tokens, cost_nanos,
                                           estimated)
                SELECT $1, (held.created_at AT TIME ZONE 'UTC')::date, $2, $9, held.api_key_id,
                       coalesce($15::text, held.model), $16::bigint, $17::bigint, $18::bigint,
                       $19::bigint, $14
                FROM held
                ON CONFLICT DO NOTHING
            )
            SELECT true AS "held!" FROM held
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(compaction.last_event_id.as_u64()),
            int8(compaction.usage_total.prompt_tokens),
            int8(compaction.usage_total.completion_tokens),
            int8(compaction.usage_total.total_tokens),
            int4(compaction.step),
            compaction.summary,
            int8(compaction.usage.prompt_tokens),
            int8(compaction.usage.completion_tokens),
            int8(compaction.usage.total_tokens),
            compaction.usage.estimated,
            optional_text(compaction.charged_model),
            int8(charge.input_tokens),
            int8(charge.cached_tokens),
            int8(charge.output_tokens),
            charge.cost.map(|cost| int8(cost.0)),
            compaction.times.duration_ms(),
            compaction.times.first_token_ms(),
        )
        .fetch_optional(self.pool)
        .await?;
        held.map(drop).ok_or(FenceError::Lost)
    }
}
