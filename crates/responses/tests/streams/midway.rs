//! A stream that goes on without the log before its cursor is the rest of the whole one.

use baton_protocol::{AnswerOrder, AnswerPlace, Event, EventData, EventId, FinishReason};
use baton_responses::{ResponseStream, SequenceNumber};
use proptest::prelude::*;

use super::log::{Log, head, stream};
use super::properties::{MCP, Turn, cut, fragments, live, numbers, rebuilt, turns};

const BACKGROUND: &str = r#","background":true,"tools":[{"type":"mcp","server_label":"crm"}]"#;
/// The places of a delta and of an end, among the frames of an event.
const DELTA: u8 = 112;
const END: u8 = 127;

fn is_unbroken(log: &Log) -> bool {
    let mut order = AnswerOrder::new();
    for event in &log.events {
        order.take(event.step, &event.data);
    }
    !order.is_broken()
}

fn at(log: &Log, id: EventId) -> Option<usize> {
    log.events.iter().position(|event| event.id == id)
}

/// The frames after `after`, without the log before it; `None` if they need that.
fn midway(fields: &str, log: &Log, known: &[Event], after: SequenceNumber) -> Option<String> {
    let at = at(log, after.event)?;
    let mut stream = ResponseStream::new(head(fields), Some(after));
    let mut out = stream.begin_midway(&log.events[at], known, |_| Some("c2VhbGVk"))?;
    for event in &log.events[at + 1..] {
        if matches!(event.data, EventData::ContextCompacted(_)) {
            stream.use_summary("c2VhbGVk".to_owned());
        }
        stream.write(&mut out, event);
    }
    Some(String::from_utf8(out.to_vec()).unwrap())
}

/// The cursors of a log: its frames, and each event as an error has it that ends a stream early.
fn cursors(log: &Log, whole: &str) -> Vec<SequenceNumber> {
    let of_error = |event: &Event| SequenceNumber {
        event: event.id,
        frame: END,
        extra: 0,
    };
    let frames = numbers(whole).into_iter().map(SequenceNumber::from_u64);
    frames.chain(log.events.iter().map(of_error)).collect()
}

/// Whether a stream must go on after this frame without the log before it.
fn must_go_on(log: &Log, after: SequenceNumber) -> bool {
    at(log, after.event).is_some_and(|at| match &log.events[at].data {
        EventData::TextDelta(_) | EventData::ReasoningDelta(_) | EventData::RefusalDelta(_) => {
            matches!(after.frame, DELTA | END)
        }
        EventData::ToolFinished(_) => {
            let mut later = log.events[at..].iter();
            later.any(|event| AnswerPlace::of(&event.data).is_some())
        }
        EventData::Usage(_) | EventData::ContextCompacted(_) => true,
        _ => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn it_is_the_rest_of_the_whole_one(turns in turns(), calls in fragments()) {
        let mut unbroken = turns;
        unbroken.iter_mut().for_each(Turn::mend);
        let log = live(&unbroken, &calls);
        prop_assert!(is_unbroken(&log));
        let known = rebuilt(&log);
        for fields in ["", MCP, BACKGROUND] {
            let whole = stream(head(fields), &log.events, None, false);
            for after in cursors(&log, &whole) {
                let rest = midway(fields, &log, &known, after);
                prop_assert!(rest.is_some() || !must_go_on(&log, after), "{after:?}");
                if let Some(rest) = rest {
                    prop_assert_eq!(cut(&whole, after.as_u64()) + &rest, &*whole);
                }
            }
        }
    }
}

/// The cursors after a delta of these kinds that need no log before them, of all such.
fn shares(log: &Log, of: fn(&EventData) -> bool) -> (usize, usize) {
    let whole = stream(head(""), &log.events, None, false);
    let known = rebuilt(log);
    let after: Vec<_> = cursors(log, &whole)
        .into_iter()
        .filter(|after| at(log, after.event).is_some_and(|at| of(&log.events[at].data)))
        .collect();
    let goes_on = |after: &&SequenceNumber| midway("", log, &known, **after).is_some();
    (after.iter().filter(goes_on).count(), after.len())
}

#[test]
fn a_call_of_the_client_is_known_if_it_is_the_only_one_of_its_turn() {
    let is_fragment = |data: &EventData| matches!(data, EventData::ToolCallDelta(_));
    let mut log = Log::begun();
    log.reasoning("r")
        .text("A")
        .call(0, true, "{")
        .call(0, false, "}");
    let mut two = log.clone();
    log.completed(FinishReason::ToolCalls);
    // The frames before the first delta, which closes the text and opens the call, need the log.
    let (known, all) = shares(&log, is_fragment);
    assert_eq!((known, all), (4, 8));
    two.call(1, true, "{}").completed(FinishReason::ToolCalls);
    assert_eq!(shares(&two, is_fragment).0, 0, "the indexes may be others");
}

#[test]
fn a_call_of_the_server_is_known_if_a_turn_follows_it() {
    let is_call =
        |data: &EventData| matches!(data, EventData::ToolStarted(_) | EventData::ToolFinished(_));
    let mut log = Log::begun();
    log.text("A").turn_recorded().server_call("42");
    let mut cut_off = log.clone();
    cut_off.cancelled();
    assert_eq!(shares(&cut_off, is_call).0, 0, "another may have begun");
    log.next_step().text("B").completed(FinishReason::Stop);
    let (known, all) = shares(&log, is_call);
    assert!(all > 4 && known == all, "{known} of {all}");
}

#[test]
fn what_the_record_does_not_have_needs_the_log() {
    let mut log = Log::begun();
    log.text("A").text("B").completed(FinishReason::Stop);
    let after = SequenceNumber {
        event: EventId::new(1, 2),
        frame: DELTA,
        extra: 0,
    };
    let known = rebuilt(&log);
    assert!(midway("", &log, &known, after).is_some());
    let is_other = |event: &&Event| !matches!(event.data, EventData::TextDelta(_));
    let without: Vec<_> = known.iter().filter(is_other).cloned().collect();
    assert_eq!(midway("", &log, &without, after), None);
    let extra = SequenceNumber { extra: 1, ..after };
    assert_eq!(
        midway("", &log, &known, extra),
        None,
        "an item was withdrawn"
    );
    let opened = SequenceNumber {
        frame: 111,
        ..after
    };
    assert_eq!(midway("", &log, &known, opened), None);
}
