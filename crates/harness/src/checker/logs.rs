//! The event log of each run: order, attempts, the one end, the text (I4, I9, I10, I11).

use std::collections::HashMap;

use baton_protocol::{Event, EventData, EventId, RunStatus};

use super::history::{Call, History, LedgerRun, RunLog};
use super::{Judgement, Violation};

pub(super) fn judge(history: &History, judgement: &mut Judgement) {
    let logs: HashMap<_, _> = history.logs.iter().map(|log| (log.run, log)).collect();
    for run in &history.runs {
        let found = match logs.get(&run.id) {
            Some(log) => judge_log(run, log),
            None if run.status.is_terminal() => {
                vec![("I4", "the run has ended, and its log is missing".to_owned())]
            }
            None => Vec::new(),
        };
        let violations = found.into_iter().map(|(invariant, found)| Violation {
            invariant,
            run: Some(run.id),
            found,
        });
        judgement.violations.extend(violations);
    }
}

fn judge_log(run: &LedgerRun, log: &RunLog) -> Vec<(&'static str, String)> {
    let events = match log.events() {
        Ok(events) => events,
        Err(error) => return vec![("I4", format!("the log cannot be read: {error}"))],
    };
    let mut found = Vec::new();
    let mut last = EventId::ORIGIN;
    for event in &events {
        if event.id.attempt() < last.attempt() {
            let what = format!("{} of an older attempt stands behind {last}", event.id);
            found.push(("I10", what));
        } else if event.id <= last {
            found.push(("I9", format!("{} stands behind {last}", event.id)));
        }
        if event.prev != last {
            let what = format!("{} names {} and stands behind {last}", event.id, event.prev);
            found.push(("I13", what));
        }
        let opens_attempt = event.id.attempt() > last.attempt().max(1);
        let resets = matches!(event.data, EventData::AttemptReset(_));
        if opens_attempt != resets {
            let what = format!(
                "{} {}: not where a reset belongs",
                event.id,
                event.data.kind()
            );
            found.push(("I9", what));
        }
        if event.run_id != run.id {
            found.push(("I18", format!("{} is of run {}", event.id, event.run_id)));
        }
        last = event.id;
    }
    let ends = events.iter().filter(|event| event.data.is_terminal());
    let ends = ends.count();
    if run.status.is_terminal() {
        if ends != 1 {
            found.push(("I4", format!("{ends} terminal events")));
        }
        match events.last() {
            Some(end) if end.data.is_terminal() => {
                if status_of(&end.data) != Some(run.status) {
                    let what = format!(
                        "{} in the log, {} in the ledger",
                        end.data.kind(),
                        run.status
                    );
                    found.push(("I4", what));
                }
                if end.id != run.last_event_id {
                    let what = format!("ends with {}, not with {}", end.id, run.last_event_id);
                    found.push(("I4", what));
                }
            }
            _ => found.push(("I4", "the last event is not terminal".to_owned())),
        }
    } else if ends > 0 {
        found.push(("I4", format!("{} with a terminal event", run.status)));
    }
    if run.status == RunStatus::Completed && shown_text(&events) != run.text() {
        found.push(("I11", "the log's text is not the stored message".to_owned()));
    }
    if run.status == RunStatus::Completed {
        found.extend(ends_of_calls(run, &events));
    }
    found
}

/// Each recorded call is shown to have ended, and stands once.
fn ends_of_calls(run: &LedgerRun, events: &[Event]) -> Vec<(&'static str, String)> {
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
    let calls = calls.filter(|step| matches!(step.call, Call::Call { .. }));
    calls
        .filter_map(|call| {
            let times = standing.iter().filter(|(_, step)| *step == call.place);
            let times = times.count();
            (times != 1).then(|| {
                let what = format!(
                    "the end of the call of step {} stands {times} times",
                    call.place
                );
                ("I11", what)
            })
        })
        .collect()
}

fn status_of(data: &EventData) -> Option<RunStatus> {
    match data {
        EventData::RunCompleted(_) => Some(RunStatus::Completed),
        EventData::RunFailed(_) => Some(RunStatus::Failed),
        EventData::RunCancelled(_) => Some(RunStatus::Cancelled),
        _ => None,
    }
}

/// The text that stands after all resets.
pub(super) fn shown_text(events: &[Event]) -> String {
    let mut standing: Vec<(EventId, &str)> = Vec::new();
    for event in events {
        match &event.data {
            EventData::TextDelta(delta) => standing.push((event.id, &delta.text)),
            EventData::AttemptReset(reset) if !reset.continues => {
                standing.retain(|(id, _)| *id <= reset.resume_after);
            }
            _ => {}
        }
    }
    standing.into_iter().map(|(_, text)| text).collect()
}
