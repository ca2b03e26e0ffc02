//! `baton usage`: prints the usage of a tenant's runs, as `GET /v1/usage` returns it.

use baton_service::{Clock as _, SystemClock};
use baton_store::{Store, UsageBearer, UsageFilter, UsageGroups, UsageSum};
use chrono::Days;
use clap::Args;

use crate::args::ConfigArgs;
use crate::config_command::print;
use crate::ledger;
use crate::visible::visible;

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The tenant's name or id
    #[arg(long, default_value = "default")]
    pub(crate) tenant: String,
    /// The first day, UTC, such as 2026-11-01; by default 29 days before the last
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<chrono::NaiveDate>,
    /// The last day, UTC; today by default
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<chrono::NaiveDate>,
    /// The grouping, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "day", value_parser = ["day", "key", "model"])]
    pub(crate) by: Vec<String>,
}

/// The default number of days before the last one.
const USUAL_DAYS: Days = Days::new(29);
/// The number of sums in one request.
const PAGE: u32 = 1_000;

pub(crate) async fn run(options: UsageArgs, args: &ConfigArgs) -> anyhow::Result<()> {
    ledger::work_at(args, async |_, store| show(options, store).await).await
}

async fn show(options: UsageArgs, store: &Store) -> anyhow::Result<()> {
    let tenant = ledger::find_tenant(store, &options.tenant).await?;
    let to = options.to.unwrap_or_else(|| SystemClock.now().date_naive());
    let from = options
        .from
        .or_else(|| to.checked_sub_days(USUAL_DAYS))
        .unwrap_or(to);
    let named = |name: &str| options.by.iter().any(|by| by == name);
    let filter = UsageFilter {
        from,
        to,
        by: UsageGroups {
            day: named("day"),
            key: named("key"),
            model: named("model"),
        },
    };
    let mut after = None;
    loop {
        let mut tx = store.tenant(tenant.id).await?;
        let page = tx.usage(&filter, after.as_ref(), PAGE).await?;
        tx.commit().await?;
        for sum in &page.data {
            print(&line(sum))?;
        }
        after = page.next_cursor;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn line(sum: &UsageSum) -> String {
    let mut words: Vec<String> = sum.day.iter().map(ToString::to_string).collect();
    words.extend(sum.key.map(|key| match key {
        UsageBearer::Key(key) => key.to_string(),
        UsageBearer::People => "people".to_owned(),
    }));
    words.extend(
        sum.model
            .as_deref()
            .map(|model| visible(model).into_owned()),
    );
    words.push(format!(
        "{} runs  {} in ({} cached)  {} out  cost {}",
        sum.runs, sum.input_tokens, sum.cached_tokens, sum.output_tokens, sum.cost
    ));
    if sum.unpriced_turns > 0 {
        words.push(format!("({} turns without a price)", sum.unpriced_turns));
    }
    words.join("  ")
}
