//! Talkers: clients that share threads, under every rule for a busy one and through every door, and send
//! messages to runs that wait or work. [`crate::checker`] compares the threads with their runs when all is
//! quiet.
//!
//! They have a tenant of their own, so that its runs are few enough to be read as a whole.

mod asks;
mod doors;
mod messages;
mod record;
mod tries;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_protocol::{RunId, ThreadId};
use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::tries::{Final, Request};
use super::load::Load;
use super::outside::{Prompt, TALK, TITLER};
use super::program::Program;
use crate::checker::What;
use crate::client::Client;

/// The rules for a busy thread.
const RULES: [&str; 5] = ["reject", "queue", "interrupt", "rollback", "steer"];
/// The kinds of actions of talkers; each is counted by its name.
pub const DOINGS: [&str; 17] = [
    "run on a thread: reject",
    "run on a thread: queue",
    "run on a thread: interrupt",
    "run on a thread: rollback",
    "run on a thread: steer",
    "run on a thread over /v1/runs",
    "run on a thread over chat",
    "run on a thread over responses",
    "run on a thread over NATS",
    "message to a run",
    "message to a run over NATS",
    "message for afterwards",
    "message for afterwards over NATS",
    "message withdrawn",
    "title by a model",
    "approval request answered",
    "approval request answered several times at once",
];
/// The most messages of a thread that talkers go on with; every run begins with all of them.
const LONG: usize = 60;
/// The number of threads that are talked on at a time.
const THREADS: usize = 4;
/// The number of the newest runs, over all threads, that are sent messages.
const RECENT: usize = 5;

/// The talkers' common state.
#[derive(Debug)]
pub struct Talkers {
    /// The state that all clients share.
    load: Arc<Load>,
    /// The key of their tenant.
    key: String,
    /// Their connection to the broker.
    program: Program,
    threads: Mutex<Threads>,
    /// Reads the answers to chats, because a chat that its client closes may be cancelled.
    readers: TaskTracker,
}

#[derive(Debug, Default)]
struct Threads {
    /// Every thread, with the number of messages that were sent to it.
    all: Vec<(ThreadId, usize)>,
    /// The newest runs of any thread, which may still wait or work.
    recent: VecDeque<RunId>,
}

impl Talkers {
    /// Makes talkers that have not talked yet.
    pub fn new(load: Arc<Load>, key: String, program: Program) -> Self {
        Self {
            load,
            key,
            program,
            threads: Mutex::default(),
            readers: TaskTracker::new(),
        }
    }

    /// Talks until it is stopped.
    pub async fn live(self: Arc<Self>, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let living = async {
            loop {
                if random.random_bool(0.1) {
                    self.ask(&mut random).await;
                } else if random.random_bool(0.3) {
                    let run = self.recent(&mut random);
                    self.address(&mut random, run).await;
                } else {
                    let run = self.talk(&mut random).await;
                    if random.random_bool(0.5) {
                        self.address(&mut random, run).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
            }
        };
        stop.run_until_cancelled(living).await;
    }

    /// Returns a client of their tenant at each ingress.
    pub fn clients(&self) -> Vec<Client> {
        let all = self.load.clients.iter();
        all.map(|client| client.with_key(&self.key)).collect()
    }

    fn server(&self, random: &mut StdRng) -> Client {
        self.load.server(random.random()).with_key(&self.key)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prompt(&self, random: &mut StdRng) -> Prompt {
        let calls_tools = random.random_bool(0.3);
        Prompt {
            id: self.load.fresh(),
            words: random.random_range(6..30),
            gap_ms: 20,
            tool_turns: if calls_tools {
                random.random_range(1..3)
            } else {
                0
            },
        }
    }

    /// Records that a message was accepted, for this run.
    fn said(&self, run: RunId, prompt: &Prompt, did: &[&str]) {
        let text = prompt.text();
        self.load.recorder.note(What::Said { run, text });
        for kind in did {
            let kind = (*kind).to_owned();
            self.load.recorder.note(What::Did { kind });
        }
        let mut threads = self.threads();
        if !threads.recent.contains(&run) {
            threads.recent.push_back(run);
        }
        if threads.recent.len() > RECENT {
            threads.recent.pop_front();
        }
    }

    /// Records that a message was refused, unless an earlier try may have been accepted.
    fn unsaid(&self, prompt: &Prompt, in_doubt: bool) {
        if !in_doubt {
            let text = prompt.text();
            self.load.recorder.note(What::Unsaid { text });
        }
    }

    /// Returns one of the newest runs.
    fn recent(&self, random: &mut StdRng) -> Option<RunId> {
        let threads = self.threads();
        let count = threads.recent.len();
        (count > 0).then(|| threads.recent[random.random_range(0..count)])
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
        let by_model = random.random_bool(0.5);
        let wish = if by_model {
            json!({"title_model": TITLER})
        } else {
            json!({"title": TALK})
        };
        let request = Request::Http {
            method: Method::POST,
            path: "/v1/threads",
            key: None,
            body: &wish,
        };
        let Final::Accepted(made) = self.insist(random, &request).await else {
            return None;
        };
        let thread = made["id"].as_str()?.parse().ok()?;
        self.threads().all.push((thread, 2));
        if by_model {
            let kind = DOINGS[14].to_owned();
            self.load.recorder.note(What::Did { kind });
        }
        Some(thread)
    }
}
