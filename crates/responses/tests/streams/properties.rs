//! A stream is the same wherever it is cut, on every server that goes on with it.

use baton_protocol::{Event, EventData, EventId, FinishReason};
use baton_responses::checker::{StreamChecker, split_frames};
use baton_responses::{ResponseStream, SequenceNumber};
use proptest::prelude::*;

use super::log::{Log, head, stream};

/// A request that names an MCP server.
pub(super) const MCP: &str = r#","tools":[{"type":"mcp","server_label":"crm"}]"#;

/// One turn: its reasoning, text and calls, each in fragments; whether it breaks off once before; and
/// whether a server's tool is called after it.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    reasoning: Vec<String>,
    text: Vec<String>,
    refusal: Vec<String>,
    broken: Vec<String>,
    worker_lost: bool,
    compacted: bool,
    /// Whether two tools of an MCP server are called too, and end in the other order.
    mcp: bool,
    /// Whether the upstream counts more than the usual tokens.
    counted: bool,
}

impl Turn {
    /// Takes out what it withdraws.
    pub(super) fn mend(&mut self) {
        self.broken.clear();
    }
}

pub(super) fn fragments() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-z ]{1,6}", 0..4)
}

pub(super) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let refusal = prop::collection::vec("[a-z ]{1,6}", 0..2);
    let parts = (fragments(), fragments(), refusal, fragments());
    let turn = (parts, any::<[bool; 4]>()).prop_map(
        |((reasoning, text, refusal, broken), [worker_lost, compacted, mcp, counted])| Turn {
            reasoning,
            text,
            refusal,
            broken,
            worker_lost,
            compacted,
            mcp,
            counted,
        },
    );
    prop::collection::vec(turn, 1..4)
}

/// The log as the stream has it, with the final turn's calls of the client.
pub(super) fn live(turns: &[Turn], calls: &[String]) -> Log {
    let mut log = Log::begun();
    for (index, turn) in turns.iter().enumerate() {
        let before = log.last();
        if !turn.broken.is_empty() {
            for text in &turn.broken {
                log.text(text);
            }
            if turn.worker_lost {
                log.lost(before);
            } else {
                log.reset(before);
            }
        }
        for text in &turn.reasoning {
            log.reasoning(text);
        }
        for text in &turn.text {
            log.text(text);
        }
        for text in &turn.refusal {
            log.refusal(text);
        }
        let count = |log: &mut Log| {
            if turn.counted {
                log.counts("details", &format!(r#"{{"cached":{index}}}"#));
            }
        };
        if index + 1 < turns.len() {
            count(&mut log);
            log.turn_recorded().server_call("42");
            if turn.mcp {
                let (one, other) = (log.step + 1, log.step + 2);
                log.mcp_started(one, "crm__find");
                log.mcp_started(other, "crm__pay");
                log.mcp_finished(other, "crm__pay", true);
                log.mcp_finished(one, "crm__find", true);
                log.step = other;
            }
            if turn.compacted {
                log.compacted();
            }
            log.next_step();
        } else {
            for (index, arguments) in (0..).zip(calls) {
                log.call(index, true, "");
                for character in arguments.chars() {
                    log.call(index, false, &character.to_string());
                }
            }
            count(&mut log);
        }
    }
    log.completed(FinishReason::Stop);
    log
}

/// The log as the record has it: nothing withdrawn, and each run of deltas of a kind joined into one
/// with the id of the last.
pub(super) fn rebuilt(log: &Log) -> Vec<Event> {
    let mut kept: Vec<Event> = Vec::new();
    for event in &log.events {
        if let EventData::AttemptReset(reset) = &event.data {
            kept.retain(|known| known.id <= reset.resume_after);
            continue;
        }
        let joined = match (kept.last_mut().map(|last| &mut last.data), &event.data) {
            (Some(EventData::TextDelta(known)), EventData::TextDelta(more))
            | (Some(EventData::ReasoningDelta(known)), EventData::ReasoningDelta(more))
            | (Some(EventData::RefusalDelta(known)), EventData::RefusalDelta(more)) => {
                known.text.push_str(&more.text);
                true
            }
            (Some(EventData::ToolCallDelta(known)), EventData::ToolCallDelta(more))
                if known.index == more.index =>
            {
                known.arguments.push_str(&more.arguments);
                true
            }
            _ => false,
        };
        match kept.last_mut() {
            Some(last) if joined => last.id = event.id,
            _ => kept.push(event.clone()),
        }
    }
    kept
}

pub(super) fn numbers(frames: &str) -> Vec<u64> {
    let frames = split_frames(frames).unwrap();
    let numbers = frames.iter();
    numbers
        .map(|(_, data)| data["sequence_number"].as_u64().unwrap())
        .collect()
}

/// The frames up to the one with this number.
pub(super) fn cut(frames: &str, number: u64) -> String {
    let kept = frames.split_inclusive("\n\n").take_while(|frame| {
        let own = numbers(frame);
        own[0] <= number
    });
    kept.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stream_that_is_resumed_anywhere_is_one_uncut_stream(turns in turns(), calls in fragments()) {
        let log = live(&turns, &calls);
        for fields in [MCP, r#","background":true,"tools":[{"type":"mcp","server_label":"crm"}]"#] {
            let whole = stream(head(fields), &log.events, None, false);
            StreamChecker::read(&whole).unwrap().finish().unwrap();
            for number in numbers(&whole) {
                let after = Some(SequenceNumber::from_u64(number));
                let rest = stream(head(fields), &log.events, after, false);
                prop_assert_eq!(cut(&whole, number) + &rest, &*whole);
            }
        }
    }

    #[test]
    fn a_rebuilt_stream_goes_on_where_the_live_one_was_cut(turns in turns(), calls in fragments()) {
        let log = live(&turns, &calls);
        let events = rebuilt(&log);
        let whole = stream(head(MCP), &log.events, None, false);
        let told = StreamChecker::read(&whole).unwrap();
        // The record knows the ids of the commits, and of the last delta of each turn.
        let exact: Vec<EventId> = events.iter().map(|event| event.id).collect();
        for number in numbers(&whole) {
            let after = SequenceNumber::from_u64(number);
            let event = events.iter().find(|event| event.id == after.event);
            if after.event != EventId::ORIGIN && !exact.contains(&after.event)
                || !ResponseStream::resumes_rebuilt(after, event.map(|event| &event.data))
            {
                continue;
            }
            let rest = stream(head(MCP), &events, Some(after), true);
            let joined = StreamChecker::read(&(cut(&whole, number) + &rest)).unwrap();
            joined.finish().unwrap();
            let kept = |checker: &StreamChecker| -> Vec<_> {
                let items = checker.items.iter();
                let done = items.filter(|item| item.done.as_deref() == Some("completed"));
                done.map(|item| item.texts.clone()).collect()
            };
            prop_assert_eq!(kept(&joined), kept(&told));
            prop_assert_eq!(&joined.response, &told.response);
        }
    }

    #[test]
    fn rebuilt_frames_have_the_numbers_of_live_ones(turns in turns(), calls in fragments()) {
        let log = live(&turns, &calls);
        let live: Vec<_> = numbers(&stream(head(MCP), &log.events, None, false))
            .into_iter()
            .map(|number| (SequenceNumber::from_u64(number).event, number))
            .collect();
        let rebuilt = stream(head(MCP), &rebuilt(&log), None, true);
        for number in numbers(&rebuilt) {
            let event = SequenceNumber::from_u64(number).event;
            prop_assert!(live.iter().any(|(known, _)| *known == event), "{}", number);
        }
    }
}

#[test]
fn text_after_a_call_and_reasoning_after_text_open_further_items() {
    let mut log = Log::begun();
    log.text("A").reasoning("r").text("B");
    log.call(0, true, "{}")
        .text("C")
        .completed(FinishReason::Stop);
    let frames = stream(head(""), &log.events, None, false);
    let checker = StreamChecker::read(&frames).unwrap();
    checker.finish().unwrap();
    let texts: Vec<_> = checker
        .items
        .iter()
        .map(|item| item.texts.join(""))
        .collect();
    assert_eq!(texts, ["AB", "r", "{}", "C"]);
    let output = &checker.response.unwrap()["output"];
    let kinds: Vec<_> = output
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["type"])
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(output[1]["content"][0]["text"], "ABC");
    let last = *numbers(&frames).last().unwrap();
    assert_eq!(
        SequenceNumber::from_u64(last).extra,
        1,
        "the second message"
    );
}

#[test]
fn hundreds_of_calls_at_once_keep_the_numbers_rising() {
    let mut log = Log::begun();
    for index in 0..300 {
        log.call(index, true, "{");
    }
    for index in 0..300 {
        log.call(index, false, "}");
    }
    log.completed(FinishReason::ToolCalls);
    let checker = StreamChecker::read(&stream(head(""), &log.events, None, false)).unwrap();
    checker.finish().unwrap();
    let output = &checker.response.unwrap()["output"];
    assert!(
        output
            .as_array()
            .unwrap()
            .iter()
            .all(|call| call["arguments"] == "{}")
    );
}
