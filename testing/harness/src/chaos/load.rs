//! Clients that send requests all the time and record every answer.

mod chat;
mod follow;
mod guest;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::guest::Guest;
use super::program::Program;
use super::record::Recorder;
use crate::checker::What;
use crate::client::{Client, Streamed};

/// The time for the head of an answer.
pub(super) const HEAD: Duration = Duration::from_secs(8);
/// The longest silence of a stream; an ingress sends something every three seconds.
const SILENCE: Duration = Duration::from_secs(6);
/// The code of an answer that leaves open whether there is a run.
pub(super) const IN_DOUBT: &str = "acceptance_unknown";
/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(150);

/// The state that all clients share.
#[derive(Debug)]
pub struct Load {
    /// Every ingress.
    pub clients: Vec<Client>,
    /// The recorder of everything.
    pub recorder: Arc<Recorder>,
    /// The connection of the clients that submit over the bus.
    pub program: Option<Program>,
    /// Cancelled when no new conversations may begin.
    pub stop: CancellationToken,
    /// Cancelled when the old conversations must end.
    pub give_up: CancellationToken,
    /// Cancelled when nothing waits for a participant any longer.
    pub done: CancellationToken,
    /// Answers take some seconds each, so that late messages of another attempt arrive in their
    /// middle.
    pub long_answers: bool,
    next: AtomicU64,
    pace: Pace,
}

/// The behaviour of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Streams chats, half of them with a key that is repeated after an error.
    Chat,
    /// Submits a run and follows it on any ingress that answers.
    Follow,
    /// As [`Habit::Follow`], with calls of tools.
    Tools,
    /// As [`Habit::Follow`], reading a long answer slowly.
    Slow,
    /// As [`Habit::Follow`], and cancels the run meanwhile, sometimes twice at once.
    Cancel,
    /// As [`Habit::Follow`], but submits over the bus, under an id that the client draws.
    Program,
    /// As [`Habit::Follow`], with a large request.
    Large,
    /// As [`Habit::Tools`], with limits that are too low, at which the run waits.
    Bounded,
    /// Requests long answers and never reads them; then disconnects, and returns as a follower.
    Mute,
}

/// The habits of every fourteen clients.
const HABITS: [Habit; 14] = [
    Habit::Chat,
    Habit::Follow,
    Habit::Tools,
    Habit::Bounded,
    Habit::Cancel,
    Habit::Tools,
    Habit::Slow,
    Habit::Chat,
    Habit::Follow,
    Habit::Tools,
    Habit::Bounded,
    Habit::Mute,
    Habit::Program,
    Habit::Large,
];

impl Habit {
    /// Returns the habit of the n-th client.
    pub const fn of(client: usize) -> Self {
        HABITS[client % HABITS.len()]
    }
}

/// Lets conversations begin at a steady rate, regardless of the number of waiting clients.
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
            // A start that no client was free to use is not made up for.
            let at = (*next).max(Instant::now());
            *next = at + self.gap;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

impl Load {
    /// Makes a load on these ingresses, of at most so many conversations a second.
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

    /// Returns a number that was not used before.
    pub(super) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns any ingress.
    pub(super) fn server(&self, random: u64) -> &Client {
        let count = self.clients.len() as u64;
        &self.clients[usize::try_from(random % count).unwrap_or(0)]
    }

    pub(super) fn refused(&self, status: StatusCode, code: &str) {
        self.note_refusal(status, code, None);
    }

    /// Records that a run was refused: there must be no run.
    pub(super) fn refused_run(&self, prompt: u64, status: StatusCode, code: &str) {
        let prompt = (code != IN_DOUBT).then_some(prompt);
        self.note_refusal(status, code, prompt);
    }

    fn note_refusal(&self, status: StatusCode, code: &str, prompt: Option<u64>) {
        let (status, code) = (status.as_u16(), code.to_owned());
        self.recorder.note(What::Refused {
            status,
            code,
            prompt,
        });
    }

    pub(super) fn unanswered(&self) {
        self.recorder.note(What::Refused {
            status: 0,
            code: "no_answer".to_owned(),
            prompt: None,
        });
    }

    /// Runs one client until the load ends; its last conversation goes on to its end.
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

pub(super) async fn whole(
    asking: impl Future<Output = anyhow::Result<Streamed>>,
) -> anyhow::Result<(StatusCode, Value)> {
    let mut answer = timeout(HEAD, asking).await.context("no answer")??;
    Ok((answer.status, body(&mut answer).await?))
}

/// The name under which accepted large requests are counted.
pub const LARGE_BODY: &str = "large body";
/// The sizes of a large request in bytes: those of a picture or two.
const LARGE: std::ops::Range<usize> = 500_000..4_000_000;

pub(super) async fn body(answer: &mut Streamed) -> anyhow::Result<Value> {
    let mut body = Vec::new();
    while let Some(bytes) = timeout(HEAD, answer.next()).await?? {
        body.extend_from_slice(&bytes);
    }
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}

/// Returns the code of an error, in the format of either kind of route.
pub(super) fn code_of(answer: &Value) -> &str {
    let code = answer["code"].as_str();
    code.or_else(|| answer["error"]["code"].as_str())
        .unwrap_or("?")
}
