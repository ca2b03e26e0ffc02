//! Judges the event log of each run: order, attempts, the one end, the text (I4, I9, I10, I11).

use std::collections::{HashMap, HashSet};

use baton_invariants::Invariant;
use baton_protocol::{Event, EventData, EventId, RunId, RunStatus};

use super::history::RunLog;
use super::judgement::Judgement;
use super::ledger_run::{LedgerRun, StepKind};
use super::losses::Losses;

/// The logs, which are read one by one.
#[derive(Debug, Default)]
pub(super) struct Logs {
    seen: HashSet<RunId>,
    /// Runs with a log that was read before the broker lost any of it.
    whole: HashSet<RunId>,
}

impl Logs {
    /// Judges one log. With `lost`, the broker may have lost some of it.
    pub(super) fn judge(
        &mut self,
        run: &LedgerRun,
        log: &RunLog,
        lost: bool,
        judgement: &mut Judgement,
    ) {
        self.seen.insert(run.id);
        if !lost {
            self.whole.insert(run.id);
        }
        for (invariant, found) in judge_log(run, log, lost) {
            judgement.accuse(invariant, Some(run.id), found);
        }
    }

    pub(super) fn finish(
        &self,
        runs: &HashMap<RunId, LedgerRun>,
        losses: &Losses,
        judgement: &mut Judgement,
    ) {
        for run in runs.values() {
            if losses.may_hit(run) && !self.whole.contains(&run.id) {
                judgement.log_lost += 1;
            }
            let missing = run.status.is_terminal() && !self.seen.contains(&run.id);
            if missing && !losses.may_hit(run) {
                judgement.accuse(
                    Invariant::I4,
                    Some(run.id),
                    "the run has ended, and its log is missing",
                );
            }
        }
    }
}

fn judge_log(run: &LedgerRun, log: &RunLog, lost: bool) -> Vec<(Invariant, String)> {
    let events = match log.events() {
        Ok(events) => events,
        Err(error) => return vec![(Invariant::I4, format!("the log cannot be read: {error}"))],
    };
    let mut found = Vec::new();
    let mut last = EventId::ORIGIN;
    // A missing part shows as a hole, or as a missing end.
    let mut whole = true;
    for event in &events {
        if event.id.attempt() < last.attempt() {
            let what = format!("{} of an older attempt stands behind {last}", event.id);
            found.push((Invariant::I10, what));
        } else if event.id <= last {
            found.push((Invariant::I9, format!("{} stands behind {last}", event.id)));
        }
        let hole = lost && event.prev > last;
        whole &= !hole;
        if event.prev != last && !hole {
            let what = format!("{} names {} and stands behind {last}", event.id, event.prev);
            found.push((Invariant::I13, what));
        }
        let opens_attempt = event.id.attempt() > last.attempt().max(1);
        let is_in_place = match &event.data {
            // Within an attempt, a reset withdraws a turn of that attempt.
            EventData::AttemptReset(reset) => {
                opens_attempt || reset.resume_after.attempt() == event.id.attempt()
            }
            _ => !opens_attempt,
        };
        if !is_in_place && !hole {
            let what = format!(
                "{} {}: not where a reset belongs",
                event.id,
                event.data.kind()
            );
            found.push((Invariant::I9, what));
        }
        if event.run_id != run.id {
            found.push((
                Invariant::I18,
                format!("{} is of run {}", event.id, event.run_id),
            ));
        }
        last = event.id;
    }
    let ends = events.iter().filter(|event| event.data.is_terminal());
    let ends = ends.count();
    whole &= ends > 0;
    if run.status.is_terminal() {
        if ends > 1 || (ends == 0 && !lost) {
            found.push((Invariant::I4, format!("{ends} terminal events")));
        }
        match events.last() {
            Some(end) if end.data.is_terminal() => {
                if status_of(&end.data) != Some(run.status) {
                    let what = format!(
                        "{} in the log, {} in the ledger",
                        end.data.kind(),
                        run.status
                    );
                    found.push((Invariant::I4, what));
                }
                if end.id != run.last_event_id {
                    let what = format!("ends with {}, not with {}", end.id, run.last_event_id);
                    found.push((Invariant::I4, what));
                }
            }
            _ if ends == 0 && lost => {}
            _ => found.push((Invariant::I4, "the last event is not terminal".to_owned())),
        }
    } else if ends > 0 {
        found.push((
            Invariant::I4,
            format!("{} with a terminal event", run.status),
        ));
    }
    // A log without a visible hole counts as whole; a follower cannot tell it from one either.
    let readable = whole || !lost;
    if readable && run.status.is_terminal() && text_of(&events) != run.text() {
        found.push((
            Invariant::I11,
            "the log's text is not the stored message".to_owned(),
        ));
    }
    if readable && run.status == RunStatus::Completed {
        found.extend(ends_of_calls(run, &events));
    }
    found
}

/// Checks that the log shows the end of each recorded call exactly once.
fn ends_of_calls(run: &LedgerRun, events: &[Event]) -> Vec<(Invariant, String)> {
    let mut standing: Vec<(EventId, u32)> = Vec::new();
    for event in events {
        match &event.data {
            EventData::ToolFinished(_) => standing.push((event.id, event.step)),
            EventData::AttemptReset(reset) => {
                standing.retain(|(id, _)| *id <= reset.resume_after);
            }
            _ => {}
        }
    }
    let calls = run.steps.iter();
    let calls = calls.filter(|step| matches!(step.kind, StepKind::Call { .. }));
    calls
        .filter(|call| call.finished_at.is_some() || !run.may_leave_calls())
        .filter_map(|call| {
            let times = standing.iter().filter(|(_, step)| *step == call.place);
            let times = times.count();
            (times != 1).then(|| {
                let what = format!(
                    "the end of the call of step {} stands {times} times",
                    call.place
                );
                (Invariant::I11, what)
            })
        })
        .collect()
}

/// Returns the final state that an event announces.
pub(super) fn status_of(data: &EventData) -> Option<RunStatus> {
    match data {
        EventData::RunCompleted(_) => Some(RunStatus::Completed),
        EventData::RunFailed(_) => Some(RunStatus::Failed),
        EventData::RunCancelled(_) => Some(RunStatus::Cancelled),
        _ => None,
    }
}

fn text_of(events: &[Event]) -> String {
    let mut standing = Standing::default();
    for event in events {
        standing.see(event);
    }
    standing.text()
}

/// The text that remains after all resets.
#[derive(Debug, Default)]
pub(super) struct Standing(Vec<(EventId, Box<str>)>);

impl Standing {
    pub(super) fn see(&mut self, event: &Event) {
        match &event.data {
            EventData::TextDelta(delta) => self.0.push((event.id, (*delta.text).into())),
            EventData::AttemptReset(reset) if !reset.continues => {
                self.0.retain(|(id, _)| *id <= reset.resume_after);
            }
            _ => {}
        }
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(_, text)| &**text).collect()
    }
}
