use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{ChunkWriter, SseDecoder, ToolCall};

fn fold(chunks: &[Value]) -> Result<(FinishedMessage, Vec<Delta>), AccumulateError> {
    let mut accumulator = ChatAccumulator::new("call_x_", 10_000);
    let mut deltas = Vec::new();
    for chunk in chunks {
        let text = chunk.to_string();
        accumulator.fold(serde_json::from_str(&text).unwrap(), &mut deltas)?;
    }
    Ok((accumulator.finish()?, deltas))
}

fn delta(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta}]})
}

fn end(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn fragments_of_two_interleaved_calls_are_joined_by_index() {
    let (finished, deltas) = fold(&[
        delta(&json!({"role": "assistant", "content": null, "tool_calls": [
            {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]})),
        delta(&json!({"tool_calls": [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\""},
             "extra_content": {"signature": "s"}}]})),
        delta(&json!({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}},
            {"index": 0, "function": {"arguments": ":1}"}}]})),
        end("tool_calls"),
        json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
    ])
    .unwrap();
    assert_eq!(
        serde_json::to_value(&finished.message).unwrap(),
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"},
             "extra_content": {"signature": "s"}},
        ]}),
    );
    assert_eq!(finished.usage, Some(Usage::new(1, 2)));
    assert_eq!(
        deltas.last(),
        Some(&Delta::ToolCall {
            index: 1,
            id: None,
            name: None,
            arguments: ":1}".to_owned()
        }),
    );
}

#[test]
fn calls_without_index_and_id_are_told_apart_and_named() {
    let (finished, deltas) = fold(&[
        delta(&json!({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]})),
        delta(&json!({"tool_calls": [{"function": {"arguments": "}"}}]})),
        end("stop"),
    ])
    .unwrap();
    let calls = finished.message.tool_calls.unwrap();
    assert_eq!(calls, [ToolCall::function("call_x_0", "f", "{}")]);
    assert!(matches!(&deltas[0], Delta::ToolCall { id, .. } if id.as_deref() == Some("call_x_0")));

    let (finished, _) = fold(&[
        delta(&json!({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "1"}}]})),
        delta(&json!({"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "2"}}]})),
        end("tool_calls"),
    ])
    .unwrap();
    assert_eq!(finished.message.tool_calls.unwrap().len(), 2);
}

#[test]
fn a_stream_without_a_finish_reason_is_incomplete() {
    assert_eq!(
        fold(&[delta(&json!({"content": "half"}))]).unwrap_err(),
        AccumulateError::Incomplete,
    );
}

#[test]
fn an_error_inside_the_stream_is_an_error() {
    let error = fold(&[
        delta(&json!({"content": "half"})),
        json!({"error": {"message": "overloaded", "code": 529}}),
    ])
    .unwrap_err();
    let AccumulateError::Reported(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.message, "overloaded");
}

#[test]
fn an_answer_beyond_the_limit_and_a_call_without_a_name_are_refused() {
    let long = "x".repeat(6_000);
    let chunk = delta(&json!({"content": long}));
    assert_eq!(
        fold(&[chunk.clone(), chunk]).unwrap_err(),
        AccumulateError::TooLong { limit: 10_000 },
    );
    let nameless = fold(&[
        delta(&json!({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]})),
        end("tool_calls"),
    ]);
    assert!(matches!(nameless, Err(AccumulateError::Malformed(_))));
}

#[test]
fn reasoning_refusal_and_unknown_fields_are_kept_in_the_message() {
    let (finished, deltas) = fold(&[
        delta(&json!({"reasoning_content": "hm", "reasoning_details": [1]})),
        delta(&json!({"refusal": "no", "reasoning_details": [2], "annotations": []})),
        end("content_filter"),
    ])
    .unwrap();
    assert_eq!(
        serde_json::to_value(finished.message).unwrap(),
        json!({"role": "assistant", "content": null, "refusal": "no", "reasoning_content": "hm",
            "reasoning_details": [1, 2], "annotations": []}),
    );
    let told = |name: &str, json: &str| Delta::Field {
        of: FieldOf::Message,
        name: name.to_owned(),
        json: json.to_owned(),
    };
    assert_eq!(
        deltas,
        [
            Delta::Reasoning("hm".to_owned()),
            told("reasoning_details", "[1]"),
            Delta::Refusal("no".to_owned()),
            told("annotations", "[]"),
            told("reasoning_details", "[2]"),
        ],
    );
}

/// Returns the calls of these `tool_calls` lists, as (id, name, arguments).
fn calls(lists: &[Value]) -> Vec<(String, String, String)> {
    let mut chunks: Vec<_> = lists
        .iter()
        .map(|list| delta(&json!({"tool_calls": list})))
        .collect();
    chunks.push(end("tool_calls"));
    let (finished, deltas) = fold(&chunks).unwrap();
    let calls = finished.message.tool_calls.unwrap_or_default();
    let shown = deltas
        .iter()
        .filter(|delta| matches!(delta, Delta::ToolCall { id: Some(_), .. }));
    assert_eq!(shown.count(), calls.len(), "each call is announced once");
    calls
        .into_iter()
        .map(|call| {
            (
                call.id.clone(),
                call.name().to_owned(),
                call.arguments().to_owned(),
            )
        })
        .collect()
}

#[test]
fn a_new_id_or_a_second_name_opens_a_new_call() {
    let f = |id: &str| json!({"index": 0, "id": id, "function": {"name": "f", "arguments": "{\"x\":1}"}});
    let call = |id: &str, name: &str, arguments: &str| {
        (id.to_owned(), name.to_owned(), arguments.to_owned())
    };
    for (name, lists, expected) in [
        (
            "both have the index 0",
            json!([[f("a")], [f("b")]]),
            vec![call("a", "f", "{\"x\":1}"), call("b", "f", "{\"x\":1}")],
        ),
        (
            "both have the index 0, in one frame and in pieces",
            json!([[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
                [{"index": 0, "function": {"arguments": "{}"}}],
                [{"index": 0, "id": "b", "function": {"name": "g", "arguments": ""}}],
                [{"index": 0, "id": "", "function": {"name": "", "arguments": "{\"y\":"}}],
                [{"index": 0, "id": "", "function": {"arguments": "2}"}}]]),
            vec![call("a", "f", "{}"), call("b", "g", "{\"y\":2}")],
        ),
        (
            "whole calls of one function without index and id",
            json!([[{"function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"function": {"name": "f", "arguments": "{\"x\":2}"}}]]),
            vec![
                call("call_x_0", "f", "{\"x\":1}"),
                call("call_x_1", "f", "{\"x\":2}"),
            ],
        ),
        (
            "an id that is drawn anew for every fragment",
            json!([[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
                [{"index": 0, "id": "b", "function": {"arguments": "{\"x\":"}}],
                [{"index": 0, "id": "c", "function": {"arguments": "1}"}}]]),
            vec![call("a", "f", "{\"x\":1}")],
        ),
        (
            "id and name in every fragment",
            json!([[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":"}}],
                [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}],
                [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}}]]),
            vec![call("a", "f", "{\"x\":{}}")],
        ),
        (
            "arguments as an object, and an index below zero",
            json!([[{"index": -1, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
                {"index": -1, "id": "b", "function": {"name": "g", "arguments": {}}}]]),
            vec![call("a", "f", "{\"x\":1}"), call("b", "g", "{}")],
        ),
        (
            "two calls with one id",
            json!([[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
                {"index": 1, "id": "a", "function": {"name": "g", "arguments": "{}"}}]]),
            vec![call("a", "f", "{}"), call("call_x_1", "g", "{}")],
        ),
        (
            "the object around name and arguments left out",
            json!([[{"id": "a", "name": "f", "arguments": {"x": 1}}]]),
            vec![call("a", "f", "{\"x\":1}")],
        ),
    ] {
        let lists = lists.as_array().unwrap();
        assert_eq!(calls(lists), expected, "{name}");
    }
}

#[test]
fn the_older_form_of_a_call_is_left_out_beside_others_and_joined_alone() {
    let pieces = |with: &Value| {
        let mut first = json!({"function_call": {"name": "f", "arguments": "{\"x\":"}});
        if !with.is_null() {
            first["tool_calls"] = with.clone();
        }
        fold(&[
            delta(&first),
            delta(&json!({"function_call": {"arguments": "1}"}})),
            end("function_call"),
        ])
        .unwrap()
        .0
    };
    let alone = pieces(&Value::Null);
    assert_eq!(
        alone.message.tool_calls.unwrap(),
        [ToolCall::function("call_x_0", "f", "{\"x\":1}")]
    );
    let beside = pieces(
        &json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}]),
    );
    assert_eq!(
        beside.message.tool_calls.unwrap(),
        [ToolCall::function("a", "f", "{\"x\":1}")]
    );
    assert_eq!(beside.message.rest.get("function_call"), None);
}

#[test]
fn an_end_that_is_not_known_to_be_good_is_told_from_a_good_one() {
    for reason in ["abort", "error", "insufficient_system_resource", "tomorrow"] {
        let error =
            fold(&[delta(&json!({"content": "half"})), end(reason), end("stop")]).unwrap_err();
        assert_eq!(error, AccumulateError::BadEnd(reason.to_owned()));
    }
    let (finished, _) = fold(&[delta(&json!({"content": "half"})), end("MAX_TOKENS")]).unwrap();
    assert_eq!(finished.finish_reason, FinishReason::Length);
}

#[test]
fn a_reason_to_stop_that_comes_with_text_proves_no_end() {
    for (chunks, sure) in [
        (vec![delta(&json!({"content": "a"})), end("stop")], true),
        (
            vec![json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})],
            false,
        ),
        (vec![end("stop"), delta(&json!({"content": "a"}))], false),
        (vec![end("error")], false),
    ] {
        let mut accumulator = ChatAccumulator::new("call_", 10_000);
        for chunk in &chunks {
            let chunk = chunk.to_string();
            accumulator
                .fold(serde_json::from_str(&chunk).unwrap(), &mut Vec::new())
                .unwrap();
        }
        assert_eq!(accumulator.is_surely_complete(), sure, "{chunks:?}");
        assert!(accumulator.is_complete());
    }
}

#[test]
fn a_whole_answer_behind_its_pieces_says_nothing_twice() {
    let whole = json!({"object": "chat.completion", "choices": [{"message": {"content": "hello",
        "annotations": [1]}, "finish_reason": "stop"}]});
    let piece = delta(&json!({"content": "hello", "annotations": [1]}));
    for chunks in [vec![piece, whole.clone()], vec![whole]] {
        let (finished, _) = fold(&chunks).unwrap();
        assert_eq!(finished.message.plain_text(), "hello");
        assert_eq!(finished.message.rest["annotations"], json!([1]));
    }
}

#[test]
fn fields_are_passed_on_as_they_came_and_not_repeated() {
    let chunk = |logprob: &str| {
        let frame = format!(
            r#"{{"model":"m","system_fingerprint":"fp","obfuscation":"xx","created":3,
            "choices":[{{"delta":{{"content":"a"}},"logprobs":{{"content":[{{"logprob":{logprob}}}]}}}}]}}"#
        );
        frame
    };
    let mut accumulator = ChatAccumulator::new("call_", 10_000);
    let mut deltas = Vec::new();
    for frame in [chunk("-0.10000000000000000001"), chunk("-2")] {
        accumulator
            .fold(serde_json::from_str(&frame).unwrap(), &mut deltas)
            .unwrap();
    }
    let told: Vec<_> = deltas
        .iter()
        .filter_map(|delta| match delta {
            Delta::Field { of, name, json } => Some((*of, name.as_str(), json.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            (FieldOf::Completion, "model", "\"m\""),
            (
                FieldOf::Choice,
                "logprobs",
                r#"{"content":[{"logprob":-0.10000000000000000001}]}"#
            ),
            (FieldOf::Completion, "system_fingerprint", "\"fp\""),
            (
                FieldOf::Choice,
                "logprobs",
                r#"{"content":[{"logprob":-2}]}"#
            ),
        ],
    );
}

fn pieces(text: &str, at: &[prop::sample::Index]) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut at: Vec<usize> = at.iter().map(|at| at.index(chars.len() + 1)).collect();
    at.extend([0, chars.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| chars[pair[0]..pair[1]].iter().collect())
        .collect()
}

proptest! {
    /// Writes, cuts anywhere, decodes and folds a message: it comes out whole.
    #[test]
    fn a_streamed_message_is_the_whole_message(
        text in "[a-z\"\\\\\n é🦀]{0,40}",
        calls in proptest::collection::vec(("[a-z]{1,5}", "[a-z{}\":\\\\é]{0,20}"), 0..4),
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        network in 1_usize..40,
    ) {
        let writer = ChunkWriter::new("chatcmpl-1", 1, "m", true);
        let mut out = BytesMut::new();
        writer.role(&mut out);
        for piece in pieces(&text, &at) {
            writer.text(&mut out, &piece);
        }
        for (index, (name, arguments)) in (0_u32..).zip(&calls) {
            writer.tool_call(&mut out, index, &format!("call_{index}"), name, "");
            for piece in pieces(arguments, &at) {
                writer.tool_call_arguments(&mut out, index, &piece);
            }
        }
        writer.finish(&mut out, "stop");
        writer.usage(&mut out, &Usage::new(5, 6));
        ChunkWriter::done(&mut out);

        let mut decoder = SseDecoder::new(10_000);
        let mut accumulator = ChatAccumulator::new("call_", 10_000);
        let mut deltas = Vec::new();
        let mut done = false;
        for piece in out.chunks(network) {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next_event().unwrap() {
                if &event.data[..] == b"[DONE]" {
                    done = true;
                } else {
                    accumulator.fold(serde_json::from_slice(&event.data).unwrap(), &mut deltas).unwrap();
                }
            }
        }
        prop_assert!(done);
        let finished = accumulator.finish().unwrap();
        prop_assert_eq!(finished.message.plain_text(), text.clone());
        let expected: Vec<_> = (0..)
            .zip(&calls)
            .map(|(index, (name, arguments))| ToolCall::function(format!("call_{index}"), name, arguments))
            .collect();
        prop_assert_eq!(finished.message.tool_calls.unwrap_or_default(), expected);
        prop_assert_eq!(finished.usage, Some(Usage::new(5, 6)));
        let shown: String = deltas
            .iter()
            .filter_map(|delta| match delta { Delta::Text(text) => Some(text.as_str()), _ => None })
            .collect();
        prop_assert_eq!(shown, text);
    }
}

/// Guards that a run does not ask again and again for a call that nobody can make.
#[test]
fn a_call_of_a_kind_that_is_not_served_is_no_answer() {
    for kind in ["custom", "mcp"] {
        let failed = fold(&[
            delta(&json!({"tool_calls": [{"index": 0, "id": "a", "type": kind,
                kind: {"name": "sql", "input": "select 1"}}]})),
            end("tool_calls"),
        ]);
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("not served"), "{kind}: {error}");
    }
}

#[test]
fn fields_are_passed_on_only_as_json_that_every_reader_understands() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let frame = format!(
        r#"{{"service_tier":"\ud83d","deep":{deep},"choices":[{{
            "delta":{{"audio":{{"data":"\ude00"}},"deep":{deep}}},
            "token":"a\ud83d","huge":1e999,"deep":{deep}}}]}}"#
    );
    let mut accumulator = ChatAccumulator::new("call_", 10_000);
    let mut deltas = Vec::new();
    accumulator
        .fold(serde_json::from_str(&frame).unwrap(), &mut deltas)
        .unwrap();
    let field = |of, name: &str, json: &str| Delta::Field {
        of,
        name: name.to_owned(),
        json: json.to_owned(),
    };
    assert_eq!(
        deltas,
        [
            field(FieldOf::Message, "audio", r#"{"data":"\ufffd"}"#),
            field(FieldOf::Choice, "token", r#""a\ufffd""#),
            field(FieldOf::Completion, "service_tier", r#""\ufffd""#),
        ],
    );
}
