//! Clients that ask all the time, take what comes, and note it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_openai::SseDecoder;
use baton_protocol::{EventId, RunId, RunStatus};
use baton_service::{Clock as _, SystemClock};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::outside::Prompt;
use super::program::Program;
use super::record::Recorder;
use crate::checker::What;
use crate::client::{Client, Streamed};

/// How long the head of an answer is waited for.
const HEAD: Duration = Duration::from_secs(8);
/// How long a stream may be silent; an ingress says something every three seconds.
const SILENCE: Duration = Duration::from_secs(6);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(150);

/// What all clients share.
#[derive(Debug)]
pub struct Load {
    /// Every ingress.
    pub clients: Vec<Client>,
    /// Where all is noted.
    pub recorder: Arc<Recorder>,
    /// The connection of those who submit over the bus.
    pub program: Option<Program>,
    /// No new conversations.
    pub stop: CancellationToken,
    /// No more of the old ones.
    pub give_up: CancellationToken,
    /// Nothing waits for anybody any more.
    pub done: CancellationToken,
    /// Answers take some seconds each: what comes late from another attempt meets them under way.
    pub long_answers: bool,
    next: AtomicU64,
    pace: Pace,
}

/// What a client does all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Streams chats, half of them with a key that it repeats after an error.
    Chat,
    /// Submits a run and follows it, on whatever ingress answers.
    Follow,
    /// As [`Habit::Follow`], with calls of tools.
    Tools,
    /// As [`Habit::Follow`], reading a long answer slowly.
    Slow,
    /// As [`Habit::Follow`], and cancels the run on the way, sometimes twice at once.
    Cancel,
    /// As [`Habit::Follow`], but submits over the bus, under an id that it draws.
    Program,
    /// Asks for long answers and never reads them; then goes away, and comes back as a follower.
    Mute,
}

/// Of every eleven clients, what each does.
const HABITS: [Habit; 11] = [
    Habit::Chat,
    Habit::Follow,
    Habit::Tools,
    Habit::Cancel,
    Habit::Tools,
    Habit::Slow,
    Habit::Chat,
    Habit::Follow,
    Habit::Tools,
    Habit::Mute,
    Habit::Program,
];

impl Habit {
    /// What the n-th client does.
    pub const fn of(client: usize) -> Self {
        HABITS[client % HABITS.len()]
    }
}

/// Lets conversations begin at a steady rate, however many clients wait for one.
#[derive(Debug)]
struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(per_second: Option<f64>) -> Self {
        let gap = per_second.map_or(Duration::ZERO, |rate| {
            Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default()
        });
        let next = Mutex::new(Instant::now());
        Self { gap, next }
    }

    async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody was free to begin is not made up for.
            let at = (*next).max(Instant::now());
            *next = at + self.gap;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

impl Load {
    /// A load on these ingresses, at most so many conversations a second.
    pub fn new(
        addresses: &[SocketAddr],
        api_key: &str,
        recorder: Arc<Recorder>,
        per_second: Option<f64>,
    ) -> Self {
        Self {
            clients: addresses
                .iter()
                .map(|address| Client::new(*address, api_key))
                .collect(),
            recorder,
            program: None,
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            done: CancellationToken::new(),
            next: AtomicU64::new(1),
            pace: Pace::new(per_second),
            long_answers: false,
        }
    }

    /// Any ingress.
    pub(super) fn server(&self, random: u64) -> &Client {
        let count = self.clients.len() as u64;
        &self.clients[usize::try_from(random % count).unwrap_or(0)]
    }

    pub(super) fn refused(&self, status: StatusCode, code: &str) {
        let (status, code) = (status.as_u16(), code.to_owned());
        self.recorder.note(What::Refused { status, code });
    }

    pub(super) fn unanswered(&self) {
        let code = "no_answer".to_owned();
        self.recorder.note(What::Refused { status: 0, code });
    }

    /// One client, until the load ends; its conversation goes on to its end.
    pub async fn live(self: Arc<Self>, habit: Habit, seed: u64) {
        let mut guest = Guest {
            random: StdRng::seed_from_u64(seed),
            load: Arc::clone(&self),
        };
        let living = async {
            loop {
                let waited = self.stop.run_until_cancelled(self.pace.wait()).await;
                if waited.is_none() || self.stop.is_cancelled() {
                    return;
                }
                match habit {
                    Habit::Chat => guest.chat().await,
                    _ => guest.run(habit).await,
                }
            }
        };
        self.give_up.run_until_cancelled(living).await;
    }
}

/// One client.
struct Guest {
    random: StdRng,
    load: Arc<Load>,
}

impl Guest {
    fn prompt(&mut self, habit: Habit) -> Prompt {
        let id = self.load.next.fetch_add(1, Ordering::Relaxed);
        let (words, gap_ms, tool_turns) = match habit {
            Habit::Slow => (400, 0, 0),
            Habit::Mute => (1_500, 0, 0),
            Habit::Tools => (10, 10, self.random.random_range(1..4)),
            Habit::Cancel => (60, 30, self.random.random_range(0..2)),
            Habit::Chat | Habit::Follow | Habit::Program if self.load.long_answers => {
                (self.random.random_range(100..200), 20, 0)
            }
            Habit::Chat | Habit::Follow | Habit::Program => {
                (self.random.random_range(5..50), 20, 0)
            }
        };
        Prompt {
            id,
            words,
            gap_ms,
            tool_turns,
        }
    }

    fn server(&mut self) -> Client {
        self.load.server(self.random.random()).clone()
    }

    fn note(&self, what: What) {
        self.load.recorder.note(what);
    }

    /// Submits a run with a key, again and again until it is accepted; then follows it to its end.
    async fn run(&mut self, habit: Habit) {
        let prompt = self.prompt(habit);
        let run = if habit == Habit::Program {
            self.publish(&prompt).await
        } else {
            let key = format!("run-{}", prompt.id);
            let run = self.submit(&prompt, &key).await;
            if self.random.random_bool(0.15) {
                // As a client that has not heard the answer would: another run for the key is a
                // breach, which the note shows.
                self.submit(&prompt, &key).await;
            }
            run
        };
        match habit {
            Habit::Cancel => self.cancel_on_the_way(run).await,
            Habit::Mute => {
                let path = format!("/v1/runs/{run}/events");
                let server = self.server();
                let time = Duration::from_millis(self.random.random_range(500..6_000));
                // Whatever it would have been told, it does not hear.
                let _unheard = server.never_read(&path, time).await;
            }
            _ => {}
        }
        self.follow(run, habit == Habit::Slow).await;
        if self.random.random_bool(0.05) {
            // Too late: the end stands.
            self.cancel(run).await;
        }
    }

    async fn cancel_on_the_way(&mut self, run: RunId) {
        let after = self.random.random_range(0..1_500);
        tokio::time::sleep(Duration::from_millis(after)).await;
        if self.random.random_bool(0.3) {
            let mut other = Guest {
                random: StdRng::seed_from_u64(self.random.random()),
                load: Arc::clone(&self.load),
            };
            tokio::join!(self.cancel(run), other.cancel(run));
        } else {
            self.cancel(run).await;
        }
    }

    /// Publishes a submission until it is accepted, and sometimes once more: that an id names one run
    /// is for the note to show, and for the log of that run.
    async fn publish(&mut self, prompt: &Prompt) -> RunId {
        let run = RunId::new(SystemClock.now());
        let request = json!({"model": "chaos", "input": prompt.text()});
        let mut again = u32::from(self.random.random_bool(0.3));
        let load = Arc::clone(&self.load);
        loop {
            let answer = match &load.program {
                Some(program) => program.submit(run, &request).await,
                None => Err(anyhow::anyhow!("there is no program")),
            };
            match answer {
                Ok(answer) if answer["ok"] == true => {
                    let (key, expected) = (Some(format!("program-{run}")), prompt.expected());
                    self.note(What::Accepted { run, key, expected });
                    if again == 0 {
                        return run;
                    }
                    again -= 1;
                }
                Ok(answer) => {
                    self.refused(
                        StatusCode::OK,
                        answer["error"]["code"].as_str().unwrap_or("?"),
                    );
                }
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn submit(&mut self, prompt: &Prompt, key: &str) -> RunId {
        let body = json!({"model": "chaos", "input": prompt.text()});
        loop {
            let headers = [("idempotency-key", key)];
            let server = self.server();
            let asked = whole(server.send(Method::POST, "/v1/runs", &headers, Some(&body))).await;
            match asked {
                Ok((status, answer)) if status.is_success() => {
                    if let Some(run) = answer["id"].as_str().and_then(|id| id.parse().ok()) {
                        let (key, expected) = (Some(key.to_owned()), prompt.expected());
                        self.note(What::Accepted { run, key, expected });
                        return run;
                    }
                    self.refused(status, "no_id");
                }
                Ok((status, answer)) => self.refused(status, code_of(&answer)),
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn refused(&self, status: StatusCode, code: &str) {
        self.load.refused(status, code);
    }

    fn unanswered(&self) {
        self.load.unanswered();
    }

    async fn cancel(&mut self, run: RunId) {
        let path = format!("/v1/runs/{run}/cancel");
        loop {
            match whole(self.server().send(Method::POST, &path, &[], None)).await {
                Ok((status, answer)) if status.is_success() => {
                    self.note(What::Cancelled { run });
                    self.told(run, &answer);
                    return;
                }
                Ok((status, answer)) => self.refused(status, code_of(&answer)),
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Notes where the answer says that the run stands; says whether it has ended.
    fn told(&self, run: RunId, answer: &Value) -> bool {
        let status: Option<RunStatus> = serde_json::from_value(answer["status"].clone()).ok();
        if let Some(status) = status {
            self.note(What::Told { run, status });
        }
        status.is_some_and(RunStatus::is_terminal)
    }

    /// Asks for a run until it has ended.
    async fn read_to_end(&mut self, run: RunId) {
        let path = format!("/v1/runs/{run}");
        loop {
            match whole(self.server().send(Method::GET, &path, &[], None)).await {
                Ok((status, answer)) if status.is_success() => {
                    if self.told(run, &answer) {
                        return;
                    }
                }
                Ok((status, answer)) => self.refused(status, code_of(&answer)),
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Follows a run to its end, over as many connections as it takes.
    async fn follow(&mut self, run: RunId, slowly: bool) {
        let follower = self.load.next.fetch_add(1, Ordering::Relaxed);
        let mut after = EventId::ORIGIN;
        loop {
            self.note(What::Opened {
                follower,
                run,
                after,
            });
            match self.follow_once(follower, run, &mut after, slowly).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// There is nothing here for this follower: its run is unknown, or its events are gone. What
    /// became of the run, the ledger says.
    async fn lost(&mut self, follower: u64, run: RunId, status: u16, code: &str) {
        let code = code.to_owned();
        let unknown = status == StatusCode::NOT_FOUND.as_u16();
        self.note(What::Lost {
            follower,
            status,
            code,
        });
        if !unknown {
            self.read_to_end(run).await;
        }
    }

    /// One connection; says whether the run's end was seen.
    async fn follow_once(
        &mut self,
        follower: u64,
        run: RunId,
        after: &mut EventId,
        slowly: bool,
    ) -> anyhow::Result<bool> {
        let path = format!("/v1/runs/{run}/events");
        let cursor = after.to_string();
        let mut headers = vec![("accept", "text/event-stream")];
        if *after != EventId::ORIGIN {
            headers.push(("last-event-id", &cursor));
        }
        let server = self.server();
        let asking = server.send(Method::GET, &path, &headers, None);
        let mut answer = timeout(HEAD, asking).await??;
        match answer.status.as_u16() {
            200 => {}
            204 => {
                self.note(What::NoMore { follower });
                return Ok(true);
            }
            status @ (404 | 410) => {
                let said = body(&mut answer).await?;
                self.lost(follower, run, status, code_of(&said)).await;
                return Ok(true);
            }
            _ => {
                let status = answer.status;
                let said = body(&mut answer).await?;
                self.refused(status, code_of(&said));
                bail!("refused");
            }
        }
        let mut decoder = SseDecoder::new(16 << 20);
        let mut ended = false;
        // Dropped in the middle now and then, as a client that moves to another network.
        let mut patience = if self.random.random_bool(0.1) {
            5
        } else {
            u64::MAX
        };
        loop {
            while let Some(frame) = decoder.next_event()? {
                if &frame.name[..] == b"error" {
                    let said: Value = serde_json::from_slice(&frame.data)?;
                    let code = code_of(&said);
                    if is_lost(code) {
                        self.lost(follower, run, StatusCode::GONE.as_u16(), code)
                            .await;
                        return Ok(true);
                    }
                    self.refused(StatusCode::OK, code);
                    bail!("an error event");
                }
                let Some(id) = frame.id.as_deref() else {
                    continue;
                };
                let id: EventId = std::str::from_utf8(id)?.parse()?;
                let line = std::str::from_utf8(&frame.data)?.to_owned();
                self.note(What::Event { follower, line });
                *after = id;
                ended |= matches!(
                    &frame.name[..],
                    b"run.completed" | b"run.failed" | b"run.cancelled"
                );
                patience -= 1;
                if patience == 0 {
                    return Ok(ended);
                }
                if slowly {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            // Read on behind the last event: anything that follows it would be a breach.
            match timeout(SILENCE, answer.next()).await {
                Ok(Ok(Some(bytes))) => decoder.push(bytes),
                Ok(Ok(None)) => return Ok(ended),
                Ok(Err(_)) | Err(_) if ended => return Ok(true),
                Ok(Err(error)) => return Err(error),
                Err(silent) => return Err(silent.into()),
            }
        }
    }

    async fn chat(&mut self) {
        let prompt = self.prompt(Habit::Chat);
        let key = self
            .random
            .random_bool(0.5)
            .then(|| format!("chat-{}", prompt.id));
        loop {
            let done = self.chat_once(&prompt, key.as_deref()).await;
            // Without a key, asking again would be another run.
            if key.is_none() || matches!(done, Ok(true)) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// One request; says whether there is no point in repeating it.
    async fn chat_once(&mut self, prompt: &Prompt, key: Option<&str>) -> anyhow::Result<bool> {
        let request = json!({
            "model": "chaos", "stream": true,
            "messages": [{"role": "user", "content": prompt.text()}],
        });
        let headers: Vec<_> = key
            .map(|key| ("idempotency-key", key))
            .into_iter()
            .collect();
        let server = self.server();
        let asking = server.send(
            Method::POST,
            "/v1/chat/completions",
            &headers,
            Some(&request),
        );
        let Ok(Ok(mut answer)) = timeout(HEAD, asking).await else {
            self.unanswered();
            bail!("no answer");
        };
        let run: Option<RunId> = answer
            .headers
            .get("x-run-id")
            .and_then(|run| run.to_str().ok()?.parse().ok());
        let expected = prompt.expected();
        if let Some(run) = run {
            // Named even in an error: then it was accepted before it went wrong.
            self.note(What::Accepted {
                run,
                key: key.map(str::to_owned),
                expected: expected.clone(),
            });
        }
        if answer.status != StatusCode::OK {
            let status = answer.status;
            let said = body(&mut answer).await?;
            let code = code_of(&said);
            self.refused(status, code);
            return Ok(self.is_over(run, code).await);
        }
        let mut text = String::new();
        let end = read_chat(&mut answer, &mut text)
            .await
            .unwrap_or_else(|_| "cut".to_owned());
        let over = end == "done" || self.is_over(run, &end).await;
        self.note(What::Chat {
            run,
            expected,
            text,
            end,
        });
        Ok(over)
    }

    /// Whether a chat that ended with this code is not to be repeated: the run behind it has
    /// failed, or its events are gone, and its key will not make it another one.
    async fn is_over(&mut self, run: Option<RunId>, code: &str) -> bool {
        if let (Some(run), true) = (run, is_lost(code)) {
            self.read_to_end(run).await;
            return true;
        }
        run.is_some() && code.starts_with("upstream")
    }
}

/// Reads a chat to its end, and says which.
async fn read_chat(answer: &mut Streamed, text: &mut String) -> anyhow::Result<String> {
    let mut decoder = SseDecoder::new(16 << 20);
    loop {
        while let Some(frame) = decoder.next_event()? {
            if &frame.data[..] == b"[DONE]" {
                return Ok("done".to_owned());
            }
            let chunk: Value = serde_json::from_slice(&frame.data)?;
            if chunk.get("error").is_some() {
                return Ok(code_of(&chunk).to_owned());
            }
            if let Some(delta) = chunk["choices"][0]["delta"]["content"].as_str() {
                text.push_str(delta);
            }
        }
        match timeout(SILENCE, answer.next()).await?? {
            Some(bytes) => decoder.push(bytes),
            None => bail!("cut"),
        }
    }
}

/// Whether the code says that the events are gone for good.
fn is_lost(code: &str) -> bool {
    matches!(code, "events_expired" | "events_lost" | "cursor_unknown")
}

pub(super) async fn whole(
    asking: impl Future<Output = anyhow::Result<Streamed>>,
) -> anyhow::Result<(StatusCode, Value)> {
    let mut answer = timeout(HEAD, asking).await.context("no answer")??;
    Ok((answer.status, body(&mut answer).await?))
}

async fn body(answer: &mut Streamed) -> anyhow::Result<Value> {
    let mut body = Vec::new();
    while let Some(bytes) = timeout(HEAD, answer.next()).await?? {
        body.extend_from_slice(&bytes);
    }
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}

/// The code of an error, in the shape of either kind of route.
pub(super) fn code_of(answer: &Value) -> &str {
    let code = answer["code"].as_str();
    code.or_else(|| answer["error"]["code"].as_str())
        .unwrap_or("?")
}
