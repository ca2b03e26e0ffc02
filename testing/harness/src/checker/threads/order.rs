//! Judges the order of a thread's runs (I26): one is at work at a time, they go in the order of their ids,
//! and the rule of each for a busy thread holds.

use std::collections::HashMap;

use baton_invariants::Invariant;
use baton_protocol::{RunId, RunStatus};
use chrono::{DateTime, TimeDelta, Utc};

use super::{INTERRUPT, ROLLBACK, ROLLED_BACK, TalkRun};
use crate::checker::judgement::Judgement;

/// The time by which a run may seem to begin before the end of another. The clock is read in the statement
/// that claims it, before that statement looks for the end.
const SEEMS: TimeDelta = TimeDelta::milliseconds(250);
/// The reason of a run that a client cancelled over HTTP, and over NATS.
const BY_CLIENT: [&str; 2] = ["api_request", "talker"];

/// The runs of one thread.
pub(super) struct Order<'a> {
    runs: &'a [&'a TalkRun],
    /// The times by which clients knew of runs.
    accepted: &'a HashMap<RunId, DateTime<Utc>>,
}

/// Whether a run was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RolledBack {
    /// Its reason says so, or one that rolls back was accepted before its end.
    Yes,
    /// One that rolls back was accepted at about the time of its end.
    Perhaps,
    /// No run of the thread can have done that.
    No,
}

impl<'a> Order<'a> {
    pub(super) const fn new(
        runs: &'a [&'a TalkRun],
        accepted: &'a HashMap<RunId, DateTime<Utc>>,
    ) -> Self {
        Self { runs, accepted }
    }

    pub(super) fn judge(&self, judgement: &mut Judgement) {
        for run in self.runs {
            self.judge_cancel(run, judgement);
            let Some(began) = run.began else { continue };
            for other in self.runs.iter().filter(|other| other.id != run.id) {
                if let Some(found) = self.fault(run, began, other) {
                    let found = format!("{found} {}, on thread {}", other.id, run.thread);
                    judgement.accuse(Invariant::I26, Some(run.id), found);
                }
            }
        }
    }

    /// Returns what is wrong with the beginning of a run, in view of another one of its thread.
    fn fault(&self, run: &TalkRun, began: DateTime<Utc>, other: &TalkRun) -> Option<&'static str> {
        let other_began_first = other.began.is_some_and(|other| other < began);
        let is_over = other.ended.is_some_and(|ended| ended < began + SEEMS);
        if other_began_first && !is_over {
            return Some("began before the end of");
        }
        // A run is accepted by the time of the answer at the latest.
        let is_known = self.accepted.get(&other.id).is_some_and(|at| *at < began);
        if is_known && other.id < run.id && other.began.is_some_and(|other| other > began) {
            return Some("began before");
        }
        let replaces = matches!(other.rule.as_deref(), Some(INTERRUPT | ROLLBACK));
        if is_known && replaces && run.accepted < other.accepted {
            return Some("began after it was replaced by");
        }
        None
    }

    /// Checks that somebody asked for the cancel of a run, as its reason says.
    fn judge_cancel(&self, run: &TalkRun, judgement: &mut Judgement) {
        if run.status != RunStatus::Cancelled {
            return;
        }
        let reason = run.reason.as_deref().unwrap_or_default();
        let by_rule = |rule: &str| self.later(run).any(|it| it.rule.as_deref() == Some(rule));
        let is_asked = match reason {
            "interrupted" => by_rule(INTERRUPT),
            ROLLED_BACK => by_rule(ROLLBACK),
            reason => BY_CLIENT.contains(&reason),
        };
        if !is_asked {
            let found = format!("was cancelled as `{reason}`, and nobody asked for that");
            judgement.accuse(Invariant::I26, Some(run.id), found);
        }
    }

    /// Returns the runs that were accepted after this one. They are accepted one after the other, because
    /// the thread is locked meanwhile.
    fn later(&self, run: &TalkRun) -> impl Iterator<Item = &TalkRun> {
        let runs = self.runs.iter().copied();
        runs.filter(move |other| run.accepted < other.accepted)
    }

    pub(super) fn rolled_back(&self, run: &TalkRun) -> RolledBack {
        let mut answer = RolledBack::No;
        if run.reason.as_deref() == Some(ROLLED_BACK) {
            return RolledBack::Yes;
        }
        for other in self.later(run) {
            if other.rule.as_deref() != Some(ROLLBACK)
                || run.ended.is_some_and(|ended| ended < other.accepted)
            {
                continue;
            }
            let known = self.accepted.get(&other.id);
            if known.is_some_and(|known| run.ended.is_none_or(|ended| *known < ended)) {
                return RolledBack::Yes;
            }
            answer = RolledBack::Perhaps;
        }
        answer
    }
}
