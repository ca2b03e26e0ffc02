use baton_protocol::event::{
    AnswerField, AnswerPart, AttemptReset, RunCompleted, RunFailed, Text, ToolCallDelta,
    ToolStarted,
};
use serde_json::Value;

use super::*;
use crate::routes::chat_completions::samples::{event, run};

fn text(n: u32, text: &str) -> Event {
    event(
        EventId::new(1, n),
        EventData::TextDelta(Text { text: text.into() }),
    )
}

fn reset(resume_after: EventId, continues: bool) -> Event {
    let data = AttemptReset {
        resume_after,
        continues,
    };
    event(EventId::new(2, 1), EventData::AttemptReset(data))
}

fn completed(finish_reason: FinishReason) -> Event {
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
        total_tokens: 5,
        estimated: false,
    };
    event(
        EventId::new(2, 9),
        EventData::RunCompleted(RunCompleted {
            finish_reason,
            usage,
        }),
    )
}

fn stream(include_usage: bool, events: &[Event]) -> (Vec<String>, Option<StreamEnd>) {
    let mut frames = ChatFrames::new(run(), "m", include_usage);
    let mut out = BytesMut::new();
    let mut end = None;
    for event in events {
        assert_eq!(end, None, "nothing follows the end");
        end = frames.write(&mut out, event);
    }
    let text = String::from_utf8(out.to_vec()).unwrap();
    let frames = text
        .split_terminator("\n\n")
        .map(|frame| frame.strip_prefix("data: ").unwrap().to_owned())
        .collect();
    (frames, end)
}

fn json(frame: &str) -> Value {
    serde_json::from_str(frame).unwrap()
}

#[test]
fn a_stream_is_role_text_finish_usage_done() {
    let started = ToolStarted {
        call_id: "s".into(),
        name: "t".into(),
        arguments: "{}".into(),
        edited: false,
    };
    let (frames, end) = stream(
        true,
        &[
            event(EventId::new(1, 1), EventData::ToolStarted(started)),
            text(2, "he"),
            text(3, ""),
            text(4, "llo"),
            completed(FinishReason::Stop),
        ],
    );
    assert_eq!(end, Some(StreamEnd::Finished));
    assert_eq!(frames.len(), 6, "{frames:#?}");
    assert_eq!(json(&frames[0])["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(json(&frames[1])["choices"][0]["delta"]["content"], "he");
    assert_eq!(json(&frames[2])["choices"][0]["delta"]["content"], "llo");
    assert_eq!(json(&frames[3])["choices"][0]["finish_reason"], "stop");
    assert_eq!(json(&frames[4])["usage"]["total_tokens"], 5);
    assert_eq!(frames[5], "[DONE]");
}

#[test]
fn client_tool_calls_appear_fragment_by_fragment() {
    let fragment = |n, id: Option<&str>, arguments: &str| {
        let data = ToolCallDelta {
            index: 0,
            id: id.map(Into::into),
            name: id.map(|_| "f".into()),
            arguments: arguments.into(),
        };
        event(EventId::new(1, n), EventData::ToolCallDelta(data))
    };
    let (frames, _) = stream(
        false,
        &[
            fragment(1, Some("call_1"), ""),
            fragment(2, None, "{}"),
            completed(FinishReason::ToolCalls),
        ],
    );
    let call = |frame: &str| json(frame)["choices"][0]["delta"]["tool_calls"][0].clone();
    assert_eq!(
        (&call(&frames[1])["id"], &call(&frames[1])["type"]),
        (&"call_1".into(), &"function".into())
    );
    assert_eq!(call(&frames[2])["function"]["arguments"], "{}");
    assert_eq!(
        json(&frames[3])["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert_eq!(frames[4], "[DONE]");
}

#[test]
fn a_call_in_its_older_form_is_streamed_as_function_call() {
    let fragment = |n, index, name: Option<&str>, arguments: &str| {
        let data = ToolCallDelta {
            index,
            id: name.map(|_| format!("call_{index}")),
            name: name.map(Into::into),
            arguments: arguments.into(),
        };
        event(EventId::new(1, n), EventData::ToolCallDelta(data))
    };
    let mut frames = ChatFrames::new(run(), "m", false).with_older_calls(true);
    let mut out = BytesMut::new();
    for event in [
        fragment(1, 0, Some("f"), ""),
        fragment(2, 0, None, "{}"),
        fragment(3, 1, Some("g"), "{}"),
        completed(FinishReason::ToolCalls),
    ] {
        frames.write(&mut out, &event);
    }
    let text = String::from_utf8(out.to_vec()).unwrap();
    let frames: Vec<_> = text
        .split_terminator("\n\n")
        .map(|frame| frame.strip_prefix("data: ").unwrap())
        .collect();
    let call = |frame: &str| json(frame)["choices"][0]["delta"].clone();
    assert_eq!(
        call(frames[1]),
        serde_json::json!({"function_call": {"name": "f", "arguments": ""}})
    );
    assert_eq!(
        call(frames[2]),
        serde_json::json!({"function_call": {"arguments": "{}"}})
    );
    assert_eq!(
        json(frames[3])["choices"][0]["finish_reason"],
        "function_call"
    );
    assert_eq!(frames[4..], ["[DONE]"]);
}

#[test]
fn a_withdrawal_ends_the_stream_only_if_the_client_saw_what_is_withdrawn() {
    let (frames, end) = stream(false, &[text(1, "seen"), reset(EventId::ORIGIN, false)]);
    assert_eq!(end, Some(StreamEnd::Withdrawn));
    let error = json(frames.last().unwrap());
    assert_eq!(error["error"]["code"], "answer_withdrawn");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&run().to_string())
    );

    for events in [
        vec![reset(EventId::ORIGIN, false), completed(FinishReason::Stop)],
        vec![
            text(1, "x"),
            reset(EventId::ORIGIN, true),
            completed(FinishReason::Stop),
        ],
        vec![
            text(1, "x"),
            reset(EventId::new(1, 1), false),
            completed(FinishReason::Stop),
        ],
    ] {
        let (frames, end) = stream(false, &events);
        assert_eq!(end, Some(StreamEnd::Finished));
        assert_eq!(frames.last().unwrap(), "[DONE]");
    }
}

#[test]
fn a_failure_is_an_error_object_and_no_success_is_made_up() {
    let error = RunError {
        code: "upstream_cut".into(),
        message: "it broke off".into(),
        upstream: None,
    };
    let failed = event(
        EventId::new(1, 2),
        EventData::RunFailed(RunFailed {
            error,
            usage: Usage::default(),
        }),
    );
    let (frames, end) = stream(true, &[text(1, "half"), failed]);
    assert_eq!(end, Some(StreamEnd::Error));
    let object = json(frames.last().unwrap());
    assert_eq!(object["error"]["type"], "server_error");
    assert_eq!(object["error"]["code"], "upstream_cut");
    assert!(frames.iter().all(|frame| frame != "[DONE]"));
}

#[test]
fn what_a_batch_itself_withdraws_is_not_shown() {
    let batch = [
        text(1, "kept"),
        text(2, "gone"),
        reset(EventId::new(1, 1), false),
        completed(FinishReason::Stop),
    ];
    let refs: Vec<&Event> = batch.iter().collect();
    let ids: Vec<_> = standing(&refs).map(|event| event.id).collect();
    assert_eq!(
        ids,
        [EventId::new(1, 1), EventId::new(2, 1), EventId::new(2, 9)]
    );
}

#[test]
fn a_recorded_answer_is_a_whole_stream() {
    let mut frames = ChatFrames::new(run(), "m", true);
    let mut out = BytesMut::new();
    let answer = Answer {
        text: "hello".into(),
        ..Answer::default()
    };
    let usage = Usage {
        total_tokens: 5,
        ..Usage::default()
    };
    frames.write_whole(&mut out, &answer, FinishReason::Stop, usage);
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert_eq!(text.matches("data: ").count(), 5);
    assert!(text.contains("\"content\":\"hello\"") && text.ends_with("data: [DONE]\n\n"));
}

fn field(id: EventId, of: AnswerPart, name: &str, json: &str, more: bool) -> Event {
    let field = AnswerField {
        of,
        name: name.into(),
        json: json.into(),
        more,
    };
    event(id, EventData::AnswerField(field))
}

#[test]
fn fields_that_the_upstream_sent_are_streamed_where_it_had_them() {
    let id = |n| EventId::new(1, n);
    let events = [
        field(id(1), AnswerPart::Completion, "model", r#""other""#, false),
        field(
            id(2),
            AnswerPart::Completion,
            "system_fingerprint",
            r#""fp""#,
            false,
        ),
        text(3, "hi"),
        field(
            id(4),
            AnswerPart::Choice,
            "logprobs",
            r#"{"content":[1.50]}"#,
            false,
        ),
        field(id(5), AnswerPart::Message, "annotations", r#"[{"a"#, true),
        field(id(6), AnswerPart::Message, "annotations", r#"":1}]"#, false),
        field(
            id(7),
            AnswerPart::Completion,
            "citations",
            r#"["u"]"#,
            false,
        ),
        field(
            id(8),
            AnswerPart::Usage,
            "prompt_tokens_details",
            r#"{"cached_tokens":2}"#,
            false,
        ),
        completed(FinishReason::Stop),
    ];
    let (frames, end) = stream(true, &events);
    assert_eq!(end, Some(StreamEnd::Finished));
    let chunks: Vec<_> = frames[..frames.len() - 1]
        .iter()
        .map(|frame| json(frame))
        .collect();
    for chunk in &chunks {
        assert_eq!(chunk["model"], "other", "{chunk}");
        assert_eq!(chunk["system_fingerprint"], "fp", "{chunk}");
    }
    let choice = |at: usize| &chunks[at]["choices"][0];
    assert_eq!(choice(1)["delta"]["content"], "hi");
    assert_eq!(choice(2)["logprobs"]["content"][0], 1.5);
    assert!(frames[2].contains("1.50"), "digit by digit");
    assert_eq!(choice(3)["delta"]["annotations"][0]["a"], 1);
    assert_eq!(chunks[4]["citations"][0], "u");
    assert_eq!(choice(5)["finish_reason"], "stop");
    assert_eq!(
        chunks[6]["usage"]["prompt_tokens_details"]["cached_tokens"],
        2
    );
}

#[test]
fn fields_of_a_withdrawn_attempt_are_not_the_next_ones() {
    let id = |n| EventId::new(1, n);
    let events = [
        field(id(1), AnswerPart::Completion, "model", r#""gone""#, false),
        field(
            id(2),
            AnswerPart::Completion,
            "service_tier",
            r#""flex"#,
            true,
        ),
        reset(EventId::ORIGIN, false),
        event(
            EventId::new(2, 2),
            EventData::TextDelta(Text { text: "new".into() }),
        ),
        completed(FinishReason::Stop),
    ];
    let (frames, end) = stream(false, &events);
    assert_eq!(end, Some(StreamEnd::Finished));
    for frame in &frames[..frames.len() - 1] {
        let chunk = json(frame);
        assert_eq!(chunk["model"], "m", "{chunk}");
        assert_eq!(chunk.get("service_tier"), None, "{chunk}");
    }
}

#[test]
fn tokens_that_were_estimated_say_so_and_tokens_that_nobody_counted_are_none() {
    let end = |usage| {
        event(
            EventId::new(1, 2),
            EventData::RunCompleted(RunCompleted {
                finish_reason: FinishReason::Stop,
                usage,
            }),
        )
    };
    let estimated = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
        total_tokens: 5,
        estimated: true,
    };
    let (frames, _) = stream(true, &[text(1, "x"), end(estimated)]);
    let usage = &json(&frames[frames.len() - 2])["usage"];
    assert_eq!(
        (&usage["total_tokens"], &usage["estimated"]),
        (&5.into(), &true.into())
    );
    let (frames, _) = stream(true, &[text(1, "x"), end(Usage::default())]);
    assert!(
        frames[..frames.len() - 1]
            .iter()
            .all(|frame| json(frame)["usage"].is_null()),
        "{frames:#?}"
    );
}
