//! Threads and the messages of their runs (I26), and messages that were sent to runs that work (I24).
//!
//! Every message and every answer of a talker is unlike all others, so a text identifies a message.

use std::collections::{HashMap, HashSet};

use baton_protocol::{RunId, RunStatus, ThreadId};
use serde::{Deserialize, Serialize};

use super::history::What;
use super::judgement::Judgement;

/// A thread when all was quiet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkThread {
    /// Its id.
    pub id: ThreadId,
    /// Its messages, in order.
    pub messages: Vec<TalkMessage>,
}

/// A message of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkMessage {
    /// The run that it was sent to, or that wrote it.
    pub run: Option<RunId>,
    /// Its text.
    pub text: String,
}

/// A run on a thread when all was quiet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkRun {
    /// Its id.
    pub id: RunId,
    /// Its thread.
    pub thread: ThreadId,
    /// Its state.
    pub status: RunStatus,
    /// Whether a worker has ever taken it.
    pub begun: bool,
    /// The reason of a cancelled one.
    pub reason: Option<String>,
    /// Whether it was to roll the others of its thread back.
    pub rolls_back: bool,
    /// Its input: the messages of the thread, then its own.
    pub input: Vec<String>,
    /// The messages that it produced or took.
    pub output: Vec<String>,
    /// The messages that it was sent while it worked.
    pub sent: Vec<SentMessage>,
}

/// A message that a run was sent while it worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentMessage {
    /// `waiting`, `applied` or `returned`.
    pub status: String,
    /// Its text.
    pub text: String,
}

/// All threads, their runs, and the messages that talkers know to be accepted.
#[derive(Debug, Default)]
pub(super) struct Threads {
    said: Vec<(RunId, String)>,
    all: Vec<TalkThread>,
    runs: HashMap<RunId, TalkRun>,
}

impl Threads {
    pub(super) fn see(&mut self, what: &What) {
        match what {
            What::Said { run, text } => self.said.push((*run, text.clone())),
            What::Thread(thread) => self.all.push(thread.clone()),
            What::ThreadRun(run) => {
                self.runs.insert(run.id, run.clone());
            }
            _ => {}
        }
    }

    pub(super) fn finish(&self, judgement: &mut Judgement) {
        for thread in &self.all {
            self.judge_thread(thread, judgement);
        }
        for run in self.runs.values() {
            judge_sent(run, judgement);
        }
        for (run, text) in &self.said {
            let Some(known) = self.runs.get(run) else {
                judgement.accuse("I26", Some(*run), "is accepted and not in the ledger");
                continue;
            };
            let is_sent = known.sent.iter().any(|sent| sent.text == *text);
            if !is_sent && !known.input.contains(text) {
                let found = format!("has lost the accepted message `{text}`");
                judgement.accuse("I24", Some(*run), found);
            }
        }
    }

    fn judge_thread(&self, thread: &TalkThread, judgement: &mut Judgement) {
        let texts: Vec<&str> = thread.messages.iter().map(|it| &*it.text).collect();
        let mut seen = HashSet::new();
        for message in &thread.messages {
            if !message.text.is_empty() && !seen.insert(&*message.text) {
                let found = format!("thread {} has `{}` twice", thread.id, message.text);
                judgement.accuse("I26", message.run, found);
            }
        }
        let of_thread = self.runs.values().filter(|run| run.thread == thread.id);
        for run in of_thread {
            let own = |message: &TalkMessage| message.run == Some(run.id);
            let first = thread.messages.iter().position(own);
            let count = thread.messages.iter().filter(|it| own(it)).count();
            let mut accuse = |found: &str| {
                let found = format!("{found}, on thread {}", thread.id);
                judgement.accuse("I26", Some(run.id), found);
            };
            if !run.status.is_terminal() {
                accuse("has not ended");
                continue;
            }
            let Some(first) = first else {
                if run.begun && !self.may_be_rolled_back(run) {
                    accuse("has left none of its messages");
                }
                continue;
            };
            if !run.begun || run.reason.as_deref() == Some("rolled_back") {
                accuse("has left messages, and never began or was rolled back");
                continue;
            }
            if run.input.len() < first || run.input[..first] != texts[..first] {
                accuse("did not begin with all messages before its own");
                continue;
            }
            let expected: Vec<&str> = run.input[first..]
                .iter()
                .chain(&run.output)
                .map(String::as_str)
                .collect();
            let left = texts[first..].get(..count);
            // An answer that broke off is shown with its run, and is no message of the thread.
            let breaks_off = run.status != RunStatus::Completed && count + 1 == expected.len();
            let expected = &expected[..expected.len() - usize::from(breaks_off)];
            if left != Some(expected) {
                accuse("has left other messages than its own, or not in their order");
            }
        }
    }

    /// Returns whether another run of the thread may have rolled this one back.
    fn may_be_rolled_back(&self, run: &TalkRun) -> bool {
        run.reason.as_deref() == Some("rolled_back")
            || self
                .runs
                .values()
                .any(|other| other.thread == run.thread && other.rolls_back && other.id != run.id)
    }
}

/// Holds each message that was sent to a run to one of two ends: it is part of the run once, or it was
/// handed back and is no part of it.
fn judge_sent(run: &TalkRun, judgement: &mut Judgement) {
    let mut seen = HashSet::new();
    for sent in &run.sent {
        let all = run.input.iter().chain(&run.output);
        let count = all.filter(|text| **text == sent.text).count();
        let found = match (&*sent.status, count) {
            _ if !seen.insert(&*sent.text) => "was sent it twice",
            ("applied", 1) | ("returned", 0) => continue,
            ("applied", 0) => "does not have it, though it is applied",
            ("returned", _) => "has it, though it was handed back",
            ("waiting", _) if run.status.is_terminal() => "has ended and lets it wait",
            ("waiting", _) => continue,
            _ => "has it more than once",
        };
        let found = format!("the message `{}`: the run {found}", sent.text);
        judgement.accuse("I24", Some(run.id), found);
    }
}
