//! Records all threads of the talkers and their runs, once all is quiet.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_protocol::{RunId, ThreadId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::Talkers;
use crate::chaos::outside::{ASKER, TALK, TITLER};
use crate::checker::{SentMessage, TalkMessage, TalkRun, TalkThread, TalkTitle, What};
use crate::client::Client;

/// The looks for titles that are still to come, a second apart.
const TITLE_LOOKS: usize = 10;

/// The times of a run.
#[derive(Deserialize)]
struct Times {
    #[serde(rename = "created_at")]
    accepted: DateTime<Utc>,
    #[serde(rename = "started_at")]
    began: Option<DateTime<Utc>>,
    #[serde(rename = "finished_at")]
    ended: Option<DateTime<Utc>>,
}

impl Talkers {
    /// Records all threads and their runs, once all is quiet.
    pub async fn record(&self, client: &Client) -> anyhow::Result<()> {
        for thread in self.titled(client).await? {
            let id: ThreadId = id_of(&thread)?;
            let path = format!("/v1/threads/{id}/messages?limit=100");
            let messages = all(client, &path).await?;
            let messages = messages.iter().map(|message| TalkMessage {
                run: message["run_id"].as_str().and_then(|run| run.parse().ok()),
                text: text_of(&message["message"]),
            });
            let messages = messages.collect();
            let title = title_of(&thread);
            let thread = TalkThread {
                id,
                messages,
                title,
            };
            self.load.recorder.note(What::Thread(thread));
        }
        for run in all(client, "/v1/runs?limit=100").await? {
            let id = id_of(&run)?;
            // Responses that ask are on no thread, and neither is a run for a title.
            if run["model"] == ASKER || run["model"] == TITLER {
                continue;
            }
            let run = read_run(client, id).await?;
            self.load.recorder.note(What::ThreadRun(run));
        }
        Ok(())
    }

    /// Returns all threads, once the scheduler has used the answers of the runs that were to title them; it
    /// looks each second. A title may stay away, because its run failed.
    async fn titled(&self, client: &Client) -> anyhow::Result<Vec<Value>> {
        for _ in 0..TITLE_LOOKS {
            let threads = all(client, "/v1/threads?limit=100").await?;
            let waits =
                |thread: &Value| thread["title"].is_null() && thread["title_model"].is_null();
            if !threads.iter().any(waits) {
                return Ok(threads);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        all(client, "/v1/threads?limit=100").await
    }
}

/// Returns the title of a thread, as the list of threads has it.
fn title_of(thread: &Value) -> TalkTitle {
    let title = thread["title"].as_str();
    TalkTitle {
        by_model: title.filter(|title| *title != TALK).map(str::to_owned),
        is_given: title == Some(TALK),
        is_wished: !thread["title_model"].is_null(),
    }
}

async fn read_run(client: &Client, id: RunId) -> anyhow::Result<TalkRun> {
    let run = get(client, &format!("/v1/runs/{id}")).await?;
    let sent = all(client, &format!("/v1/runs/{id}/messages?limit=100")).await?;
    let times: Times = serde_json::from_value(run.clone())
        .with_context(|| format!("the times of run {id} are not as expected"))?;
    let texts = |messages: &Value| {
        let messages = messages.as_array().into_iter().flatten();
        messages.map(text_of).collect()
    };
    let output = run["output"].as_array().into_iter().flatten().enumerate();
    let answers = output.filter(|(_, message)| message["role"] == "assistant");
    let thread = run["thread_id"].as_str();
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Ok(TalkRun {
        id,
        thread: thread.context("a run without a thread")?.parse()?,
        status: serde_json::from_value(run["status"].clone())?,
        accepted: times.accepted,
        began: times.began,
        ended: times.ended,
        reason: word(&run["error"]["message"]),
        rule: word(&run["metadata"]["on_busy"]),
        input: texts(&run["input"]),
        output: texts(&run["output"]),
        answers: answers.map(|(place, _)| place).collect(),
        sent: sent.iter().map(read_sent).collect::<Result<_, _>>()?,
    })
}

fn read_sent(sent: &Value) -> anyhow::Result<SentMessage> {
    let step = sent["step"].as_u64().map(u32::try_from);
    Ok(SentMessage {
        id: id_of(sent)?,
        status: sent["status"].as_str().unwrap_or_default().to_owned(),
        step: step.transpose()?,
        text: text_of(&sent["message"]),
    })
}

async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    let answer = client.get(path).await?;
    if answer.status != 200 {
        bail!("{path}: {}", answer.status);
    }
    answer.json()
}

/// Reads all pages of a list.
async fn all(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = get(client, &format!("{path}{cursor}")).await?;
        let data = page["data"].as_array_mut().context("a page without data")?;
        read.append(data);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(read),
        }
    }
}

fn id_of<T: std::str::FromStr>(object: &Value) -> anyhow::Result<T> {
    let id = object["id"].as_str().and_then(|id| id.parse().ok());
    id.context("an object without an id")
}

/// Returns the text of a message of a talker or the model; empty for the result of a tool.
fn text_of(message: &Value) -> String {
    let is_result = message["role"] == "tool";
    let content = message["content"].as_str().filter(|_| !is_result);
    content.unwrap_or_default().to_owned()
}
