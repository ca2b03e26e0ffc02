use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{ChunkWriter, SseDecoder};

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
    assert_eq!(
        deltas,
        [
            Delta::Reasoning("hm".to_owned()),
            Delta::Refusal("no".to_owned())
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
    /// Written by the writer, cut anywhere, decoded and folded: the message comes out whole.
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
