//! The table `usage_entries`: the tokens and costs of turns. Its rows are written where turns are
//! recorded.

use baton_protocol::{ApiKeyId, Nanos, RunId, TenantId};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::columns::{self, int8};
use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The entries to add up, and the grouping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageFilter {
    /// The first day, UTC.
    pub from: NaiveDate,
    /// The last day, UTC.
    pub to: NaiveDate,
    /// The grouping; without any there is one sum.
    pub by: UsageGroups,
}

/// The attributes that sums are grouped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageGroups {
    /// The day on which a run was accepted, UTC.
    pub day: bool,
    /// The key that a run was submitted with.
    pub key: bool,
    /// The upstream's model.
    pub model: bool,
}

/// The values of one group. Attributes without grouping have the same value in all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageGroup {
    /// The day.
    pub day: NaiveDate,
    /// The key; nil for runs without one.
    pub key: Uuid,
    /// The model.
    pub model: String,
}

/// The owner of the runs in a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBearer {
    /// The runs with this key.
    Key(ApiKeyId),
    /// The runs without a key.
    People,
}

/// A sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// The day, if grouped by it.
    pub day: Option<NaiveDate>,
    /// The key or the people, if grouped by it.
    pub key: Option<UsageBearer>,
    /// The model, if grouped by it.
    pub model: Option<String>,
    /// Runs that asked a model.
    pub runs: u64,
    /// Model turns.
    pub turns: u64,
    /// Turns with an estimated number of tokens.
    pub estimated_turns: u64,
    /// Tokens that models read.
    pub input_tokens: u64,
    /// Those of them that the upstream had in its cache.
    pub cached_tokens: u64,
    /// Tokens that models wrote.
    pub output_tokens: u64,
    /// The cost, as far as there were prices.
    pub cost: Nanos,
    /// Turns with models without a price.
    pub unpriced_turns: u64,
}

/// A page of sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePage {
    /// The sums.
    pub data: Vec<UsageSum>,
    /// The group of the last sum; `None` on the last page.
    pub next_cursor: Option<UsageGroup>,
}

/// The cost of a run's recorded turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCost {
    /// The cost of the turns with a price.
    pub cost: Nanos,
    /// The turns without one.
    pub unpriced_turns: u64,
}

async fn cost_of_run(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    run: RunId,
    accepted_at: DateTime<Utc>,
) -> Result<RunCost, StoreError> {
    let row = sqlx::query!(
        r#"
        -- usage.of_run
        SELECT coalesce(sum(cost_nanos), 0)::bigint AS "nanos!",
               count(*) FILTER (WHERE cost_nanos IS NULL) AS "unpriced!"
        FROM usage_entries
        WHERE tenant_id = $1 AND run_id = $2 AND day = ($3::timestamptz AT TIME ZONE 'UTC')::date
        "#,
        tenant.as_uuid(),
        run.as_uuid(),
        accepted_at,
    )
    .fetch_one(executor)
    .await?;
    Ok(RunCost {
        cost: Nanos(columns::number(row.nanos)),
        unpriced_turns: columns::number(row.unpriced),
    })
}

impl SystemTx<'_> {
    /// Returns the cost of a run's recorded turns; turns without a price count nothing.
    pub async fn run_cost(
        &self,
        tenant: TenantId,
        run: RunId,
        accepted_at: DateTime<Utc>,
    ) -> Result<Nanos, StoreError> {
        let cost = cost_of_run(self.pool, tenant, run, accepted_at).await?;
        Ok(cost.cost)
    }
}

impl TenantTx {
    /// Returns the cost of a run's recorded turns.
    pub async fn run_cost(
        &mut self,
        run: RunId,
        accepted_at: DateTime<Utc>,
    ) -> Result<RunCost, StoreError> {
        let tenant = self.tenant;
        cost_of_run(self.connection(), tenant, run, accepted_at).await
    }

    /// Returns the usage of this tenant, in the order of day, key and model: at most `limit` sums
    /// after the group `after`.
    pub async fn usage(
        &mut self,
        filter: &UsageFilter,
        after: Option<&UsageGroup>,
        limit: u32,
    ) -> Result<UsagePage, StoreError> {
        let tenant = self.tenant;
        let UsageGroups { day, key, model } = filter.by;
        let mut rows = sqlx::query!(
            r#"
            -- usage_entries.sum
            SELECT * FROM (
                SELECT CASE WHEN $4 THEN day ELSE $2 END AS "day!",
                       CASE WHEN $5 THEN coalesce(api_key_id, $7) ELSE $7 END AS "key!",
                       CASE WHEN $6 THEN model ELSE '' END AS "model!",
                       count(*) FILTER (WHERE step = 1) AS "runs!",
                       count(*) AS "turns!",
                       count(*) FILTER (WHERE estimated) AS "estimated_turns!",
                       sum(input_tokens)::bigint AS "input_tokens!",
                       sum(cached_tokens)::bigint AS "cached_tokens!",
                       sum(output_tokens)::bigint AS "output_tokens!",
                       coalesce(sum(cost_nanos), 0)::bigint AS "cost_nanos!",
                       count(*) - count(cost_nanos) AS "unpriced_turns!"
                FROM usage_entries
                WHERE tenant_id = $1 AND day BETWEEN greatest($2::date, $8) AND $3
                GROUP BY 1, 2, 3
            ) AS sums
            WHERE $8::date IS NULL OR ("day!", "key!", "model!") > ($8, $9::uuid, $10::text)
            ORDER BY 1, 2, 3
            LIMIT $11
            "#,
            tenant.as_uuid(),
            filter.from,
            filter.to,
            day,
            key,
            model,
            Uuid::nil(),
            after.map(|after| after.day),
            after.map(|after| after.key),
            columns::optional_text(after.map(|after| after.model.as_str())),
            int8(u64::from(limit) + 1),
        )
        .fetch_all(self.connection())
        .await?;
        let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        if more {
            rows.pop();
        }
        let next_cursor = rows.last().filter(|_| more).map(|last| UsageGroup {
            day: last.day,
            key: last.key,
            model: last.model.clone(),
        });
        let sum = |number| columns::number(number);
        let data = rows.into_iter().map(|row| UsageSum {
            day: day.then_some(row.day),
            key: key.then(|| match row.key {
                nobody if nobody.is_nil() => UsageBearer::People,
                key => UsageBearer::Key(ApiKeyId::from_uuid(key)),
            }),
            model: model.then_some(row.model),
            runs: sum(row.runs),
            turns: sum(row.turns),
            estimated_turns: sum(row.estimated_turns),
            input_tokens: sum(row.input_tokens),
            cached_tokens: sum(row.cached_tokens),
            output_tokens: sum(row.output_tokens),
            cost: Nanos(sum(row.cost_nanos)),
            unpriced_turns: sum(row.unpriced_turns),
        });
        Ok(UsagePage {
            data: data.collect(),
            next_cursor,
        })
    }
}
