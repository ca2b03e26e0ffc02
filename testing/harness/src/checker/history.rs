//! The data that is judged: records of clients, faults and tools in the order of their times, and
//! the event log when all was quiet.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use baton_invariants::Invariant;
use baton_protocol::{
    ApiKeyId, ApprovalId, Decision, Event, EventId, RequestLimits, RunId, RunStatus,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ledger_run::LedgerRun;
use super::threads::{TalkRun, TalkThread};
use crate::load::unix_nanos;

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The time, in milliseconds since 1970.
    pub at: u64,
    /// The event.
    #[serde(flatten)]
    pub what: What,
}

/// An event of the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Something was broken on purpose.
    Fault {
        /// Its kind, such as `worker kill`.
        kind: String,
        /// The target, and the way it was hit.
        target: String,
    },
    /// The broker came back without the messages from this time on, or without any.
    LogLost {
        /// The time, in milliseconds since 1970.
        since: u64,
    },
    /// A process of a role ended.
    Ended {
        /// The role.
        role: String,
        /// The signals that it was sent before.
        asked: Asked,
        /// Its exit code; for a signal, 128 plus the signal's number.
        status: i32,
        /// The milliseconds since it was last asked to end; zero if it was not asked.
        took_ms: u64,
        /// Its age in milliseconds.
        #[serde(default)]
        lived_ms: u64,
    },
    /// An attack of one of the counted kinds.
    Attack {
        /// The kind of attack.
        kind: String,
    },
    /// A counted action, such as signing in.
    Did {
        /// The kind of action.
        kind: String,
    },
    /// A participant saw a broken promise.
    Breach {
        /// The invariant.
        invariant: Invariant,
        /// The observation, for people.
        found: String,
    },
    /// A program published a run under this key; it is unknown whether the run is accepted.
    Submitted {
        /// The run.
        run: RunId,
        /// The key.
        key: ApiKeyId,
    },
    /// The memory of a role's process.
    Memory {
        /// The role.
        role: String,
        /// The number of bytes.
        resident: u64,
    },
    /// A client got the answer that its run is accepted.
    Accepted {
        /// The run.
        run: RunId,
        /// The `Idempotency-Key`, if the client sent one.
        key: Option<String>,
        /// The text of the model's answer, over all turns.
        expected: String,
    },
    /// A client got the answer that its run is accepted with these limits, at which it waits.
    Bounded {
        /// The run.
        run: RunId,
        /// Its limits.
        limits: RequestLimits,
    },
    /// A client requests a run. Its next record with this prompt is the answer; without one there
    /// was none.
    Tried {
        /// The number of its prompt.
        prompt: u64,
    },
    /// A client was refused.
    Refused {
        /// The HTTP status; 0 if there was no answer.
        status: u16,
        /// The error's code.
        code: String,
        /// The number of its prompt, if it requested a run and the answer denies that there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<u64>,
    },
    /// A client requested a cancel, and the answer was that it is under way or done.
    Cancelled {
        /// The run.
        run: RunId,
    },
    /// A client got the state of a run.
    Told {
        /// The run.
        run: RunId,
        /// The state.
        status: RunStatus,
    },
    /// A participant decided a call that a run waits for, and the answer confirmed this decision.
    Decided {
        /// The run.
        run: RunId,
        /// The question.
        approval: ApprovalId,
        /// The decision, as it was confirmed.
        decision: Decision,
    },
    /// A follower began to follow, or resumed.
    Opened {
        /// The follower; the same over all its connections.
        follower: u64,
        /// The run that it follows.
        run: RunId,
        /// Its cursor.
        after: EventId,
    },
    /// A follower was sent an event.
    Event {
        /// The follower.
        follower: u64,
        /// The event, as sent.
        line: String,
    },
    /// A follower got the answer that it has seen the last event.
    NoMore {
        /// The follower.
        follower: u64,
    },
    /// A follower got the answer that its run or its cursor is unknown.
    Lost {
        /// The follower.
        follower: u64,
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
    },
    /// A chat's answer ended.
    Chat {
        /// The run, if the client got its id.
        run: Option<RunId>,
        /// The text of the model's answer.
        expected: String,
        /// The text that the client saw.
        text: String,
        /// `done`, `cut`, or the code of the error that ended it.
        end: String,
    },
    /// A talker got the answer that its message is accepted, in a run of its own or one that works.
    Said {
        /// The run.
        run: RunId,
        /// The message.
        text: String,
    },
    /// A talker's message was refused, and no try to send it was without an answer.
    Unsaid {
        /// The message.
        text: String,
    },
    /// A talker withdraws a message that waits for its run.
    Withdrawn {
        /// The message.
        text: String,
        /// The answer so far.
        end: WithdrawnAs,
    },
    /// The model was sent a conversation of the talkers.
    Prompted {
        /// The numbers of its prompts, in order.
        prompts: Vec<u64>,
    },
    /// A thread of the talkers when all was quiet.
    Thread(TalkThread),
    /// A run on such a thread when all was quiet.
    ThreadRun(TalkRun),
    /// The model was asked for a title, by this message of a thread.
    Titling {
        /// The message.
        source: String,
    },
    /// A tool was called.
    Tool {
        /// The `Idempotency-Key`.
        key: String,
        /// The tool.
        tool: String,
        /// Whether the tool is declared as harmless to repeat.
        idempotent: bool,
        /// The arguments that it was called with.
        #[serde(default)]
        arguments: String,
    },
}

impl What {
    /// Returns the time for a record: milliseconds since 1970.
    pub fn now() -> u64 {
        unix_nanos() / 1_000_000
    }
}

/// The outcome of withdrawing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawnAs {
    /// It was requested, and there is no answer.
    Asked,
    /// The message is withdrawn.
    Gone,
    /// It was too late.
    Kept,
}

/// A text that only hostile programs write: no other participant may ever be shown it.
pub const FORGED: &str = "gef\u{e4}lscht: of no model";

/// The signals that a process was sent before it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// SIGKILL.
    pub killed: bool,
    /// The number of SIGTERMs.
    pub terminations: u32,
    /// SIGSTOP: the process may have missed the rest.
    pub frozen: bool,
}

/// A run's log in the stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunLog {
    /// The run.
    pub run: RunId,
    /// The time of reading it, in milliseconds since 1970. A later loss of the broker does not
    /// affect it.
    pub read_at: u64,
    /// Its events, a line of JSON each, in the stream's order.
    pub lines: Vec<String>,
}

impl RunLog {
    /// Decodes the events.
    pub fn events(&self) -> Result<Vec<Event>, baton_protocol::event::EventError> {
        let lines = self.lines.iter();
        lines.map(|line| Event::decode(line.as_bytes())).collect()
    }

    /// Returns whether the last event ends the run.
    pub fn has_end(&self) -> bool {
        let last = self.lines.last().map(|line| Event::decode(line.as_bytes()));
        last.is_some_and(|last| last.is_ok_and(|last| last.data.is_terminal()))
    }
}

/// All data that is judged.
#[derive(Debug, Default)]
pub struct History {
    /// The records in the order of time.
    pub records: Vec<Record>,
    /// Every run of the ledger.
    pub runs: Vec<LedgerRun>,
    /// Every run's log.
    pub logs: Vec<RunLog>,
}

impl History {
    /// The name of the file of records.
    pub const RECORDS: &str = "history.jsonl";
    /// The name of the file of the ledger's runs.
    pub const RUNS: &str = "ledger.jsonl";
    /// The name of the file of the stream's logs.
    pub const LOGS: &str = "events.jsonl";
}

/// Reads a file of a history, a line at a time, because a long one does not fit into memory.
pub(super) fn read_lines<T: DeserializeOwned>(
    path: &Path,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<T>>> {
    let file = File::open(path).with_context(|| format!("{} is missing", path.display()))?;
    let name = path.display().to_string();
    let lines = BufReader::new(file).lines();
    Ok(lines.map(move |line| {
        let parsed = line
            .map_err(anyhow::Error::from)
            .and_then(|line| Ok(serde_json::from_str(&line)?));
        parsed.with_context(|| format!("{name} cannot be read"))
    }))
}
