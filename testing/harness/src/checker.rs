//! Judges the result of a chaos run, offline: the clients' records, the content of the ledger and
//! of the event log, and the requests to tools.
//!
//! It does not know how the history came about. Each rule is one invariant, and each has a
//! hand-made history that breaks it. If the broker lost its disk, the checker judges the rest: the
//! ledger against everything that clients were shown and promised.

mod asks;
mod history;
mod judgement;
mod ledger_run;
mod limits;
mod logs;
mod losses;
mod processes;
mod refusals;
mod runs;
mod seen;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::HashMap;
use std::path::Path;

use baton_protocol::{ApiKeyId, RunId};

pub use history::{Asked, FORGED, History, Record, RunLog, What, WithdrawnAs};
pub use judgement::{Judgement, Violation};
pub use ledger_run::{Approval, ApprovalCall, LedgerRun, Step, StepKind};
pub use threads::{SentMessage, TalkMessage, TalkRun, TalkThread, TalkTitle};

use losses::Losses;

/// Judges piece by piece: first the ledger, then the records in their order, then the logs.
struct Judge {
    judgement: Judgement,
    runs: HashMap<RunId, LedgerRun>,
    losses: Losses,
    ledger: runs::Ledger,
    refusals: refusals::Refusals,
    clients: seen::Clients,
    logs: logs::Logs,
    threads: threads::Threads,
}

impl Judge {
    fn new(runs: HashMap<RunId, LedgerRun>) -> Self {
        Self {
            judgement: Judgement::default(),
            runs,
            losses: Losses::default(),
            ledger: runs::Ledger::default(),
            refusals: refusals::Refusals::default(),
            clients: seen::Clients::default(),
            logs: logs::Logs::default(),
            threads: threads::Threads::default(),
        }
    }

    fn record(&mut self, record: &Record) {
        if let What::LogLost { since } = &record.what {
            self.losses.add(*since, record.at);
        }
        let judgement = &mut self.judgement;
        processes::see(&record.what, judgement);
        self.ledger.see(record, judgement);
        self.refusals.see(record);
        self.clients.see(record, judgement);
        self.threads.see(record);
    }

    fn log(&mut self, log: &RunLog) {
        if let Some(run) = self.runs.get(&log.run) {
            let lost = self.losses.may_have_hit(run, log.read_at);
            self.logs.judge(run, log, lost, &mut self.judgement);
            if !lost {
                self.threads.log(log, &mut self.judgement);
            }
        }
    }

    fn finish(self) -> Judgement {
        let mut judgement = self.judgement;
        self.ledger.finish(&self.runs, &mut judgement);
        self.refusals.finish(&self.runs, &mut judgement);
        self.clients
            .finish(&self.runs, &self.losses, &mut judgement);
        self.logs.finish(&self.runs, &self.losses, &mut judgement);
        self.threads.finish(&mut judgement);
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

/// Reads the runs that programs published under keys of their own.
pub fn submitted(folder: &Path) -> anyhow::Result<HashMap<RunId, ApiKeyId>> {
    let mut submitted = HashMap::new();
    for record in history::read_lines::<Record>(&folder.join(History::RECORDS))? {
        if let What::Submitted { run, key } = record?.what {
            submitted.insert(run, key);
        }
    }
    Ok(submitted)
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
