//! The tables `reservations` and `key_months`: what runs take of the limits of the key that they were
//! submitted with.
//!
//! Only keys that have such a limit come here. The row of the key is locked while one of its runs is
//! accepted, so that what is counted stays true until the run is among what is counted; the row of
//! its month is locked by whatever takes from the budget or gives back. They are locked in this order:
//! key or run, reservation, month.
//!
//! What a run holds of a budget is settled by a trigger when the run ends, whoever ends it: see
//! `migrations/0032_budgets.sql`.

use baton_protocol::{ApiKeyId, Fence, Nanos, Price};
use chrono::{Months, NaiveDate};
use uuid::Uuid;

use crate::columns::{self, int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::runs::accept::{Accept, NewRun};
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// What a turn of the model is to use up at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnWish {
    /// Tokens that the model reads, from above.
    pub prompt_tokens: u64,
    /// Tokens that it may write, if there are as many.
    pub answer_tokens: u64,
    /// Fewer are not worth the question.
    pub least_answer: u64,
    /// What they cost; without a price they are taken to cost nothing.
    pub price: Option<Price>,
}

impl TurnWish {
    fn prompt_nanos(&self) -> i64 {
        let price = self.price.map(|price| price.of(self.prompt_tokens, 0, 0));
        price.map_or(0, |nanos| int8(nanos.0))
    }

    fn picos_per_token(&self) -> i64 {
        self.price.map_or(0, |price| int8(price.output))
    }

    /// All that it costs with so long an answer.
    fn nanos(&self, answer: i64) -> i64 {
        let answer = columns::number(answer);
        let price = self.price.map(|price| price.of(0, 0, answer));
        self.prompt_nanos()
            .saturating_add(price.map_or(0, |nanos| int8(nanos.0)))
    }
}

/// A monthly budget of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Of tokens.
    Tokens,
    /// Of money.
    Cost,
}

impl Budget {
    /// Its name, for people.
    pub const fn of_what(self) -> &'static str {
        match self {
            Self::Tokens => "monthly budget of tokens",
            Self::Cost => "monthly budget of money",
        }
    }
}

/// What is taken of a key's limits at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsage {
    /// The key. Those that were rotated into one another have the same figures.
    pub key: ApiKeyId,
    /// Its runs that are queued or at work.
    pub running: u64,
    /// The first day of this month, UTC.
    pub month: NaiveDate,
    /// Tokens that runs of this month which have ended used up.
    pub spent_tokens: u64,
    /// Tokens that its other runs have used up or may use up.
    pub reserved_tokens: u64,
    /// The cost of the former.
    pub spent: Nanos,
    /// The cost of the latter.
    pub reserved: Nanos,
}

/// What a turn may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnGrant {
    /// So many tokens may be written, at most as many as were wished for.
    Granted {
        /// How many.
        answer_tokens: u64,
    },
    /// Too little is left.
    Refused(Budget),
}

/// A key's limits, locked, with what the run takes of them.
pub(crate) struct Standing {
    /// The key whose row is locked.
    limits_of: Uuid,
    taken: Option<Taken>,
}

/// What a run takes of a month.
struct Taken {
    month: NaiveDate,
    tokens: i64,
    nanos: i64,
}

impl TenantTx {
    /// Locks the limits of the run's key and looks whether the run stays within them; the refusal if
    /// it does not.
    pub(crate) async fn stand(
        &mut self,
        key: ApiKeyId,
        first_turn: &TurnWish,
    ) -> Result<Result<Standing, Accept>, StoreError> {
        let tenant = self.tenant;
        let limits = sqlx::query!(
            r#"
            -- reservations.lock
            SELECT root.id AS limits_of, asked.concurrent_runs, asked.monthly_tokens,
                   least(asked.monthly_cost_micros, 9223372036854775) * 1000 AS monthly_nanos,
                   date_trunc('month', today)::date AS "month!",
                   ceil(extract(epoch FROM date_trunc('month', today) + interval '1 month' - today))
                       ::integer AS "rest_of_month!"
            FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS today) AS clock, api_keys AS asked
            JOIN api_keys AS root
              ON root.tenant_id = asked.tenant_id AND root.id = coalesce(asked.limits_of, asked.id)
            WHERE asked.tenant_id = $1 AND asked.id = $2
            FOR NO KEY UPDATE OF root
            "#,
            tenant.as_uuid(),
            key.as_uuid(),
        )
        .fetch_one(self.connection())
        .await?;
        // Statements of their own: they see what was committed while the lock was waited for.
        if let Some(limit) = limits.concurrent_runs {
            let running = sqlx::query_scalar!(
                r#"
                -- reservations.running
                SELECT count(*) AS "running!" FROM (
                    SELECT FROM reservations
                    WHERE tenant_id = $1 AND limits_of = $2 AND running LIMIT $3
                ) AS counted
                "#,
                tenant.as_uuid(),
                limits.limits_of,
                i64::from(limit),
            )
            .fetch_one(self.connection())
            .await?;
            if running >= i64::from(limit) {
                let limit = columns::count(limit);
                return Ok(Err(Accept::TooManyRuns { limit }));
            }
        }
        let mut standing = Standing {
            limits_of: limits.limits_of,
            taken: None,
        };
        if limits.monthly_tokens.is_none() && limits.monthly_nanos.is_none() {
            return Ok(Ok(standing));
        }
        let month = sqlx::query!(
            r#"
            -- key_months.look
            WITH month AS (
                SELECT spent_tokens, reserved_tokens, spent_nanos, reserved_nanos FROM key_months
                WHERE tenant_id = $1 AND limits_of = $2 AND month = $3
                FOR NO KEY UPDATE
            ), stood AS (
                SELECT $4::bigint - coalesce(spent_tokens, 0) AS unspent_tokens,
                       $5::bigint - coalesce(spent_nanos, 0) AS unspent_nanos,
                       coalesce(reserved_tokens, 0) AS reserved_tokens,
                       coalesce(reserved_nanos, 0) AS reserved_nanos
                FROM (SELECT) AS always LEFT JOIN month ON true
            )
            SELECT unspent_tokens, unspent_nanos,
                   answer_within(unspent_tokens - reserved_tokens, unspent_nanos - reserved_nanos,
                                 $6, $7, $8, $9) AS "answer!",
                   answer_within(unspent_tokens, unspent_nanos, $6, $7, $8, $9)
                       AS "answer_if_settled!"
            FROM stood
            "#,
            tenant.as_uuid(),
            limits.limits_of,
            limits.month,
            limits.monthly_tokens,
            limits.monthly_nanos,
            int8(first_turn.prompt_tokens),
            first_turn.prompt_nanos(),
            int8(first_turn.answer_tokens),
            first_turn.picos_per_token(),
        )
        .fetch_one(self.connection())
        .await?;
        let least = int8(first_turn.least_answer);
        if month.answer < least {
            if month.answer_if_settled >= least {
                return Ok(Err(Accept::BudgetReserved));
            }
            let needed = int8(
                first_turn
                    .prompt_tokens
                    .saturating_add(first_turn.least_answer),
            );
            let budget = match month.unspent_tokens {
                Some(unspent) if unspent < needed => Budget::Tokens,
                _ => Budget::Cost,
            };
            let next_month = limits.month.checked_add_months(Months::new(1));
            return Ok(Err(Accept::BudgetExceeded {
                budget,
                until: next_month.unwrap_or(limits.month),
                seconds: columns::count(limits.rest_of_month),
            }));
        }
        standing.taken = Some(Taken {
            month: limits.month,
            tokens: int8(first_turn.prompt_tokens).saturating_add(month.answer),
            nanos: first_turn.nanos(month.answer),
        });
        Ok(Ok(standing))
    }

    /// What is taken of the limits of this tenant's keys, of those that have limits of runs or budgets.
    pub async fn key_usage(&mut self) -> Result<Vec<KeyUsage>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query!(
            r#"
            -- key_months.list
            SELECT k.id, this.month AS "month!",
                   (SELECT count(*) FROM reservations r
                    WHERE r.tenant_id = $1 AND r.limits_of = coalesce(k.limits_of, k.id)
                      AND r.running) AS "running!",
                   coalesce(m.spent_tokens, 0) AS "spent_tokens!",
                   coalesce(m.reserved_tokens, 0) AS "reserved_tokens!",
                   coalesce(m.spent_nanos, 0) AS "spent_nanos!",
                   coalesce(m.reserved_nanos, 0) AS "reserved_nanos!"
            FROM (SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date AS month)
                 AS this
            JOIN api_keys k ON k.tenant_id = $1
             AND num_nonnulls(k.concurrent_runs, k.monthly_tokens, k.monthly_cost_micros) > 0
            LEFT JOIN key_months m ON m.tenant_id = $1 AND m.month = this.month
             AND m.limits_of = coalesce(k.limits_of, k.id)
            ORDER BY k.id
            "#,
            tenant.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        let usage = rows.into_iter().map(|row| KeyUsage {
            key: ApiKeyId::from_uuid(row.id),
            running: columns::number(row.running),
            month: row.month,
            spent_tokens: columns::number(row.spent_tokens),
            reserved_tokens: columns::number(row.reserved_tokens),
            spent: Nanos(columns::number(row.spent_nanos)),
            reserved: Nanos(columns::number(row.reserved_nanos)),
        });
        Ok(usage.collect())
    }

    /// The run, which has just been inserted, takes its part.
    pub(crate) async fn reserve(
        &mut self,
        run: &NewRun<'_>,
        standing: &Standing,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant;
        let taken = standing.taken.as_ref();
        sqlx::query!(
            "
            -- reservations.make
            WITH taken AS (
                INSERT INTO key_months (tenant_id, limits_of, month, reserved_tokens,
                                        reserved_nanos)
                SELECT $1, $3, $4::date, $5, $6 WHERE $4 IS NOT NULL
                ON CONFLICT (tenant_id, limits_of, month) DO UPDATE SET
                    reserved_tokens = key_months.reserved_tokens + excluded.reserved_tokens,
                    reserved_nanos = key_months.reserved_nanos + excluded.reserved_nanos
            )
            INSERT INTO reservations (tenant_id, run_id, limits_of, month, reserved_tokens,
                                      reserved_nanos)
            VALUES ($1, $2, $3, $4::date, $5, $6)
            ",
            tenant.as_uuid(),
            run.id.as_uuid(),
            standing.limits_of,
            taken.map(|taken| taken.month),
            taken.map_or(0, |taken| taken.tokens),
            taken.map_or(0, |taken| taken.nanos),
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl SystemTx<'_> {
    /// Takes from the month of the run's key what a turn may use up, before the model is asked.
    /// What an earlier attempt had taken for a turn that it did not live to record is charged; what
    /// was taken beyond that is given back. Repeated after its answer was lost, it takes nothing more.
    pub async fn begin_turn(
        &self,
        fence: &Fence,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, FenceError> {
        #[cfg(feature = "chaos")]
        let fence = &self.whoever_holds(fence).await?;
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
                    open_attempt = $3
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
            int8(wish.prompt_tokens),
            wish.prompt_nanos(),
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

    /// Says that the turn that was begun, and of which nothing will be recorded, used up so much at
    /// most: less than all that was taken for it. Changes nothing if this attempt has begun no such
    /// turn.
    pub async fn lower_turn(
        &self,
        fence: &Fence,
        step: u32,
        tokens: u64,
        nanos: u64,
    ) -> Result<(), FenceError> {
        #[cfg(feature = "chaos")]
        let fence = &self.whoever_holds(fence).await?;
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
