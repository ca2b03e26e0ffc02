//! Clients that ask all the time, take what comes, and note it.

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

/// How long the head of an answer is waited for.
const HEAD: Duration = Duration::from_secs(8);
/// How long a stream may be silent; an ingress says something every three seconds.
const SILENCE: Duration = Duration::from_secs(6);
/// The code of an answer that leaves open whether there is a run.
const IN_DOUBT: &str = "acceptance_unknown";
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(150);

/// The state that all clients share.
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
    /// As [`Habit::Follow`], and its request is large.
    Large,
    /// Asks for long answers and never reads them; then goes away, and comes back as a follower.
    Mute,
}

/// Of every twelve clients, what each does.
const HABITS: [Habit; 12] = [
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
    Habit::Large,
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

    /// A number that nobody has had.
    pub(super) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Any ingress.
    pub(super) fn server(&self, random: u64) -> &Client {
        let count = self.clients.len() as u64;
        &self.clients[usize::try_from(random % count).unwrap_or(0)]
    }

    pub(super) fn refused(&self, status: StatusCode, code: &str) {
        self.note_refusal(status, code, None);
    }

    /// Notes that a run was refused: there must be none.
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

pub(super) async fn whole(
    asking: impl Future<Output = anyhow::Result<Streamed>>,
) -> anyhow::Result<(StatusCode, Value)> {
    let mut answer = timeout(HEAD, asking).await.context("no answer")??;
    Ok((answer.status, body(&mut answer).await?))
}

/// A large request that was accepted, as it is counted.
pub const LARGE_BODY: &str = "large body";
/// Sizes of a large request in bytes: those of a picture or two.
const LARGE: std::ops::Range<usize> = 500_000..4_000_000;

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
