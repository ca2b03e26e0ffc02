//! One good history, and for each rule a breach that turns it red.

use baton_protocol::event::{
    AttemptReset, RunCancelled, RunCompleted, RunStarted, Text, ToolFinished,
};
use baton_protocol::{
    ApprovalId, Decision, Event, EventData, EventId, FinishReason, RunId, RunStatus, Usage,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::*;

const BEFORE: u64 = 1_000;
const RECORDED: i64 = 2_000;

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

/// Two attempts: the first shows `lo` and dies, the second shows `hello`.
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

fn step(place: u32, call: Call) -> Step {
    let at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(RECORDED);
    Step {
        place,
        attempt: 2,
        finished_at: Some(at),
        call,
    }
}

fn tool(at: u64, idempotent: bool) -> Record {
    let key = format!("{}-2", run_id());
    let tool = "count".to_owned();
    let what = What::Tool {
        key,
        tool,
        idempotent,
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
            attempt: 2,
            last_event_id: EventId::new(2, 5),
            created_at: DateTime::<Utc>::UNIX_EPOCH,
            finished_at: Some(DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(RECORDED)),
            output: vec![json!({"role": "assistant", "content": "hello"})],
            error: None,
            steps: vec![
                step(1, Call::Turn),
                step(
                    2,
                    Call::Call {
                        name: "count".into(),
                        ok: Some(true),
                    },
                ),
                step(3, Call::Turn),
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

/// The invariants that the history breaks.
fn broken(history: &History) -> Vec<&'static str> {
    let mut broken: Vec<_> = judge(history)
        .violations
        .iter()
        .map(|violation| violation.invariant)
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

/// What a second follower that was shown these would prove.
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

#[test]
fn an_accepted_run_that_is_gone_or_open_breaks_i1() {
    assert!(after(|history| history.runs.clear()).contains(&"I1"));
    let open = after(|history| {
        history.runs[0].status = RunStatus::Running;
        history.logs[0].lines.pop();
    });
    assert_eq!(open, ["I1"]);
    let unknown = |history: &mut History| {
        let (follower, status, code) = (1, 404, "not_found".to_owned());
        note(
            history,
            What::Lost {
                follower,
                status,
                code,
            },
        );
    };
    assert_eq!(after(unknown), ["I1"]);
}

#[test]
fn a_follower_that_never_sees_the_end_breaks_i1() {
    assert_eq!(shown(&events()[..6]), ["I1"]);
}

#[test]
fn a_key_with_two_runs_breaks_i2() {
    let mut other = good().runs.remove(0);
    other.id = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
    other.status = RunStatus::Queued;
    let twice = after(|history| {
        note(history, accepted(other.id));
        history.runs.push(other);
    });
    assert!(twice.contains(&"I2"), "{twice:?}");
}

#[test]
fn a_log_without_its_one_end_breaks_i4() {
    assert!(logged(&events()[..6]).contains(&"I4"));
    let mut twice = events();
    let last = EventId::new(2, 5);
    twice.push(event(last.next(), last, completed()));
    assert!(logged(&twice).contains(&"I4"));
    let mut further = events();
    further.push(event(last.next(), last, text("!")));
    assert!(logged(&further).contains(&"I4"));
    assert_eq!(after(|history| history.logs.clear()), ["I4"]);
    let failed = after(|history| history.runs[0].status = RunStatus::Failed);
    assert_eq!(failed, ["I4"]);
}

#[test]
fn a_tool_call_that_is_made_again_breaks_i7() {
    let late = after(|history| history.records.push(tool(2_001, true)));
    assert_eq!(late, ["I7"]);
    let twice = after(|history| {
        history.records.insert(0, tool(BEFORE, false));
    });
    assert_eq!(twice, ["I7"]);
    let never = after(|history| drop(history.records.drain(..2)));
    assert_eq!(never, ["I7"]);
}

#[test]
fn a_missing_step_breaks_i8_and_a_step_of_an_older_attempt_i9() {
    assert_eq!(
        after(|history| drop(history.runs[0].steps.remove(0))),
        ["I8"]
    );
    let unfinished = after(|history| history.runs[0].steps[2].finished_at = None);
    assert_eq!(unfinished, ["I8"]);
    let older = after(|history| history.runs[0].steps[2].attempt = 1);
    assert_eq!(older, ["I9"]);
}

#[test]
fn an_attempt_without_reset_breaks_i9_and_a_replaced_worker_i10() {
    let mut unset = events();
    unset[2].data = text("");
    assert!(logged(&unset).contains(&"I9"));
    let mut zombie = events();
    let (late, end) = (EventId::new(1, 3), EventId::new(2, 5));
    zombie.insert(6, event(late, EventId::new(2, 4), text("zombie")));
    zombie[7] = event(end, late, completed());
    assert!(logged(&zombie).contains(&"I10"));
    assert!(shown(&zombie).contains(&"I10"));
}

#[test]
fn a_text_that_is_not_the_stored_one_breaks_i11() {
    let mut other = events();
    other[4].data = text("p");
    assert_eq!(logged(&other), ["I11"]);
    assert_eq!(shown(&other), ["I11"]);
    let message = json!({"role": "assistant", "content": "hel"});
    let cut = after(|history| history.runs[0].output = vec![message]);
    assert_eq!(cut, ["I11"]);
    assert_eq!(after(|history| note(history, chat("hel", "done"))), ["I11"]);
    assert_eq!(after(|history| note(history, chat("lo", "cut"))), ["I11"]);
    assert!(after(|history| note(history, chat("hel", "cut"))).is_empty());
}

#[test]
fn a_recorded_call_whose_end_is_not_shown_or_stands_twice_breaks_i11() {
    let mut silent = events();
    silent[5].data = text("");
    assert_eq!(logged(&silent), ["I11"]);
    let mut twice = events();
    twice[3].data = counted();
    assert!(logged(&twice).contains(&"I11"));
}

#[test]
fn a_follower_that_misses_or_repeats_an_event_breaks_i13() {
    let mut missing = events();
    missing.remove(3);
    assert!(shown(&missing).contains(&"I13"));
    let mut twice = events();
    twice.insert(4, twice[3].clone());
    assert!(shown(&twice).contains(&"I13"));
    let (follower, status, code) = (1, 410, "cursor_unknown".to_owned());
    let lost = What::Lost {
        follower,
        status,
        code,
    };
    assert_eq!(after(|history| note(history, lost)), ["I13"]);
    let early = after(|history| {
        show(history, 2, &events()[..3]);
        note(history, What::NoMore { follower: 2 });
    });
    assert_eq!(early, ["I13"]);
}

#[test]
fn what_a_reset_withdraws_may_be_missed() {
    let mut moved = events();
    moved.remove(1);
    assert!(shown(&moved).is_empty());
}

/// What the checker finds when the broker has lost what it stored from then on.
fn after_loss(since: u64, breach: impl FnOnce(&mut History)) -> Vec<&'static str> {
    after(|history| {
        note(history, What::LogLost { since });
        breach(history);
    })
}

#[test]
fn a_lost_log_is_judged_by_what_remains_of_it() {
    assert!(after_loss(0, |history| history.logs.clear()).is_empty());
    assert!(after_loss(0, |history| history.logs[0].lines.truncate(2)).is_empty());
    // What was read before is whole.
    let read_before = after_loss(0, |history| {
        history.logs[0].read_at = BEFORE;
        history.logs[0].lines.truncate(2);
    });
    assert_eq!(read_before, ["I11", "I4"]);
    // The middle is gone, and it shows.
    assert!(after_loss(0, |history| drop(history.logs[0].lines.drain(1..4))).is_empty());
    // A hole that was filled up cannot be seen by a follower.
    let hidden = |history: &mut History| {
        let mut events = events();
        events.remove(4);
        events[4].prev = EventId::new(2, 2);
        history.logs[0].lines = events.iter().map(line).collect();
    };
    assert_eq!(after_loss(0, hidden), ["I11"]);
    let zombie = |history: &mut History| {
        let late = event(EventId::new(1, 3), EventId::new(2, 5), text("zombie"));
        history.logs[0].lines.push(line(&late));
    };
    assert!(after_loss(0, zombie).contains(&"I10"));
    let another_end = |history: &mut History| history.runs[0].status = RunStatus::Failed;
    assert_eq!(after_loss(0, another_end), ["I4"]);
    // What clients saw, and the ledger, are judged as ever.
    assert_eq!(
        after_loss(0, |history| show(history, 2, &events()[..6])),
        ["I1"]
    );
    assert_eq!(
        after_loss(0, |history| note(history, chat("hel", "done"))),
        ["I11"]
    );
}

#[test]
fn a_run_that_ended_before_the_older_disk_was_copied_keeps_its_log() {
    let since = u64::try_from(RECORDED).unwrap() + 1_001;
    assert_eq!(after_loss(since, |history| history.logs.clear()), ["I4"]);
    let (follower, status, code) = (1, 410, "events_expired".to_owned());
    let lost = What::Lost {
        follower,
        status,
        code,
    };
    assert_eq!(
        after_loss(since, |history| note(history, lost.clone())),
        ["I13"]
    );
    assert!(after_loss(0, |history| note(history, lost)).is_empty());
    let lost = |history: &mut History| note(history, chat("he", "events_lost"));
    assert_eq!(after_loss(since, lost), ["I13"]);
    assert!(after_loss(0, lost).is_empty());
}

#[test]
fn an_end_that_a_client_was_told_breaks_i4_if_it_changes() {
    let told = |status| What::Told {
        run: run_id(),
        status,
    };
    let other = after(|history| note(history, told(RunStatus::Cancelled)));
    assert_eq!(other, ["I4"]);
    assert!(after(|history| note(history, told(RunStatus::Completed))).is_empty());
    assert!(after(|history| note(history, told(RunStatus::Running))).is_empty());
    let mut events = events();
    events[6].data = EventData::RunCancelled(RunCancelled {
        reason: "late".into(),
        usage: Usage::default(),
        cancel_latency_ms: None,
    });
    assert_eq!(shown(&events), ["I4"]);
}

#[test]
fn a_process_that_does_not_stop_or_ends_without_a_reason_breaks_i16() {
    let ended = |killed, terminations, status, took_ms| {
        after(|history| {
            let asked = Asked {
                killed,
                terminations,
                frozen: false,
            };
            let role = "worker".to_owned();
            note(
                history,
                What::Ended {
                    role,
                    asked,
                    status,
                    took_ms,
                },
            );
        })
    };
    assert!(ended(true, 0, 137, 0).is_empty());
    assert!(ended(false, 1, 0, 5_000).is_empty());
    assert!(ended(false, 2, 143, 100).is_empty());
    assert!(ended(false, 0, 1, 0).is_empty());
    assert_eq!(ended(false, 1, 0, 60_000), ["I16"]);
    assert_eq!(ended(false, 2, 143, 20_000), ["I16"]);
    assert_eq!(ended(false, 1, 143, 10), ["I16"]);
    assert_eq!(ended(false, 0, 134, 0), ["I16"]);
}

#[test]
fn a_role_that_holds_without_bound_breaks_i14() {
    let holds = |resident| {
        let role = "ingress".to_owned();
        after(|history| note(history, What::Memory { role, resident }))
    };
    assert!(holds(100 << 20).is_empty());
    assert_eq!(holds(2 << 30), ["I14"]);
}

fn approval(decision: Option<Decision>, decided_at: i64) -> Approval {
    Approval {
        id: approval_id(),
        call: ApprovalCall { step: 2 },
        decision,
        decided_at: Some(DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(decided_at)),
    }
}

fn approval_id() -> ApprovalId {
    "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap()
}

#[test]
fn a_call_that_is_made_again_without_its_own_decision_breaks_i7_or_i12() {
    let again = |approvals: Vec<Approval>| {
        after(|history| {
            history.runs[0].approvals = approvals;
            history.records.drain(..2);
            history.records.insert(0, tool(1_000, false));
            history.records.insert(1, tool(1_500, false));
        })
    };
    assert_eq!(again(Vec::new()), ["I7"]);
    assert!(again(vec![approval(Some(Decision::Retry {}), 1_400)]).is_empty());
    assert_eq!(
        again(vec![approval(Some(Decision::Retry {}), 1_600)]),
        ["I12"]
    );
    let result = Decision::Result {
        result: "by hand".to_owned(),
    };
    assert_eq!(again(vec![approval(Some(result.clone()), 1_400)]), ["I7"]);
    // It was begun, never asked for, and decided.
    let by_hand = after(|history| {
        history.runs[0].approvals = vec![approval(Some(result), 1_400)];
        history.records.drain(..2);
    });
    assert!(by_hand.is_empty());
}

#[test]
fn a_decision_that_changes_breaks_i12() {
    let decided = |decision: &str| What::Decided {
        run: run_id(),
        approval: approval_id(),
        decision: decision.to_owned(),
    };
    let twice = after(|history| {
        note(history, decided("retry"));
        note(history, decided("fail"));
    });
    assert_eq!(twice, ["I12"]);
    let other = after(|history| {
        history.runs[0].approvals = vec![approval(Some(Decision::Retry {}), 1_400)];
        note(history, decided("fail"));
    });
    assert_eq!(other, ["I12"]);
}
