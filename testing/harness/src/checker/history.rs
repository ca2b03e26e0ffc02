//! What is judged: records of clients, faults and tools in the order of their times, and what the
//! ledger and the event log held when all was quiet.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use baton_protocol::{ApiKeyId, ApprovalId, Decision, Event, EventId, RunId, RunStatus};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::load::unix_nanos;

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Something was broken on purpose.
    Fault {
        /// Its kind, such as `worker kill`.
        kind: String,
        /// What was hit, and how.
        target: String,
    },
    /// The broker came back without what it had stored from then on, or without anything.
    LogLost {
        /// Since when, in milliseconds since 1970.
        since: u64,
    },
    /// A process of a role ended.
    Ended {
        /// Which role.
        role: String,
        /// What it was asked before.
        asked: Asked,
        /// Its exit code; 128 and the signal's number for a signal.
        status: i32,
        /// How long it took since it was last asked to end; zero if it was not.
        took_ms: u64,
        /// Its age in milliseconds.
        #[serde(default)]
        lived_ms: u64,
    },
    /// Somebody attacked, in one of the ways that are counted.
    Attack {
        /// The kind of attack.
        kind: String,
    },
    /// Somebody did something that is counted, such as signing in.
    Did {
        /// The kind of deed.
        kind: String,
    },
    /// Somebody saw a promise broken.
    Breach {
        /// The invariant.
        invariant: Invariant,
        /// The observation, for people.
        found: String,
    },
    /// A program published a run under this key; whether it is accepted is not known.
    Submitted {
        /// The run.
        run: RunId,
        /// The key.
        key: ApiKeyId,
    },
    /// A process of a role was seen to hold so much memory.
    Memory {
        /// Which role.
        role: String,
        /// How many bytes.
        resident: u64,
    },
    /// A client was told that its run is accepted.
    Accepted {
        /// The run.
        run: RunId,
        /// The `Idempotency-Key`, if the client sent one.
        key: Option<String>,
        /// The text that the model writes in answer, over all turns.
        expected: String,
    },
    /// A client asks for a run. Its next note with this prompt is the answer; without one it has none.
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
        /// The number of its prompt, if it asked for a run and the answer says that there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<u64>,
    },
    /// A client asked for a cancel, and was told that it is on its way or done.
    Cancelled {
        /// The run.
        run: RunId,
    },
    /// A client was told where a run stands.
    Told {
        /// The run.
        run: RunId,
        /// Where.
        status: RunStatus,
    },
    /// Somebody decided a call that a run waits for, and was told that it is decided so.
    Decided {
        /// The run.
        run: RunId,
        /// The question.
        approval: ApprovalId,
        /// `retry`, `result` or `fail`.
        decision: String,
    },
    /// A follower began to follow, or went on.
    Opened {
        /// Who; the same over all its connections.
        follower: u64,
        /// What it follows.
        run: RunId,
        /// Its cursor.
        after: EventId,
    },
    /// A follower was sent an event.
    Event {
        /// Who.
        follower: u64,
        /// The event, as sent.
        line: String,
    },
    /// A follower was told that it has seen the last event.
    NoMore {
        /// Who.
        follower: u64,
    },
    /// A follower was told that its run or its cursor is unknown.
    Lost {
        /// Who.
        follower: u64,
        /// What it was told.
        status: u16,
        /// The error's code.
        code: String,
    },
    /// A chat's answer ended.
    Chat {
        /// The run, if the client was told.
        run: Option<RunId>,
        /// What the model writes in answer.
        expected: String,
        /// What the client saw.
        text: String,
        /// `done`, `cut`, or the code of the error that ended it.
        end: String,
    },
    /// A tool was asked to do something.
    Tool {
        /// The `Idempotency-Key`.
        key: String,
        /// The tool.
        tool: String,
        /// Whether it says that repeating it does no harm.
        idempotent: bool,
    },
}

impl What {
    /// The time that records are noted with: milliseconds since 1970.
    pub fn now() -> u64 {
        unix_nanos() / 1_000_000
    }
}

/// An invariant that a participant can see broken by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// I17.
    Revocation,
    /// I18.
    Isolation,
    /// I25.
    Budget,
}

impl Invariant {
    /// Its number.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revocation => "I17",
            Self::Isolation => "I18",
            Self::Budget => "I25",
        }
    }
}

/// Text that only hostile programs write: nobody else may ever be shown it.
pub const FORGED: &str = "gef\u{e4}lscht: of no model";

/// What a process was asked before it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// SIGKILL.
    pub killed: bool,
    /// How often SIGTERM.
    pub terminations: u32,
    /// SIGSTOP: it may have slept through the rest.
    pub frozen: bool,
}

/// A run as the ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LedgerRun {
    /// Its id.
    pub id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// The newest attempt.
    pub attempt: u32,
    /// The id of its last recorded event.
    pub last_event_id: EventId,
    /// The number of its prompt.
    #[serde(default)]
    pub prompt: Option<u64>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Its messages.
    #[serde(default)]
    pub output: Vec<Value>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Value>,
    /// Its steps.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What it waited for. Read by a request of its own.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

/// A question about a call, as the ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The call.
    pub call: ApprovalCall,
    /// `retry`, `result` or `fail`; nothing if nobody decided.
    pub decision: Option<Decision>,
    /// When it was decided.
    pub decided_at: Option<DateTime<Utc>>,
}

/// The call that a question is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalCall {
    /// Its place among the steps.
    pub step: u32,
}

/// A step as the ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Its place.
    #[serde(rename = "step")]
    pub place: u32,
    /// Who recorded it.
    pub attempt: u32,
    /// When its result was recorded.
    pub finished_at: Option<DateTime<Utc>>,
    /// A call's own part.
    #[serde(flatten)]
    pub call: Call,
}

/// What a step is; a turn says nothing more here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Call {
    /// A model turn.
    Turn,
    /// A call of a tool of the server's.
    Call {
        /// The tool.
        name: String,
        /// Whether it did what it was asked.
        ok: Option<bool>,
    },
}

impl LedgerRun {
    /// The text of all its assistant messages.
    pub fn text(&self) -> String {
        let assistant = |message: &&Value| message["role"] == "assistant";
        let messages = self.output.iter().filter(assistant);
        messages
            .filter_map(|message| message["content"].as_str())
            .collect()
    }
}

/// A run's log as the stream has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunLog {
    /// The run.
    pub run: RunId,
    /// When it was read, in milliseconds since 1970: what the broker lost later is in it.
    pub read_at: u64,
    /// Its events, a line of JSON each, in the stream's order.
    pub lines: Vec<String>,
}

impl RunLog {
    /// The events, read.
    pub fn events(&self) -> Result<Vec<Event>, baton_protocol::event::EventError> {
        let lines = self.lines.iter();
        lines.map(|line| Event::decode(line.as_bytes())).collect()
    }
}

/// All that is judged.
#[derive(Debug, Default)]
pub struct History {
    /// What happened, in order.
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

/// Reads a file of a history, a line at a time: a long one does not fit into memory.
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
