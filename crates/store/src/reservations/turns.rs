//! Reservations of model turns: a turn reserves its share of the budget before the model is asked.

use baton_protocol::{EventId, Fence, RunId, TenantId};

use crate::budget::{Budget, Room, TurnGrant, TurnWish};
use crate::columns::{self, int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::runs::rescue::{QueuedJob, Row};
use crate::system::SystemTx;

/// The tries of a refused turn while other runs change the month.
const LOOKS: u32 = 4;

impl SystemTx<'_> {
    /// Reserves the most that a turn may use up, before the model is asked. Repeated after its
    /// answer was lost, it reserves nothing more.
    ///
    /// If an earlier attempt reserved for a turn that it did not live to record, that turn is
    /// charged; the rest of the earlier reservation is given back.
    ///
    /// Only spent budget shortens an answer. While other runs hold reservations, a turn that lacks
    /// part of its answer must wait for them. The exception is the first turn: the commit that
    /// accepted the run reserved it, and it takes what is left.
    pub async fn begin_turn(
        &self,
        fence: &Fence,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, FenceError> {
        let whole = TurnWish {
            least_answer: wish.answer_tokens,
            ..*wish
        };
        let first = step == 1;
        let mut grant = self
            .try_begin_turn(fence, step, if first { wish } else { &whole })
            .await?;
        // Other runs may settle between two looks. A run that then has to wait is checked again
        // before it does.
        for _ in 0..LOOKS {
            if !matches!(grant, TurnGrant::Refused(_)) {
                return Ok(grant);
            }
            let Some(room) = self.room(fence, wish).await? else {
                return Err(FenceError::Lost);
            };
            if room.is_reserved(wish) {
                return Ok(TurnGrant::Reserved);
            }
            if room.now < int8(wish.least_answer) {
                return Ok(grant);
            }
            grant = self.try_begin_turn(fence, step, wish).await?;
        }
        Ok(match grant {
            TurnGrant::Refused(_) => TurnGrant::Reserved,
            grant => grant,
        })
    }

    /// Requeues the run until other runs have settled; this is no failure of the run. Returns
    /// whether the run waits: false if others have just settled, and then the run must be delivered
    /// again at once. The run holds no more than it has used, because [`SystemTx::begin_turn`] gave
    /// back the rest.
    pub async fn await_budget(
        &self,
        fence: &Fence,
        wish: &TurnWish,
        last_event_id: EventId,
    ) -> Result<bool, FenceError> {
        let queued = sqlx::query!(
            "
            -- reservations.await_budget
            WITH held AS (
                UPDATE runs SET
                    status = 'queued',
                    failures = greatest(failures - 1, 0),
                    last_event_id = greatest(last_event_id, $5),
                    lease_expires_at = NULL,
                    released_by = 'awaits_budget',
                    queued_at = clock_timestamp()
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING tenant_id, id
            )
            UPDATE reservations SET waiting_tokens = $6, waiting_nanos = $7
            FROM held
            WHERE reservations.tenant_id = held.tenant_id AND reservations.run_id = held.id
            ",
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(last_event_id.as_u64()),
            wish.tokens_before()
                .saturating_add(int8(wish.answer_tokens)),
            wish.nanos(int8(wish.answer_tokens)),
        )
        .execute(self.pool)
        .await?;
        if queued.rows_affected() != 1 {
            return Err(FenceError::Lost);
        }
        // Runs that settled before this commit could not wake this run.
        let room = self.room(fence, wish).await?;
        Ok(room.is_some_and(|room| room.is_reserved(wish)))
    }

    /// Returns the room in the month of the run's key, from one snapshot; `None` for a run without
    /// a budget.
    async fn room(&self, fence: &Fence, wish: &TurnWish) -> Result<Option<Room>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- reservations.room
            WITH mine AS (
                SELECT r.limits_of, r.month, runs.api_key_id
                FROM reservations r JOIN runs ON runs.tenant_id = r.tenant_id AND runs.id = r.run_id
                WHERE r.tenant_id = $1 AND r.run_id = $2
            ), others AS (
                -- Nothing is used before the first turn begins, and no more than is reserved beyond the
                -- turn at work.
                SELECT coalesce(sum(CASE WHEN r.open_attempt IS NULL THEN r.reserved_tokens
                                         WHEN r.open_step IS NULL THEN 0
                                         ELSE r.open_tokens END), 0)::bigint AS tokens,
                       coalesce(sum(CASE WHEN r.open_attempt IS NULL THEN r.reserved_nanos
                                         WHEN r.open_step IS NULL THEN 0
                                         ELSE r.open_nanos END), 0)::bigint AS nanos
                FROM mine JOIN reservations r
                  ON r.tenant_id = $1 AND r.limits_of = mine.limits_of AND r.month = mine.month
                WHERE r.running AND r.run_id <> $2
            ), stood AS (
                SELECT k.monthly_tokens - m.spent_tokens - m.reserved_tokens AS left_tokens,
                       least(k.monthly_cost_micros, 9223372036854775) * 1000
                           - m.spent_nanos - m.reserved_nanos AS left_nanos
                FROM mine
                JOIN key_months m ON m.tenant_id = $1 AND m.limits_of = mine.limits_of
                 AND m.month = mine.month
                JOIN api_keys k ON k.tenant_id = $1 AND k.id = mine.api_key_id
            )
            SELECT answer_within(left_tokens, left_nanos, $3, $4, $5, $6) AS "now!",
                   answer_within(left_tokens + others.tokens, left_nanos + others.nanos,
                                 $3, $4, $5, $6) AS "if_settled!"
            FROM stood, others
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            wish.tokens_before(),
            wish.nanos_before(),
            int8(wish.answer_tokens),
            wish.picos_per_token(),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row.map(|row| Room {
            now: row.now,
            if_settled: row.if_settled,
        }))
    }

    /// Returns the runs that wait for the budget which this run has given back, the longest wait
    /// first, at most `limit`.
    pub async fn waiting_for(
        &self,
        tenant: TenantId,
        run: RunId,
        limit: u32,
    ) -> Result<Vec<QueuedJob>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"
            -- reservations.waiting_for
            SELECT runs.tenant_id, runs.id, runs.lane AS "lane!", runs.queued_at, runs.published_at
            FROM reservations ended
            JOIN reservations r ON r.tenant_id = ended.tenant_id AND r.limits_of = ended.limits_of
             AND r.month = ended.month AND r.running AND r.waiting_tokens > 0
            JOIN runs ON runs.tenant_id = r.tenant_id AND runs.id = r.run_id
             AND runs.status = 'queued'
            WHERE ended.tenant_id = $1 AND ended.run_id = $2
            ORDER BY runs.queued_at
            LIMIT $3
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            int8(u64::from(limit)),
        )
        .fetch_all(self.pool)
        .await?
        .into_iter()
        .map(Row::read)
        .collect()
    }

    async fn try_begin_turn(
        &self,
        fence: &Fence,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, FenceError> {
        let row = sqlx::query!(
            r#"
            -- reservations.begin_turn
            WITH held AS (
                -- Locked and not written: nothing is confirmed to the holder by it.
                SELECT tenant_id, id, api_key_id, (created_at AT TIME ZONE 'UTC')::date AS day
                FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                FOR NO KEY UPDATE
            ), mine AS (
                SELECT r.limits_of, r.month, r.reserved_tokens, r.reserved_nanos, r.lost_tokens,
                       r.lost_nanos, r.open_tokens, r.open_nanos, r.open_step, r.open_attempt,
                       held.day, held.api_key_id
                FROM held JOIN reservations r
                  ON r.tenant_id = held.tenant_id AND r.run_id = held.id
                FOR NO KEY UPDATE OF r
            ), month AS (
                SELECT m.spent_tokens, m.spent_nanos, m.reserved_tokens, m.reserved_nanos
                FROM mine JOIN key_months m
                  ON m.tenant_id = $1 AND m.limits_of = mine.limits_of AND m.month = mine.month
                FOR NO KEY UPDATE OF m
            ), entered AS (
                SELECT coalesce(sum(e.input_tokens + e.output_tokens), 0)::bigint AS tokens,
                       coalesce(sum(e.cost_nanos), 0)::bigint AS nanos,
                       coalesce(bool_or(e.step = mine.open_step), false) AS recorded
                FROM mine JOIN usage_entries e
                  ON e.tenant_id = $1 AND e.run_id = $2 AND e.day = mine.day
            ), lost AS (
                SELECT mine.lost_tokens + CASE WHEN gone THEN mine.open_tokens ELSE 0 END AS tokens,
                       mine.lost_nanos + CASE WHEN gone THEN mine.open_nanos ELSE 0 END AS nanos
                FROM mine, entered, LATERAL (
                    SELECT mine.open_step IS NOT NULL AND NOT entered.recorded
                           AND (mine.open_step, mine.open_attempt) <> ($5, $3) AS gone
                ) AS turn
            ), used AS (
                SELECT lost.tokens + entered.tokens AS tokens, lost.nanos + entered.nanos AS nanos
                FROM lost, entered
            ), stood AS (
                SELECT k.monthly_tokens - month.spent_tokens
                           - (month.reserved_tokens - mine.reserved_tokens) - used.tokens
                           AS left_tokens,
                       least(k.monthly_cost_micros, 9223372036854775) * 1000 - month.spent_nanos
                           - (month.reserved_nanos - mine.reserved_nanos) - used.nanos
                           AS left_nanos
                FROM mine, month, used, api_keys k
                WHERE k.tenant_id = $1 AND k.id = mine.api_key_id
            ), granted AS (
                SELECT left_tokens,
                       CASE WHEN answer >= $9 THEN answer END AS answer,
                       CASE WHEN answer >= $9 THEN $6 + answer ELSE 0 END AS tokens,
                       CASE WHEN answer >= $9
                            THEN $7 + ceil(answer::numeric * $10 / 1000)::bigint ELSE 0 END AS nanos
                FROM stood, LATERAL (
                    SELECT answer_within(left_tokens, left_nanos, $6, $7, $8, $10) AS answer
                ) AS within
            ), moved AS (
                UPDATE key_months SET
                    reserved_tokens = key_months.reserved_tokens - mine.reserved_tokens
                                      + used.tokens + granted.tokens,
                    reserved_nanos = key_months.reserved_nanos - mine.reserved_nanos
                                     + used.nanos + granted.nanos
                FROM mine, used, granted
                WHERE key_months.tenant_id = $1 AND key_months.limits_of = mine.limits_of
                  AND key_months.month = mine.month
            ), noted AS (
                UPDATE reservations SET
                    reserved_tokens = used.tokens + granted.tokens,
                    reserved_nanos = used.nanos + granted.nanos,
                    lost_tokens = lost.tokens,
                    lost_nanos = lost.nanos,
                    open_tokens = granted.tokens,
                    open_nanos = granted.nanos,
                    open_step = CASE WHEN granted.answer IS NOT NULL THEN $5 END,
                    open_attempt = $3,
                    waiting_tokens = 0,
                    waiting_nanos = 0
                FROM lost, used, granted
                WHERE reservations.tenant_id = $1 AND reservations.run_id = $2
            )
            SELECT answer, coalesce(left_tokens < $6 + $9, false) AS "of_tokens!" FROM granted
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(step),
            wish.tokens_before(),
            wish.nanos_before(),
            int8(wish.answer_tokens),
            int8(wish.least_answer),
            wish.picos_per_token(),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        Ok(match row.answer {
            Some(answer) => TurnGrant::Granted {
                answer_tokens: columns::number(answer),
            },
            None if row.of_tokens => TurnGrant::Refused(Budget::Tokens),
            None => TurnGrant::Refused(Budget::Cost),
        })
    }

    /// Lowers the reservation of a turn that was begun and will not be recorded to the most that it
    /// can have used. Changes nothing if this attempt has not begun this turn.
    pub async fn lower_turn(
        &self,
        fence: &Fence,
        step: u32,
        tokens: u64,
        nanos: u64,
    ) -> Result<(), FenceError> {
        sqlx::query!(
            "
            -- reservations.lower_turn
            WITH held AS (
                SELECT tenant_id, id FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                FOR NO KEY UPDATE
            )
            UPDATE reservations SET
                open_tokens = least(open_tokens, $6),
                open_nanos = least(open_nanos, $7)
            FROM held
            WHERE reservations.tenant_id = held.tenant_id AND reservations.run_id = held.id
              AND open_step = $5 AND open_attempt = $3
            ",
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(step),
            int8(tokens),
            int8(nanos),
        )
        .execute(self.pool)
        .await?;
        Ok(())
    }
}
