//! Threads and their runs (I26), their titles (I27), and messages that were sent to runs (I24).
//!
//! Every message of a talker, and every answer, is unlike all others, so a text identifies a message.

mod events;
mod messages;
mod order;
mod prompts;
mod titles;

use std::collections::{BTreeSet, HashMap, HashSet};

use baton_invariants::Invariant;
use baton_protocol::{MessageId, RunId, RunStatus, ThreadId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::titles::TalkTitle;
use super::history::{Record, RunLog, What, WithdrawnAs};
use super::judgement::Judgement;

/// The number of the model's answers from which on a run may have been stopped by its limit of turns.
const MOST_TURNS: usize = 10;
/// The rule that cancels the other runs of a thread.
const INTERRUPT: &str = "interrupt";
/// The rule that cancels them, and keeps their messages out of the thread.
const ROLLBACK: &str = "rollback";
/// The reason of a run that another one rolled back.
const ROLLED_BACK: &str = "rolled_back";

/// A thread when all was quiet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkThread {
    /// Its id.
    pub id: ThreadId,
    /// Its messages, in order.
    pub messages: Vec<TalkMessage>,
    /// Its title.
    pub title: TalkTitle,
}

/// A message of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkMessage {
    /// The run that it was sent to, or that wrote it.
    pub run: Option<RunId>,
    /// Its text; empty for the result of a tool, because these are alike.
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
    /// The time of its acceptance, by the database's clock as the other two.
    pub accepted: DateTime<Utc>,
    /// The time of its first claim.
    pub began: Option<DateTime<Utc>>,
    /// The time of its end.
    pub ended: Option<DateTime<Utc>>,
    /// The reason of a cancelled one.
    pub reason: Option<String>,
    /// Its rule for a busy thread; `None` if it is a message for afterwards, which waits.
    pub rule: Option<String>,
    /// Its input: the messages of the thread, then its own.
    pub input: Vec<String>,
    /// The messages that it produced or took.
    pub output: Vec<String>,
    /// The places of the model's messages in `output`.
    pub answers: Vec<usize>,
    /// The messages that it was sent while it waited or worked.
    pub sent: Vec<SentMessage>,
}

impl TalkRun {
    /// Returns whether it ended with an answer, and not at its limit of turns.
    fn has_answered(&self) -> bool {
        self.status == RunStatus::Completed && self.answers.len() < MOST_TURNS
    }
}

/// A message that a run was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentMessage {
    /// Its id.
    pub id: MessageId,
    /// `waiting`, `applied` or `returned`.
    pub status: String,
    /// The step that it became; 0 if it joined the input.
    pub step: Option<u32>,
    /// Its text.
    pub text: String,
}

/// A message that a talker knows to be accepted.
#[derive(Debug)]
struct Said {
    run: RunId,
    text: String,
    /// The time of the answer, which came after the commit.
    at: DateTime<Utc>,
}

/// All threads, their runs, and what talkers and the model know of their messages.
#[derive(Debug, Default)]
pub(super) struct Threads {
    said: Vec<Said>,
    /// Messages that were refused.
    refused: Vec<String>,
    /// Messages that talkers withdrew, or wanted to.
    withdrawn: HashMap<String, WithdrawnAs>,
    /// The prompts of each conversation that the model was sent.
    prompted: HashSet<Vec<u64>>,
    all: Vec<TalkThread>,
    /// The messages that the model was to make titles from.
    title_sources: BTreeSet<String>,
    runs: HashMap<RunId, TalkRun>,
}

impl Threads {
    pub(super) fn see(&mut self, record: &Record) {
        match &record.what {
            What::Said { run, text } => {
                let at = i64::try_from(record.at).unwrap_or(i64::MAX);
                self.said.push(Said {
                    run: *run,
                    text: text.clone(),
                    at: DateTime::from_timestamp_millis(at).unwrap_or(DateTime::<Utc>::MAX_UTC),
                });
            }
            What::Unsaid { text } => self.refused.push(text.clone()),
            What::Withdrawn { text, end } => {
                self.withdrawn.insert(text.clone(), *end);
            }
            What::Prompted { prompts } => {
                self.prompted.insert(prompts.clone());
            }
            What::Thread(thread) => self.all.push(thread.clone()),
            What::Titling { source } => {
                self.title_sources.insert(source.clone());
            }
            What::ThreadRun(run) => {
                self.runs.insert(run.id, run.clone());
            }
            _ => {}
        }
    }

    /// Judges the log of a run, if it is on a thread of the talkers.
    pub(super) fn log(&self, log: &RunLog, judgement: &mut Judgement) {
        if let (Some(run), Ok(events)) = (self.runs.get(&log.run), log.events()) {
            events::judge(run, &events, judgement);
        }
    }

    pub(super) fn finish(&self, judgement: &mut Judgement) {
        let mut accepted = HashMap::new();
        for said in &self.said {
            accepted.entry(said.run).or_insert(said.at);
        }
        for thread in &self.all {
            let runs = self.runs.values().filter(|run| run.thread == thread.id);
            let runs: Vec<&TalkRun> = runs.collect();
            let order = order::Order::new(&runs, &accepted);
            order.judge(judgement);
            for run in &runs {
                messages::judge_run(run, thread, &order, judgement);
            }
            messages::judge_repeated(thread, judgement);
        }
        for run in self.runs.values() {
            messages::judge_sent(run, judgement);
        }
        self.judge_places(judgement);
        prompts::judge(&self.prompted, self.runs.values(), judgement);
        titles::judge(
            &self.all,
            self.runs.values(),
            &self.title_sources,
            judgement,
        );
    }

    /// Holds each message to the number of its places: one if it was accepted, none if it was refused or
    /// withdrawn. Its place is the input of a run, or the messages that a run was sent.
    fn judge_places(&self, judgement: &mut Judgement) {
        let threads = self.all.iter();
        let of_run: HashMap<&str, RunId> = threads
            .flat_map(|thread| &thread.messages)
            .filter_map(|message| Some((&*message.text, message.run?)))
            .collect();
        let mut places: HashMap<&str, HashSet<RunId>> = HashMap::new();
        for run in self.runs.values() {
            // The other messages of its input are those of the thread.
            let is_own = |text: &&str| of_run.get(text).is_none_or(|by| *by == run.id);
            let own = run.input.iter().map(String::as_str).filter(is_own);
            for text in own.chain(run.sent.iter().map(|sent| &*sent.text)) {
                places.entry(text).or_default().insert(run.id);
            }
        }
        for said in &self.said {
            let Said { run, text, .. } = said;
            if !self.runs.contains_key(run) {
                judgement.accuse(
                    Invariant::I26,
                    Some(*run),
                    "is accepted and not in the ledger",
                );
                continue;
            }
            let withdrawn = self.withdrawn.get(text);
            let at = places.get(&**text);
            let found = match at.map_or(0, HashSet::len) {
                0 if matches!(withdrawn, Some(WithdrawnAs::Asked | WithdrawnAs::Gone)) => continue,
                0 => "has lost the accepted message",
                _ if withdrawn == Some(&WithdrawnAs::Gone) => "has the withdrawn message",
                1 if at.is_some_and(|at| at.contains(run)) => continue,
                1 => "has given another run the accepted message",
                _ => "shares with another run the accepted message",
            };
            judgement.accuse(Invariant::I24, Some(*run), format!("{found} `{text}`"));
        }
        for text in &self.refused {
            for run in places.get(&**text).into_iter().flatten() {
                let found = format!("has the message `{text}`, which was refused");
                judgement.accuse(Invariant::I26, Some(*run), found);
            }
        }
    }
}
