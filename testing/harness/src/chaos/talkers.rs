//! Talkers: clients that share threads, under every rule for a busy one, and send messages to runs that
//! work. [`crate::checker`] compares the threads with their runs when all is quiet.
//!
//! They have a tenant of their own, so that its runs are few enough to be read as a whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_protocol::{MessageId, RunId, ThreadId};
use baton_service::{Clock as _, SystemClock};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::load::{Load, code_of, whole};
use super::outside::Prompt;
use crate::checker::{SentMessage, TalkMessage, TalkRun, TalkThread, What};
use crate::client::Client;

/// The rules for a busy thread.
const RULES: [&str; 5] = ["reject", "queue", "interrupt", "rollback", "steer"];
/// The kinds of actions of talkers; each is counted by its name.
pub const DOINGS: [&str; 6] = [
    "run on a thread: reject",
    "run on a thread: queue",
    "run on a thread: interrupt",
    "run on a thread: rollback",
    "run on a thread: steer",
    "message to a run",
];
/// The most messages of a thread that talkers go on with; every run begins with all of them.
const LONG: usize = 60;
/// The number of threads that are talked on at a time.
const THREADS: usize = 4;
/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(150);

/// The talkers' common state.
#[derive(Debug)]
pub struct Talkers {
    /// The state that all clients share.
    pub load: Arc<Load>,
    /// The key of their tenant.
    pub key: String,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    /// Every thread, with the number of messages that were sent to it.
    all: Vec<(ThreadId, usize)>,
    /// The newest run of any thread, which may still work.
    newest: Option<RunId>,
}

impl Talkers {
    /// Makes talkers that have not talked yet.
    pub fn new(load: Arc<Load>, key: String) -> Self {
        Self {
            load,
            key,
            threads: Mutex::default(),
        }
    }

    /// Talks until it is stopped.
    pub async fn live(self: Arc<Self>, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let living = async {
            loop {
                if random.random_bool(0.3) {
                    self.steer(&mut random).await;
                } else {
                    self.talk(&mut random).await;
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
            }
        };
        stop.run_until_cancelled(living).await;
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prompt(&self, random: &mut StdRng) -> Prompt {
        Prompt {
            id: self.load.fresh(),
            words: random.random_range(6..30),
            gap_ms: 20,
            tool_turns: 0,
        }
    }

    /// Makes a run on a thread, or sends its message to the one that works.
    async fn talk(&self, random: &mut StdRng) {
        let Some(thread) = self.thread(random).await else {
            return;
        };
        let rule = random.random_range(0..RULES.len());
        let prompt = self.prompt(random);
        let body = json!({
            "model": "chaos", "input": prompt.text(), "thread_id": thread,
            "on_busy": RULES[rule], "metadata": {"on_busy": RULES[rule]},
        });
        let key = format!("talk-{}", prompt.id);
        let headers = [("idempotency-key", &*key)];
        let answer = self
            .ask(random, Method::POST, "/v1/runs", &headers, &body)
            .await;
        if let Some(run) = answer.and_then(|answer| answer["id"].as_str()?.parse().ok()) {
            self.threads().newest = Some(run);
            self.said(run, &prompt, DOINGS[rule]);
        }
    }

    /// Sends a message to the newest run, and sometimes cancels that instead.
    async fn steer(&self, random: &mut StdRng) {
        let Some(run) = self.threads().newest else {
            return;
        };
        if random.random_bool(0.2) {
            let path = format!("/v1/runs/{run}/cancel");
            self.ask(random, Method::POST, &path, &[], &Value::Null)
                .await;
            return;
        }
        let prompt = self.prompt(random);
        let id = MessageId::new(SystemClock.now());
        let body = json!({"content": prompt.text(), "id": id});
        let path = format!("/v1/runs/{run}/messages");
        let sent = self.ask(random, Method::POST, &path, &[], &body).await;
        if sent.is_some() {
            self.said(run, &prompt, DOINGS[5]);
        }
    }

    fn said(&self, run: RunId, prompt: &Prompt, did: &str) {
        let text = prompt.text();
        self.load.recorder.note(What::Said { run, text });
        let kind = did.to_owned();
        self.load.recorder.note(What::Did { kind });
    }

    /// Returns a thread to talk on, which may be new.
    async fn thread(&self, random: &mut StdRng) -> Option<ThreadId> {
        {
            let mut threads = self.threads();
            let from = threads.all.len().saturating_sub(THREADS);
            let usable = threads.all[from..].iter_mut();
            let mut usable: Vec<_> = usable.filter(|(_, count)| *count < LONG).collect();
            if usable.len() == THREADS {
                let (thread, count) = &mut *usable[random.random_range(0..THREADS)];
                // The message, and its answer.
                *count += 2;
                return Some(*thread);
            }
        }
        let made = json!({"title": "talk"});
        let made = self
            .ask(random, Method::POST, "/v1/threads", &[], &made)
            .await?;
        let thread = made["id"].as_str()?.parse().ok()?;
        self.threads().all.push((thread, 2));
        Some(thread)
    }

    /// Repeats a request until it is answered for good; returns the answer unless it is a refusal.
    async fn ask(
        &self,
        random: &mut StdRng,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Value> {
        loop {
            let server = self.load.server(random.random()).with_key(&self.key);
            let body = Some(body).filter(|body| !body.is_null());
            match whole(server.send(method.clone(), path, headers, body)).await {
                Ok((status, answer)) if status.is_success() => return Some(answer),
                Ok((status, answer)) => {
                    self.load.refused(status, code_of(&answer));
                    let is_final = status.is_client_error()
                        && status != StatusCode::TOO_MANY_REQUESTS
                        && status != StatusCode::REQUEST_TIMEOUT;
                    if is_final {
                        return None;
                    }
                }
                Err(_) => self.load.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Records all threads and their runs, once all is quiet.
    pub async fn record(&self) -> anyhow::Result<()> {
        let client = self.load.clients[0].with_key(&self.key);
        for thread in all(&client, "/v1/threads?limit=100").await? {
            let id: ThreadId = id_of(&thread)?;
            let path = format!("/v1/threads/{id}/messages?limit=100");
            let messages = all(&client, &path).await?;
            let messages = messages.iter().map(|message| TalkMessage {
                run: message["run_id"].as_str().and_then(|run| run.parse().ok()),
                text: text_of(&message["message"]),
            });
            let messages = messages.collect();
            let thread = TalkThread { id, messages };
            self.load.recorder.note(What::Thread(thread));
        }
        for run in all(&client, "/v1/runs?limit=100").await? {
            let id: RunId = id_of(&run)?;
            let run = get(&client, &format!("/v1/runs/{id}")).await?;
            let path = format!("/v1/runs/{id}/messages?limit=100");
            let sent = all(&client, &path).await?;
            let texts = |messages: &Value| {
                let messages = messages.as_array().into_iter().flatten();
                messages.map(text_of).collect()
            };
            let thread = run["thread_id"]
                .as_str()
                .context("a run without a thread")?;
            let cancelled = &run["error"]["message"];
            let run = TalkRun {
                id,
                thread: thread.parse()?,
                status: serde_json::from_value(run["status"].clone())?,
                begun: !run["started_at"].is_null(),
                reason: cancelled.as_str().map(str::to_owned),
                rolls_back: run["metadata"]["on_busy"] == "rollback",
                input: texts(&run["input"]),
                output: texts(&run["output"]),
                sent: sent
                    .iter()
                    .map(|sent| SentMessage {
                        status: sent["status"].as_str().unwrap_or_default().to_owned(),
                        text: text_of(&sent["message"]),
                    })
                    .collect(),
            };
            self.load.recorder.note(What::ThreadRun(run));
        }
        Ok(())
    }

    /// Returns a client of their tenant.
    pub fn client(&self) -> Client {
        self.load.clients[0].with_key(&self.key)
    }
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

fn text_of(message: &Value) -> String {
    message["content"].as_str().unwrap_or_default().to_owned()
}
