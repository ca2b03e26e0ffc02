//! Judges what a faulty hour left behind, offline: what clients noted, what the ledger holds, what
//! the event log holds and what tools were asked.
//!
//! It knows nothing of how the history came about. Each rule is one invariant, and each has a
//! hand-made history that breaks it. Where the broker lost its disk, it judges what remains: the
//! ledger against what clients were shown, told and promised.

mod history;
mod logs;
mod processes;
mod runs;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use baton_protocol::RunId;

pub use history::{
    Approval, ApprovalCall, Asked, Call, History, LedgerRun, Record, RunLog, Step, What,
};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant, such as `I4`.
    pub invariant: &'static str,
    /// Whose, if it is one run's.
    pub run: Option<RunId>,
    /// What was found, for people.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(run) = self.run {
            write!(f, " run {run}")?;
        }
        write!(f, ": {}", self.found)
    }
}

/// What the history amounts to.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Runs by how they ended; a failed one with its code.
    pub outcomes: BTreeMap<String, usize>,
    /// Runs that clients were told are accepted.
    pub accepted: usize,
    /// Runs that a second or later attempt ended.
    pub handed_on: usize,
    /// All attempts beyond the first of their run.
    pub takeovers: usize,
    /// Runs whose log may have been lost, all or in part, before it was read.
    pub log_lost: usize,
    /// Chat streams by how they ended.
    pub chats: BTreeMap<String, usize>,
    /// Requests that were refused, by status and code.
    pub refused: BTreeMap<String, usize>,
    /// The longest silence between two events of each followed run, in milliseconds, sorted.
    pub pauses: Vec<u64>,
    /// The silence before each `attempt.reset` that a follower saw, in milliseconds, sorted.
    pub recoveries: Vec<u64>,
    /// Questions about calls, by what was decided.
    pub decisions: BTreeMap<String, usize>,
    /// Executions of tools.
    pub tool_calls: usize,
    /// Events that followers saw.
    pub events: usize,
    /// Followers that were told that their events are no longer stored.
    pub expired: usize,
    /// Ends of processes: the role, what it was asked and its exit code.
    pub ends: BTreeMap<String, usize>,
    /// The most memory that a process of a role was seen to hold, in bytes.
    pub memory: BTreeMap<String, u64>,
}

impl Judgement {
    /// Runs that ended as `completed`.
    pub fn completed(&self) -> usize {
        self.outcomes.get("completed").copied().unwrap_or(0)
    }

    /// Runs that have ended.
    pub fn ended(&self) -> usize {
        self.outcomes.values().sum()
    }

    /// All faults.
    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }

    fn accuse(&mut self, invariant: &'static str, run: Option<RunId>, found: impl Into<String>) {
        self.violations.push(Violation {
            invariant,
            run,
            found: found.into(),
        });
    }
}

/// Times that the broker came back without something.
#[derive(Debug, Default)]
struct Losses(Vec<Loss>);

#[derive(Debug)]
struct Loss {
    /// What was stored from then on is lost.
    since: u64,
    /// When the broker was back.
    until: u64,
}

impl Losses {
    /// How far the clocks of the ledger and of the history may be apart, in milliseconds.
    const APART: u64 = 1_000;

    /// Whether events of this run may be gone.
    fn may_hit(&self, run: &LedgerRun) -> bool {
        self.may_have_hit(run, u64::MAX)
    }

    /// Whether events of this run may have been gone at that time.
    fn may_have_hit(&self, run: &LedgerRun, by: u64) -> bool {
        let millis = |at: &chrono::DateTime<chrono::Utc>| {
            u64::try_from(at.timestamp_millis()).unwrap_or_default()
        };
        let from = millis(&run.created_at);
        let to = run.finished_at.as_ref().map_or(u64::MAX, millis);
        // The terminal event follows the commit.
        let to = to.saturating_add(Self::APART);
        self.0
            .iter()
            .filter(|loss| loss.until < by)
            .any(|loss| from < loss.until + Self::APART && to > loss.since)
    }
}

/// Judges piece by piece: first the ledger, then the records in their order, then the logs.
struct Judge {
    judgement: Judgement,
    runs: HashMap<RunId, LedgerRun>,
    losses: Losses,
    ledger: runs::Ledger,
    clients: seen::Clients,
    logs: logs::Logs,
}

impl Judge {
    fn new(runs: HashMap<RunId, LedgerRun>) -> Self {
        Self {
            judgement: Judgement::default(),
            runs,
            losses: Losses::default(),
            ledger: runs::Ledger::default(),
            clients: seen::Clients::default(),
            logs: logs::Logs::default(),
        }
    }

    fn record(&mut self, record: &Record) {
        if let What::LogLost { since } = &record.what {
            let (since, until) = (*since, record.at);
            self.losses.0.push(Loss { since, until });
        }
        let judgement = &mut self.judgement;
        processes::see(&record.what, judgement);
        self.ledger.see(record, judgement);
        self.clients.see(record, judgement);
    }

    fn log(&mut self, log: &RunLog) {
        if let Some(run) = self.runs.get(&log.run) {
            let lost = self.losses.may_have_hit(run, log.read_at);
            self.logs.judge(run, log, lost, &mut self.judgement);
        }
    }

    fn finish(self) -> Judgement {
        let mut judgement = self.judgement;
        self.ledger.finish(&self.runs, &mut judgement);
        self.clients
            .finish(&self.runs, &self.losses, &mut judgement);
        self.logs.finish(&self.runs, &self.losses, &mut judgement);
        judgement
    }
}

/// Judges a history that is in memory.
pub fn judge(history: &History) -> Judgement {
    let runs = history.runs.iter().map(|run| (run.id, run.clone()));
    let mut judge = Judge::new(runs.collect());
    for record in &history.records {
        judge.record(record);
    }
    for log in &history.logs {
        judge.log(log);
    }
    judge.finish()
}

/// Judges the history in a folder, reading the large files a line at a time.
pub fn judge_folder(folder: &Path) -> anyhow::Result<Judgement> {
    let mut runs = HashMap::new();
    for run in history::read_lines::<LedgerRun>(&folder.join(History::RUNS))? {
        let run = run?;
        runs.insert(run.id, run);
    }
    let mut judge = Judge::new(runs);
    for record in history::read_lines(&folder.join(History::RECORDS))? {
        judge.record(&record?);
    }
    for log in history::read_lines(&folder.join(History::LOGS))? {
        judge.log(&log?);
    }
    Ok(judge.finish())
}
