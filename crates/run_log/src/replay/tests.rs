use baton_protocol::event::{AnswerPart, MAX_TEXT};
use baton_protocol::{
    AgentRef, Effect, FinishReason, Lane, Outcome, RunError, RunId, RunLimits, RunSpec, RunStatus,
    Usage,
};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::*;
use crate::parked_events::question_event;

const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn id(attempt: u32, n: u32) -> EventId {
    EventId::new(attempt, n)
}

fn usage(total: u64) -> Usage {
    Usage {
        total_tokens: total,
        ..Usage::default()
    }
}

fn ended(outcome: Outcome, last: EventId) -> RunRecord {
    let spec = RunSpec {
        v: RunSpec::VERSION,
        agent: AgentRef {
            name: "default".into(),
            version: 0,
        },
        model: "m".into(),
        fallbacks: Vec::new(),
        instructions: None,
        messages: RawValue::from_string("[]".into()).unwrap(),
        tools: Some(
            to_raw_value(&json!([{"type": "function", "function": {"name": "theirs"}}])).unwrap(),
        ),
        server_tools: vec!["ours".into()],
        params: baton_protocol::RawFields::default(),
        calls: vec![],
        shown_for_good: false,
        response: None,
        compaction: None,
        request_id: None,
        limits: RunLimits::of_turns(8),
    };
    RunRecord {
        id: RunId::new(AT),
        status: outcome.status(),
        outcome: Some(outcome),
        lane: Lane::Interactive,
        agent: spec.agent.clone(),
        model: spec.model.clone(),
        thread_id: None,
        thread_messages: 0,
        api_key_id: None,
        created_by: None,
        spec_json: serde_json::to_string(&spec).unwrap(),
        metadata: None,
        attempt: last.attempt(),
        last_event_id: last,
        usage: usage(9),
        cancel_latency: None,
        cancel_requested: false,
        cancel_on_disconnect: false,
        created_at: AT,
        started_at: Some(AT),
        finished_at: Some(AT),
        expires_at: None,
    }
}

fn completed(last: EventId) -> RunRecord {
    ended(Outcome::Completed(FinishReason::Stop), last)
}

fn step(step: u32, last: Option<EventId>, data: StepData, message: Option<Value>) -> StepRecord {
    StepRecord {
        step,
        attempt: 1,
        data,
        message: message.map(|message| to_raw_value(&message).unwrap()),
        cut_message: None,
        answer_fields: None,
        started_event_id: None,
        last_event_id: last,
        created_at: AT,
        finished_at: last.map(|_| AT),
    }
}

fn turn(n: u32, last: EventId, message: Value) -> StepRecord {
    let data = StepData::Turn {
        finish_reason: FinishReason::Stop,
        usage: usage(3),
    };
    step(n, Some(last), data, Some(message))
}

fn call(n: u32, started: EventId, finished: EventId) -> StepRecord {
    let data = StepData::Call {
        call_id: format!("call_{n}"),
        name: "ours".into(),
        arguments: "{}".into(),
        edited_arguments: None,
        paused: None,
        effect: Effect::Pure,
        state: CallState::Finished {
            ok: true,
            failure: None,
            duration_ms: 5,
        },
    };
    let message = json!({"role": "tool", "tool_call_id": format!("call_{n}"), "content": "done"});
    StepRecord {
        started_event_id: Some(started),
        ..step(n, Some(finished), data, Some(message))
    }
}

/// Makes a turn with two parallel calls, the second ending first, and an answer by a later attempt.
fn two_calls_and_an_answer() -> (RunRecord, Vec<StepRecord>) {
    let asks = json!({"role": "assistant", "content": "Let me see. ", "reasoning_content": "hm",
        "tool_calls": [{"id": "call_2", "type": "function",
                        "function": {"name": "ours", "arguments": "{}"}}]});
    let steps = vec![
        turn(1, id(1, 9), asks),
        call(2, id(1, 10), id(1, 13)),
        call(3, id(1, 11), id(1, 12)),
        turn(
            4,
            id(3, 40),
            json!({"role": "assistant", "content": "Done."}),
        ),
    ];
    (completed(id(3, 41)), steps)
}

fn shown(events: &[Event]) -> Vec<(u32, u32, &str)> {
    let of = |event: &'_ Event| (event.id.attempt(), event.id.n());
    events
        .iter()
        .map(|event| (of(event).0, of(event).1, event.data.kind()))
        .collect()
}

#[test]
fn a_replay_has_the_ids_that_were_and_names_predecessors_and_resets() {
    let (run, steps) = two_calls_and_an_answer();
    let events = replay(&run, &steps, EventId::ORIGIN).unwrap();
    assert_eq!(
        shown(&events),
        [
            (1, 1, "run.started"),
            (1, 7, "reasoning.delta"),
            (1, 8, "text.delta"),
            (1, 9, "usage"),
            (1, 10, "tool.started"),
            (1, 11, "tool.started"),
            (1, 12, "tool.finished"),
            (1, 13, "tool.finished"),
            (3, 1, "attempt.reset"),
            (3, 40, "text.delta"),
            (3, 41, "run.completed"),
        ]
    );
    let mut last = EventId::ORIGIN;
    for event in &events {
        assert_eq!(event.prev, last);
        last = event.id;
        if let EventData::AttemptReset(reset) = &event.data {
            assert_eq!(reset.resume_after, event.prev, "nothing shown is withdrawn");
        }
    }
    let steps_named: Vec<_> = events.iter().map(|event| event.step).collect();
    assert_eq!(steps_named, [0, 1, 1, 1, 2, 3, 3, 2, 0, 4, 4]);
}

#[test]
fn from_a_recorded_id_exactly_the_rest_follows() {
    let (run, steps) = two_calls_and_an_answer();
    let all = replay(&run, &steps, EventId::ORIGIN).unwrap();
    for (at, event) in all.iter().enumerate() {
        let rest = replay(&run, &steps, event.id);
        // The ledger does not record the text up to an id within a turn, or the events that the
        // live reset withdrew.
        if matches!(
            event.data,
            EventData::ReasoningDelta(_) | EventData::AttemptReset(_)
        ) {
            assert!(matches!(rest, Err(ReplayError::CursorUnknown(id)) if id == event.id));
        } else {
            assert_eq!(rest.unwrap(), all[at + 1..], "behind {}", event.id);
        }
    }
    for unknown in [id(1, 3), id(2, 4), id(3, 39), id(3, 42), id(9, 1)] {
        let error = replay(&run, &steps, unknown).unwrap_err();
        assert!(matches!(error, ReplayError::CursorUnknown(_)), "{error}");
    }
}

#[test]
fn the_clients_own_calls_are_shown_and_the_servers_are_not() {
    let long = "é".repeat(MAX_TEXT);
    let message = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "ours", "arguments": "1"}},
        {"id": "b", "type": "function", "function": {"name": "theirs", "arguments": ""}},
        {"id": "c", "type": "function", "function": {"name": "theirs", "arguments": long}},
    ]});
    let run = ended(Outcome::Completed(FinishReason::ToolCalls), id(1, 50));
    let events = replay(&run, &[turn(1, id(1, 49), message)], EventId::ORIGIN).unwrap();
    let mut calls = vec![(String::new(), String::new()); 2];
    for event in &events {
        if let EventData::ToolCallDelta(delta) = &event.data {
            let call = &mut calls[delta.index as usize];
            if let Some(id) = &delta.id {
                call.0.clone_from(id);
            }
            assert!(delta.arguments.len() <= MAX_TEXT);
            call.1.push_str(&delta.arguments);
        }
    }
    assert_eq!(
        calls,
        [("b".to_owned(), String::new()), ("c".to_owned(), long)]
    );
}

#[test]
fn fields_that_are_passed_on_are_shown_again_where_they_were() {
    let run = completed(id(1, 9));
    let long = "x".repeat(MAX_TEXT);
    let answer = StepRecord {
        answer_fields: Some(
            to_raw_value(&json!({
                "completion": {"model": "other"},
                "choice": {"logprobs": {"content": []}},
                "usage": {"prompt_tokens_details": {"cached_tokens": 1}},
            }))
            .unwrap(),
        ),
        ..turn(
            1,
            id(1, 8),
            json!({"role": "assistant", "content": "hi", "images": [long]}),
        )
    };
    let events = replay(&run, &[answer], EventId::ORIGIN).unwrap();
    let fields: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::AnswerField(field) => Some(field.clone()),
            _ => None,
        })
        .collect();
    let places: Vec<_> = fields
        .iter()
        .map(|field| (field.of, &*field.name, field.more))
        .collect();
    assert_eq!(
        places,
        [
            (AnswerPart::Completion, "model", false),
            (AnswerPart::Message, "images", true),
            (AnswerPart::Message, "images", false),
            (AnswerPart::Choice, "logprobs", false),
            (AnswerPart::Usage, "prompt_tokens_details", false),
        ]
    );
    let images = format!("{}{}", fields[1].json, fields[2].json);
    assert_eq!(images, json!([long]).to_string());
    let last = events
        .iter()
        .rfind(|event| event.step == 1 && !event.data.is_terminal());
    assert_eq!(
        last.unwrap().id,
        id(1, 8),
        "the last of them has the turn's last id"
    );
}

#[test]
fn a_turn_that_was_broken_off_is_shown_as_far_as_it_came() {
    let error = RunError {
        code: "upstream_cut".into(),
        message: "it broke off".into(),
        upstream: None,
    };
    let run = ended(Outcome::Failed(error), id(1, 5));
    let cut = StepRecord {
        cut_message: Some(
            to_raw_value(&json!({"role": "assistant", "content": "half an ans"})).unwrap(),
        ),
        ..step(
            1,
            Some(id(1, 4)),
            StepData::CutTurn { usage: usage(2) },
            None,
        )
    };
    let events = replay(&run, &[cut], EventId::ORIGIN).unwrap();
    assert_eq!(
        shown(&events),
        [
            (1, 1, "run.started"),
            (1, 4, "text.delta"),
            (1, 5, "run.failed")
        ]
    );
}

#[test]
fn runs_that_never_began_or_said_nothing_have_an_end() {
    let cancelled = |last| ended(Outcome::Cancelled("x".into()), last);
    let events = replay(&cancelled(id(1, 1)), &[], EventId::ORIGIN).unwrap();
    assert_eq!(shown(&events), [(1, 1, "run.cancelled")]);
    // Ended from outside after an attempt that recorded nothing.
    let events = replay(&cancelled(id(2, 2)), &[], EventId::ORIGIN).unwrap();
    assert_eq!(
        shown(&events),
        [(2, 1, "attempt.reset"), (2, 2, "run.cancelled")]
    );
    // A turn without text has no event of its own.
    let empty = turn(1, id(1, 1), json!({"role": "assistant", "content": ""}));
    let events = replay(&completed(id(1, 2)), &[empty], EventId::ORIGIN).unwrap();
    assert_eq!(
        shown(&events),
        [(1, 1, "run.started"), (1, 2, "run.completed")]
    );
    let open = RunRecord {
        outcome: None,
        status: RunStatus::Running,
        ..completed(id(1, 2))
    };
    let error = replay(&open, &[], EventId::ORIGIN).unwrap_err();
    assert!(matches!(error, ReplayError::NotEnded));
}

#[test]
fn ids_that_leave_no_room_are_an_error_and_no_silence() {
    let said = json!({"role": "assistant", "content": "a", "reasoning_content": "b"});
    let error = replay(
        &completed(id(1, 3)),
        &[turn(1, id(1, 2), said)],
        EventId::ORIGIN,
    );
    assert!(matches!(error, Err(ReplayError::NoRoom(_))), "{error:?}");
}

#[test]
fn what_a_run_waits_for_is_shown_behind_its_steps_with_the_ids_that_its_questions_had() {
    let (mut run, mut steps) = two_calls_and_an_answer();
    let whole = replay(&run, &steps, EventId::ORIGIN).unwrap();
    let before = &shown(&whole)[..4];
    steps.truncate(3);
    // The second attempt has lost both calls, and asks.
    for step in &mut steps[1..] {
        step.last_event_id = None;
        step.started_event_id = None;
    }
    run.outcome = None;
    run.status = RunStatus::AwaitingApproval;
    run.attempt = 2;
    run.last_event_id = id(2, 3);
    let asked = |step, attempt| ApprovalRecord {
        id: baton_protocol::ApprovalId::new(AT),
        run: run.id,
        step,
        attempt,
        reason: baton_protocol::ApprovalReason::OutcomeUnknown,
        call_id: format!("call_{step}"),
        name: "ours".into(),
        arguments: "{}".into(),
        parameters: None,
        reached: None,
        input: None,
        created_at: AT,
        expires_at: AT,
        decided: None,
    };
    // A question of an earlier parking does not count.
    let asked = [asked(2, 1), asked(2, 2), asked(3, 2)];
    let events = replay_parked(&run, &steps, &asked, EventId::ORIGIN).unwrap();
    assert_eq!(
        shown(&events)[..4],
        *before,
        "the turn that asked for the calls"
    );
    assert_eq!(
        shown(&events)[4..],
        [
            (2, 1, "attempt.reset"),
            (2, 2, "approval.requested"),
            (2, 3, "approval.requested"),
        ]
    );
    assert_eq!(events[5].step, 2);
    assert_eq!(events[6].data, question_event(&asked[2]));
    let rest = replay_parked(&run, &steps, &asked, id(2, 2)).unwrap();
    assert_eq!(rest, events[6..]);
    assert!(
        replay_parked(&run, &steps, &asked, id(2, 3))
            .unwrap()
            .is_empty()
    );
    // After the decision the stream has the events again, and a call without questions gets none.
    let whole = replay(&run, &steps, EventId::ORIGIN);
    assert!(matches!(whole, Err(ReplayError::NotEnded)));
    run.status = RunStatus::Queued;
    let queued = replay_parked(&run, &steps, &asked, EventId::ORIGIN);
    assert!(matches!(queued, Err(ReplayError::NotEnded)));
}

#[test]
fn a_summary_is_an_event_of_its_own_and_says_nothing() {
    let summary = json!({"role": "assistant", "content": "They ask for the price."});
    let data = StepData::Compaction { usage: usage(4) };
    let steps = vec![
        step(1, Some(id(1, 2)), data, Some(summary)),
        turn(2, id(1, 3), json!({"role": "assistant", "content": "9"})),
    ];
    let run = completed(id(1, 4));
    let events = replay(&run, &steps, EventId::ORIGIN).unwrap();
    let expected = [
        (1, 1, "run.started"),
        (1, 2, "context.compacted"),
        (1, 3, "text.delta"),
        (1, 4, "run.completed"),
    ];
    assert_eq!(shown(&events), expected);
    // A worker that died right after the commit may not have shown it.
    let again = crate::shown_by_commit(&steps[..1], &[], id(1, 2));
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1, events[1].data);
    // The end of a run that was cancelled before its next turn.
    let cancelled = ended(Outcome::Cancelled("enough".into()), id(1, 3));
    let events = replay(&cancelled, &steps[..1], id(1, 2)).unwrap();
    assert_eq!((events.len(), events[0].step), (1, 2));
}

fn input(n: u32, accepted: EventId, last: EventId) -> StepRecord {
    let id = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
    let message = json!({"role": "user", "content": "In euros."});
    let input = StepData::Input {
        id,
        position: n,
        accepted_event_id: Some(accepted),
    };
    step(n, Some(last), input, Some(message))
}

#[test]
fn messages_to_the_run_are_shown_after_the_commit_that_took_them() {
    let asks = json!({"role": "assistant", "content": "Hm."});
    let steps = vec![
        turn(1, id(1, 4), asks),
        call(2, id(1, 5), id(1, 6)),
        // The first was shown as accepted while the tool worked, the second after the commit.
        input(3, id(1, 3), id(1, 7)),
        input(4, id(1, 8), id(1, 9)),
        turn(
            5,
            id(1, 10),
            json!({"role": "assistant", "content": "Done."}),
        ),
    ];
    let run = completed(id(1, 11));
    let events = replay(&run, &steps, id(1, 5)).unwrap();
    let expected = [
        (1, 6, "tool.finished"),
        (1, 7, "input.applied"),
        (1, 8, "input.accepted"),
        (1, 9, "input.applied"),
        (1, 10, "text.delta"),
        (1, 11, "run.completed"),
    ];
    assert_eq!(shown(&events), expected);
    // A worker that died right after the commit may have shown none of its events.
    let again = |last| {
        let shown = crate::shown_by_commit(&steps[..4], &[], last);
        let kinds: Vec<_> = shown
            .iter()
            .map(|(step, data)| (*step, data.kind().to_owned()))
            .collect();
        kinds
    };
    let applied = |step| (step, "input.applied".to_owned());
    let finished = (2, "tool.finished".to_owned());
    let accepted = (4, "input.accepted".to_owned());
    let all = [finished.clone(), applied(3), accepted, applied(4)];
    assert_eq!(again(id(1, 9)), all);
    assert_eq!(again(id(1, 6)), [finished]);
    assert_eq!(again(id(1, 4)), [(1, "usage".to_owned())]);
}

#[test]
fn a_message_that_was_accepted_within_a_turn_is_shown_there_and_is_no_cursor() {
    let said = json!({"role": "assistant", "content": "a", "reasoning_content": "b"});
    let last = json!({"role": "assistant", "content": "Done."});
    // The turn ends with the acceptance, so its last delta has an earlier id.
    let steps = vec![
        turn(1, id(1, 9), said),
        input(2, id(1, 8), id(1, 10)),
        input(3, id(1, 6), id(1, 11)),
        turn(4, id(1, 12), last),
    ];
    let run = completed(id(1, 13));
    let events = replay(&run, &steps, EventId::ORIGIN).unwrap();
    let expected = [
        (1, 1, "run.started"),
        (1, 5, "reasoning.delta"),
        (1, 6, "input.accepted"),
        (1, 7, "text.delta"),
        (1, 8, "input.accepted"),
        (1, 9, "usage"),
        (1, 10, "input.applied"),
        (1, 11, "input.applied"),
        (1, 12, "text.delta"),
        (1, 13, "run.completed"),
    ];
    assert_eq!(shown(&events), expected);
    // Text of the turn may have come before the one and after the other.
    let within = replay(&run, &steps, id(1, 6));
    assert!(matches!(within, Err(ReplayError::CursorUnknown(_))));
    assert_eq!(
        shown(&replay(&run, &steps, id(1, 8)).unwrap()),
        expected[5..]
    );
}
