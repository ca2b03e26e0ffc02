//! One good history, and for each rule a breach that the checker must find.

mod asks;
mod limits;
mod logs;
mod losses;
mod processes;
mod refusals;
mod runs;
mod seen;
mod threads;
mod titles;

use baton_protocol::event::{
    AttemptReset, RunCancelled, RunCompleted, RunStarted, Text, ToolFinished,
};
use baton_protocol::{
    ApprovalId, ApprovalReason, ApprovalScope, Decision, Event, EventData, EventId, FinishReason,
    RunId, RunStatus, Usage,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::*;

const BEFORE: u64 = 1_000;
const RECORDED: i64 = 2_000;
const CREATED: i64 = 500;
const PROMPT: u64 = 7;

fn run_id() -> RunId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn event(id: EventId, prev: EventId, data: EventData) -> Event {
    Event {
        id,
        prev,
        run_id: run_id(),
        step: 2,
        at: DateTime::<Utc>::UNIX_EPOCH,
        data,
    }
}

fn line(event: &Event) -> String {
    let mut line = Vec::new();
    event.encode_into(&mut line);
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

fn text(text: &str) -> EventData {
    let text = text.to_owned();
    EventData::TextDelta(Text { text })
}

fn completed() -> EventData {
    EventData::RunCompleted(RunCompleted {
        finish_reason: FinishReason::Stop,
        usage: Usage::default(),
    })
}

fn reset(resume_after: EventId) -> EventData {
    EventData::AttemptReset(AttemptReset {
        resume_after,
        continues: false,
    })
}

/// Returns the events of two attempts: the first shows `lo` and dies, the second shows `hello`.
fn events() -> Vec<Event> {
    let id = EventId::new;
    let started = EventData::RunStarted(RunStarted {
        model: "m".into(),
        agent: "a".into(),
    });
    vec![
        event(id(1, 1), EventId::ORIGIN, started),
        event(id(1, 2), id(1, 1), text("lo")),
        event(id(2, 1), id(1, 2), reset(id(1, 1))),
        event(id(2, 2), id(2, 1), text("hel")),
        event(id(2, 3), id(2, 2), text("lo")),
        event(id(2, 4), id(2, 3), counted()),
        event(id(2, 5), id(2, 4), completed()),
    ]
}

fn counted() -> EventData {
    EventData::ToolFinished(ToolFinished {
        call_id: "c".into(),
        name: "count".into(),
        ok: true,
        result: "counted".into(),
        duration_ms: 1,
    })
}

fn step(place: u32, kind: StepKind) -> Step {
    let at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(RECORDED);
    Step {
        place,
        attempt: 2,
        finished_at: Some(at),
        kind,
    }
}

fn tool(at: u64, idempotent: bool) -> Record {
    let key = format!("{}-2", run_id());
    let tool = "count".to_owned();
    let what = What::Tool {
        key,
        tool,
        idempotent,
        arguments: "{}".to_owned(),
    };
    Record { at, what }
}

fn note(history: &mut History, what: What) {
    history.records.push(Record { at: BEFORE, what });
}

fn show(history: &mut History, follower: u64, events: &[Event]) {
    let (run, after) = (run_id(), EventId::ORIGIN);
    note(
        history,
        What::Opened {
            follower,
            run,
            after,
        },
    );
    for event in events {
        let line = line(event);
        note(history, What::Event { follower, line });
    }
}

fn accepted(run: RunId) -> What {
    What::Accepted {
        run,
        key: Some("k".to_owned()),
        expected: "hello".to_owned(),
    }
}

fn good() -> History {
    let mut history = History {
        records: vec![tool(BEFORE, true), tool(BEFORE + 1, true)],
        runs: vec![LedgerRun {
            id: run_id(),
            status: RunStatus::Completed,
            model: "m".to_owned(),
            finish_reason: None,
            usage: Usage::default(),
            attempt: 2,
            last_event_id: EventId::new(2, 5),
            prompt: Some(PROMPT),
            created_at: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(CREATED),
            finished_at: Some(DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(RECORDED)),
            output: vec![json!({"role": "assistant", "content": "hello"})],
            error: None,
            steps: vec![
                step(1, StepKind::Turn),
                step(
                    2,
                    StepKind::Call {
                        name: "count".into(),
                        ok: Some(true),
                    },
                ),
                step(3, StepKind::Turn),
            ],
            approvals: Vec::new(),
        }],
        logs: vec![RunLog {
            run: run_id(),
            read_at: u64::MAX,
            lines: events().iter().map(line).collect(),
        }],
    };
    note(&mut history, accepted(run_id()));
    show(&mut history, 1, &events());
    note(&mut history, chat("hello", "done"));
    history
}

fn chat(text: &str, end: &str) -> What {
    What::Chat {
        run: Some(run_id()),
        expected: "hello".to_owned(),
        text: text.to_owned(),
        end: end.to_owned(),
    }
}

/// Returns the invariants that the history breaks.
fn broken(history: &History) -> Vec<&'static str> {
    let mut broken: Vec<_> = judge(history)
        .violations
        .iter()
        .map(|violation| violation.invariant.name())
        .collect();
    broken.sort_unstable();
    broken.dedup();
    broken
}

fn after(breach: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = good();
    breach(&mut history);
    broken(&history)
}

fn logged(events: &[Event]) -> Vec<&'static str> {
    after(|history| history.logs[0].lines = events.iter().map(line).collect())
}

/// Returns the findings if a second follower was shown these events.
fn shown(events: &[Event]) -> Vec<&'static str> {
    after(|history| show(history, 2, events))
}

#[test]
fn a_good_history_is_clean_and_its_figures_are_right() {
    let judgement = judge(&good());
    assert_eq!(judgement.violations, []);
    assert_eq!((judgement.accepted, judgement.completed()), (1, 1));
    assert_eq!((judgement.tool_calls, judgement.events), (2, 7));
    assert_eq!((judgement.handed_on, judgement.takeovers), (1, 1));
    assert_eq!((judgement.recoveries.len(), judgement.log_lost), (1, 0));
}
