//! `baton runs timeline`: the timeline of a run, as `GET /v1/runs/{id}/timeline` shows it.

use anyhow::anyhow;
use baton_protocol::{RunId, TurnRoute};
use baton_store::{AttemptEnding, Store, Timeline, TimelineData, TimelineEntry};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;

use crate::args::ConfigArgs;
use crate::config_command::print;
use crate::ledger;
use crate::visible::visible;

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Print a run's waits, attempts, turns, calls and questions with their times, tokens and cost
    ///
    /// Each line begins with the time and the duration. Nothing of messages, arguments or results is shown.
    Timeline {
        /// The run's id, of any tenant
        id: baton_protocol::RunId,
    },
}

pub(crate) async fn run(command: RunsCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    let RunsCommand::Timeline { id } = command;
    ledger::work_at(args, async |_, store| {
        let timeline = read(store, id).await?;
        for line in lines(&timeline) {
            print(&line)?;
        }
        Ok(())
    })
    .await
}

async fn read(store: &Store, run: RunId) -> anyhow::Result<Timeline> {
    let no_such_run = || anyhow!("there is no run with the id {run}: see `GET /v1/runs`");
    let tenant = store.system().tenant_of_run(run).await?;
    let mut tx = store.tenant(tenant.ok_or_else(no_such_run)?).await?;
    tx.timeline(run).await?.ok_or_else(no_such_run)
}

fn lines(timeline: &Timeline) -> Vec<String> {
    let code = timeline.error_code.as_deref();
    let trace = timeline.trace_id();
    let head = format!(
        "{}  {}{}{}",
        timeline.run,
        timeline.status.as_str(),
        code.map_or_else(String::new, |code| format!(" ({})", visible(code))),
        trace.map_or_else(String::new, |trace| format!("  trace {}", visible(trace))),
    );
    let entries = timeline.entries.iter().map(line);
    std::iter::once(head).chain(entries).collect()
}

fn line(entry: &TimelineEntry) -> String {
    format!(
        "{}  {:>9}  {}",
        entry.began_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        match entry.ended_at {
            Some(ended_at) => lasted(entry.began_at, ended_at),
            None => "…".to_owned(),
        },
        words(entry),
    )
}

fn lasted(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let millis = (to - from).num_milliseconds();
    if millis < 10_000 {
        format!("{millis} ms")
    } else {
        format!("{} s", millis / 1_000)
    }
}

/// Returns the words about an upstream that was not the first to be asked.
fn way(route: &TurnRoute) -> String {
    let left = route.left.iter();
    let left = left.map(|left| format!("{} ({})", visible(&left.upstream), left.reason));
    let left: Vec<_> = left.collect();
    format!(
        "  by {} after {}",
        visible(&route.upstream),
        left.join(", ")
    )
}

fn words(entry: &TimelineEntry) -> String {
    match &entry.data {
        TimelineData::Queued { lane } => format!("queued    {}", lane.as_str()),
        TimelineData::Attempt {
            attempt,
            worker,
            ending,
        } => format!(
            "attempt   {attempt}  {}  worker {}",
            ending.map_or("-", AttemptEnding::as_str),
            worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string()),
        ),
        TimelineData::Turn {
            step,
            attempt: _,
            model,
            first_token_at,
            finish_reason,
            usage,
            cached_tokens,
            cost,
            route,
        } => format!(
            "turn      {step}  {}  {}  first token {}  {} in ({cached_tokens} cached)  {} out  cost {}{}",
            visible(model.as_deref().unwrap_or("-")),
            finish_reason.map_or("broken off", |reason| reason.as_str()),
            first_token_at.map_or_else(|| "-".to_owned(), |at| lasted(entry.began_at, at)),
            usage.prompt_tokens,
            usage.completion_tokens,
            cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string()),
            route.as_ref().map_or_else(String::new, way),
        ),
        TimelineData::Compaction {
            step,
            attempt: _,
            model,
            usage,
            cost,
            route,
        } => format!(
            "summary   {step}  {}  {} in  {} out  cost {}{}",
            visible(model.as_deref().unwrap_or("-")),
            usage.prompt_tokens,
            usage.completion_tokens,
            cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string()),
            route.as_ref().map_or_else(String::new, way),
        ),
        TimelineData::Call {
            step,
            attempt: _,
            call_id,
            name,
            state,
            ok,
        } => format!(
            "call      {step}  {}  {}  {}",
            visible(name),
            match ok {
                Some(true) => "ok",
                Some(false) => "failed",
                None => state.as_str(),
            },
            visible(call_id),
        ),
        TimelineData::Approval {
            id,
            step,
            reason: _,
            decision,
            edited,
        } => format!(
            "approval  {step}  {}{}  {id}",
            decision.unwrap_or("open"),
            if *edited { " (edited)" } else { "" },
        ),
        TimelineData::Cancel { reason } => format!("cancel    {}", visible(reason)),
    }
}
