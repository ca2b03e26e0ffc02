//! The tables `reservations` and `key_months`: the use that runs make of the limits of their keys.
//!
//! Only keys with limits of runs or budgets have rows here. The row of the key is locked while one
//! of its runs is accepted, so that the counts stay true until they include that run. The row of a
//! month is locked by every statement that takes from the budget or gives back. The order of locks
//! is: key or run, reservation, month.
//!
//! A trigger settles a run's reservation when the run ends, no matter which statement ends it: see
//! `migrations/0032_budgets.sql`.

mod turns;

use baton_protocol::{ApiKeyId, Nanos};
use chrono::{Months, NaiveDate};
use uuid::Uuid;

use crate::budget::{Budget, Room, TurnWish};
use crate::columns::{self, int8};
use crate::errors::StoreError;
use crate::runs::new_run::{NewRun, Refusal};
use crate::tenant_tx::TenantTx;

/// The current use of a key's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsage {
    /// The key. Keys that were rotated into one another have the same figures.
    pub key: ApiKeyId,
    /// Its runs that are queued or running.
    pub running: u64,
    /// The first day of this month, UTC.
    pub month: NaiveDate,
    /// Tokens that the ended runs of this month used up.
    pub spent_tokens: u64,
    /// Tokens that its other runs have used up or may use up.
    pub reserved_tokens: u64,
    /// The cost of the spent tokens.
    pub spent: Nanos,
    /// The cost of the reserved tokens.
    pub reserved: Nanos,
}

/// The locked limits of a key, with the run's share of them.
pub(crate) struct Standing {
    /// The id of the locked row: the first of the keys that were rotated into one another.
    limits_of: Uuid,
    taken: Option<Taken>,
}

/// A run's share of a month's budgets.
struct Taken {
    month: NaiveDate,
    tokens: i64,
    nanos: i64,
}

impl TenantTx {
    /// Locks the limits of the run's key and checks the run against them. Returns the refusal if
    /// the run exceeds them.
    pub(crate) async fn stand(
        &mut self,
        key: ApiKeyId,
        first_turn: &TurnWish,
    ) -> Result<Result<Standing, Refusal>, StoreError> {
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
        // These are separate statements, because only a new snapshot shows the commits that came
        // while the lock was waited for.
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
                return Ok(Err(Refusal::TooManyRuns { limit }));
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
            ), waiting AS (
                -- Runs that were accepted before have what they wait for.
                SELECT coalesce(sum(waiting_tokens), 0)::bigint AS tokens,
                       coalesce(sum(waiting_nanos), 0)::bigint AS nanos
                FROM reservations
                WHERE tenant_id = $1 AND limits_of = $2 AND month = $3 AND running
                  AND waiting_tokens > 0
            ), stood AS (
                SELECT $4::bigint - coalesce(spent_tokens, 0) AS unspent_tokens,
                       $5::bigint - coalesce(spent_nanos, 0) AS unspent_nanos,
                       coalesce(reserved_tokens, 0) + waiting.tokens AS reserved_tokens,
                       coalesce(reserved_nanos, 0) + waiting.nanos AS reserved_nanos
                FROM waiting LEFT JOIN month ON true
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
            first_turn.nanos_before(),
            int8(first_turn.answer_tokens),
            first_turn.picos_per_token(),
        )
        .fetch_one(self.connection())
        .await?;
        let least = int8(first_turn.least_answer);
        let room = Room {
            now: month.answer,
            if_settled: month.answer_if_settled,
        };
        // Reservations of other runs never shorten an answer.
        if room.is_reserved(first_turn) {
            return Ok(Err(Refusal::BudgetReserved));
        }
        if month.answer < least {
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
            return Ok(Err(Refusal::BudgetExceeded {
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

    /// Returns the current use of those keys of this tenant that have limits of runs or budgets.
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

    /// Stores the reservation of the run, which has just been inserted.
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
