//! Resumes of a finished response: the time from the request to its next event.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::samples::Samples;

/// Answers with a pause after each token, so that each is an event of its own. Before its text the second one
/// shows reasoning, calls a tool of the server and shows reasoning again.
pub const MODELS: [(&str, &str); 2] = [
    ("bench-6000-4", "text alone"),
    ("bench-6000-4-agent", "text after reasoning and a tool"),
];
/// The event to resume after.
const AFTER: usize = 5_000;

/// The times of the resumes, and the event that they resume after.
#[derive(Debug)]
pub struct Resumes {
    /// One time for each resume.
    pub first_event: Samples,
    /// The number of the events before it.
    pub after: usize,
}

/// Makes one response of `model` and resumes it `times` times, over connections that are kept.
pub async fn measure(
    base_url: &str,
    api_key: &str,
    model: &str,
    times: usize,
) -> anyhow::Result<Resumes> {
    let client = Client::new();
    let signed = |request: RequestBuilder| request.bearer_auth(api_key);
    let wish = json!({"model": model, "input": "Count.", "background": true});
    let made = signed(client.post(format!("{base_url}/responses"))).json(&wish);
    let made: Value = made.send().await?.error_for_status()?.json().await?;
    let id = made["id"].as_str().context("the response has no id")?;
    let path = format!("{base_url}/responses/{id}");
    loop {
        let now = signed(client.get(&path)).send().await?.error_for_status()?;
        let now: Value = now.json().await?;
        match now["status"].as_str() {
            Some("queued" | "in_progress") => tokio::time::sleep(Duration::from_millis(200)).await,
            Some("completed") => break,
            _ => bail!("the response ended as {now}"),
        }
    }
    let whole = signed(client.get(format!("{path}?stream=true")))
        .send()
        .await?;
    let whole = whole.error_for_status()?.text().await?;
    let numbers: Vec<u64> = whole
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|event| event["sequence_number"].as_u64())
        .collect();
    // Tokens that arrive together are one event, so there may be fewer.
    let after = AFTER.min(numbers.len().saturating_sub(10));
    let number = numbers
        .get(after)
        .context("the response has too few events")?;
    let resumed = format!("{path}?stream=true&starting_after={number}");
    let mut first_event = Samples::default();
    for _ in 0..times {
        let begun = Instant::now();
        let mut answer = signed(client.get(&resumed))
            .send()
            .await?
            .error_for_status()?;
        let first = answer.chunk().await?;
        ensure!(
            first.is_some_and(|first| first.starts_with(b"event: ")),
            "a resumed stream has no event"
        );
        first_event.push(begun.elapsed());
        // To the end, so that the connection is kept.
        while answer.chunk().await?.is_some() {}
    }
    Ok(Resumes { first_event, after })
}
