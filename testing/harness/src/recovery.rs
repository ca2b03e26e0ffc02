//! Measures the time of a recovery: from a killed worker, a deploy, a lost ingress. The settings
//! are the default ones; the servers and processes are started for it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::client::{Client, EventStream};
use crate::samples::Samples;
use crate::scripted_model::{Piece, Recorded, Reply, Script, ScriptedModel};
use crate::stack::{Role, Stack, StackOptions};

/// A model with an answer that outlasts every measurement.
const LONG: &str = "long";
/// A model that calls a tool in every turn but the last.
const TURNS: &str = "turns";
/// The number of its turns; fewer than a run may have by default.
const TURN_COUNT: usize = 8;
/// The pause between two tokens.
const GAP: Duration = Duration::from_millis(20);
/// The number of active runs when a worker is asked to stop.
const LOAD: usize = 16;

/// The measured times.
#[derive(Debug, Default)]
pub struct Recovery {
    /// From the SIGKILL of a worker to the first event of its run's next attempt.
    pub takeover: Samples,
    /// From the SIGTERM of a worker under load to its end.
    pub drain: Samples,
    /// The longest silence of each stream from that SIGTERM on.
    pub pause: Samples,
    /// From the SIGKILL of an ingress to the next event at another.
    pub resume: Samples,
}

/// Measures each `repetitions` times.
pub async fn measure(baton: &Path, repetitions: usize) -> anyhow::Result<Recovery> {
    let model = ScriptedModel::start(Script::new(answer)).await?;
    let options = StackOptions {
        settings: vec![("RUST_LOG", "warn".to_owned())],
        own_postgres: true,
        ..StackOptions::new(std::path::absolute(baton)?, model.base_url())
    };
    let stack = Stack::start(options).await?;
    let _scheduler = stack.scheduler().await?;
    let ingress = stack.ingress().await?;
    let client = stack.client(&ingress);
    let mut recovery = Recovery::default();
    for _ in 0..repetitions {
        recovery.takeover.push(takeover(&stack, &client).await?);
        drain(&stack, &client, &mut recovery).await?;
        recovery.resume.push(resume(&stack, &client).await?);
    }
    Ok(recovery)
}

fn answer(request: &Recorded) -> Reply {
    let turns = request.body["messages"].as_array().map_or(0, |messages| {
        let answers = messages.iter().filter(|message| message["role"] == "tool");
        answers.count()
    });
    let words = |count: usize| (0..count).map(|word| Piece::Text(format!("{word} ")));
    let reply = match &*request.model {
        LONG => Reply::pieces(words(3_000)).ended("stop"),
        _ if turns + 1 < TURN_COUNT => {
            let call = Piece::ToolCall {
                index: 0,
                id: format!("call_{turns}"),
                name: "current_time".to_owned(),
                fragments: vec!["{}".to_owned()],
            };
            Reply::pieces(words(20).chain([call])).ended("tool_calls")
        }
        _ => Reply::pieces(words(20)).ended("stop"),
    };
    reply.each_after(GAP)
}

async fn begin(client: &Client, model: &str) -> anyhow::Result<(String, EventStream)> {
    let id = client
        .submit(&json!({"model": model, "input": "Please."}))
        .await?;
    let mut events = client.events(&id, None).await?;
    events.until("text.delta").await?;
    Ok((id, events))
}

async fn end(client: &Client, id: &str, worker: Role) -> anyhow::Result<()> {
    client.cancel(id).await?;
    client.ended(id).await?;
    worker.kill().await;
    Ok(())
}

async fn takeover(stack: &Stack, client: &Client) -> anyhow::Result<Duration> {
    let first = stack.worker().await?;
    let (id, mut events) = begin(client, LONG).await?;
    let second = stack.worker().await?;
    let killed = Instant::now();
    first.kill().await;
    events.until("attempt.reset").await?;
    let took = killed.elapsed();
    end(client, &id, second).await?;
    Ok(took)
}

async fn drain(stack: &Stack, client: &Client, recovery: &mut Recovery) -> anyhow::Result<()> {
    let mut first = stack.worker().await?;
    let runs = try_join_all((0..LOAD).map(|_| begin(client, TURNS))).await?;
    let second = stack.worker().await?;
    let told = Instant::now();
    first.terminate();
    let draining = async {
        let code = first.exit_code().await?;
        ensure!(code == 0, "the worker ended with {code}");
        Ok(told.elapsed())
    };
    let following = try_join_all(runs.into_iter().map(async |(_, mut events)| {
        let mut last = told;
        let mut longest = Duration::ZERO;
        while let Some(event) = events.next().await? {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if event.is_terminal() {
                ensure!(
                    event.kind == "run.completed",
                    "a run ended as {}",
                    event.kind
                );
                return Ok(longest);
            }
        }
        anyhow::bail!("a stream ended before its run")
    }));
    let (drained, pauses) = tokio::try_join!(draining, following)?;
    recovery.drain.push(drained);
    for pause in pauses {
        recovery.pause.push(pause);
    }
    second.kill().await;
    Ok(())
}

async fn resume(stack: &Stack, client: &Client) -> anyhow::Result<Duration> {
    let worker = stack.worker().await?;
    let ingress = stack.ingress().await?;
    let (id, events) = begin(&stack.client(&ingress), LONG).await?;
    let last = events.seen.last().context("no event was seen")?.id;
    drop(events);
    let lost = Instant::now();
    ingress.kill().await;
    let mut elsewhere = client.events(&id, Some(last)).await?;
    elsewhere.next().await?.context("the stream has ended")?;
    let took = lost.elapsed();
    end(client, &id, worker).await?;
    Ok(took)
}
