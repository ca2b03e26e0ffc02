use baton_protocol::event::{AnswerField, AnswerPart, AttemptReset, Text};
use serde_json::json;

use super::*;
use crate::routes::chat_completions::samples::{event, run};

fn text(attempt: u32, n: u32, text: &str) -> Event {
    let data = EventData::TextDelta(Text { text: text.into() });
    Event {
        step: n,
        ..event(EventId::new(attempt, n), data)
    }
}

fn fragment(n: u32, index: u32, id: Option<&str>, arguments: &str) -> Event {
    let data = ToolCallDelta {
        index,
        id: id.map(Into::into),
        name: id.map(|_| "f".into()),
        arguments: arguments.into(),
    };
    event(EventId::new(1, n), EventData::ToolCallDelta(data))
}

#[test]
fn withdrawn_text_is_not_part_of_the_answer() {
    let reset = |to, continues| {
        let data = AttemptReset {
            resume_after: to,
            continues,
        };
        event(EventId::new(2, 1), EventData::AttemptReset(data))
    };
    let gather = |reset: Event| {
        let mut gathering = Gathering::default();
        for event in [
            text(1, 1, "kept "),
            text(1, 2, "ünd gone"),
            reset,
            text(2, 2, "new"),
        ] {
            assert_eq!(gathering.take(&event), None);
        }
        gathering.into_answer().text
    };
    assert_eq!(gather(reset(EventId::new(1, 1), false)), "kept new");
    assert_eq!(gather(reset(EventId::ORIGIN, false)), "new");
    assert_eq!(gather(reset(EventId::new(1, 1), true)), "kept ünd gonenew");
}

#[test]
fn call_fragments_are_joined_by_index() {
    let mut gathering = Gathering::default();
    for event in [
        fragment(1, 0, Some("call_a"), "{\"x\""),
        fragment(2, 1, Some("call_b"), ""),
        fragment(3, 0, None, ":1}"),
        fragment(4, 7, None, "nonsense"),
    ] {
        gathering.take(&event);
    }
    let calls = gathering.into_answer().calls;
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&*calls[0].id, &*calls[0].arguments),
        ("call_a", "{\"x\":1}")
    );
    assert_eq!((&*calls[1].name, &*calls[1].arguments), ("f", ""));
}

#[test]
fn events_and_ledger_give_the_same_answer() {
    let messages: Vec<Message> = serde_json::from_value(json!([
        {"role": "assistant", "content": "Let me see. ", "tool_calls": [
            {"id": "s", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "s", "content": "4"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    ]))
    .unwrap();
    let recorded = Answer::from_messages(&messages, FinishReason::ToolCalls, &["f".to_owned()]);
    let mut gathering = Gathering::default();
    gathering.take(&text(1, 1, "Let me see. "));
    gathering.take(&fragment(2, 0, Some("c"), "{}"));
    assert_eq!(gathering.into_answer(), recorded);
}

#[test]
fn a_completion_has_the_keys_of_the_api() {
    let answer = Answer {
        text: "hi".into(),
        ..Answer::default()
    };
    let usage = RunUsage {
        prompt_tokens: 1,
        completion_tokens: 2,
        total_tokens: 3,
        estimated: false,
    };
    let completion =
        answer.into_completion(run(), created(run()), "m", FinishReason::MaxTurns, usage);
    assert_eq!(
        serde_json::to_value(completion).unwrap(),
        json!({
            "id": "chatcmpl-01890a5d-ac96-774b-bcce-b302099a8057", "object": "chat.completion",
            "created": 1_688_096_058, "model": "m",
            "choices": [{"index": 0, "finish_reason": "length", "logprobs": null,
                "message": {"role": "assistant", "content": "hi", "refusal": null}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        })
    );
    let call = Call {
        id: "c".into(),
        name: "f".into(),
        arguments: "{}".into(),
    };
    let answer = Answer {
        calls: vec![call],
        ..Answer::default()
    };
    let completion =
        answer.into_completion(run(), 0, "m", FinishReason::ToolCalls, RunUsage::default());
    let message = serde_json::to_value(&completion.choices[0].message).unwrap();
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"]["name"], "f");
}

#[test]
fn a_call_in_its_older_form_is_the_first_and_names_its_reason() {
    let mut gathering = Gathering::default();
    for event in [
        fragment(1, 0, Some("call_a"), "{\"x\":1}"),
        fragment(2, 1, Some("call_b"), "{}"),
    ] {
        gathering.take(&event);
    }
    let usage = RunUsage::default();
    let answer = gathering.into_answer();
    let completion = answer.into_completion(run(), 0, "m", FinishReason::ToolCalls, usage);
    let told = serde_json::to_value(with_older_call(completion)).unwrap();
    let choice = &told["choices"][0];
    assert_eq!(choice["finish_reason"], "function_call");
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": null, "refusal": null,
            "function_call": {"name": "f", "arguments": "{\"x\":1}"}}),
    );
    let plain = Answer {
        text: "hi".into(),
        ..Answer::default()
    };
    let plain = plain.into_completion(run(), 0, "m", FinishReason::Stop, usage);
    assert_eq!(with_older_call(plain.clone()), plain);
}

#[test]
fn fields_that_the_upstream_sent_are_in_the_whole_answer_where_it_had_them() {
    let field = |n, of, name: &str, json: &str| {
        let data = AnswerField {
            of,
            name: name.into(),
            json: json.into(),
            more: false,
        };
        event(EventId::new(1, n), EventData::AnswerField(data))
    };
    let mut gathering = Gathering::default();
    for event in [
        field(1, AnswerPart::Completion, "model", r#""other""#),
        field(2, AnswerPart::Completion, "service_tier", r#""default""#),
        field(3, AnswerPart::Choice, "logprobs", r#"{"content":[1]}"#),
        field(4, AnswerPart::Choice, "logprobs", r#"{"content":[2]}"#),
        field(5, AnswerPart::Choice, "matched_stop", "7"),
        field(6, AnswerPart::Message, "images", r#"[{"url":"u"}]"#),
        field(7, AnswerPart::Usage, "cost", "0.5"),
    ] {
        assert_eq!(gathering.take(&event), None);
    }
    let live = gathering.into_answer();

    // In the ledger, the message has its own fields.
    let messages: Vec<Message> = serde_json::from_value(json!([
        {"role": "assistant", "content": "", "images": [{"url": "u"}]},
    ]))
    .unwrap();
    let mut recorded = Answer::from_messages(&messages, FinishReason::Stop, &[]);
    let around = json!({
        "completion": {"model": "other", "service_tier": "default"},
        "choice": {"logprobs": {"content": [1, 2]}, "matched_stop": 7},
        "usage": {"cost": 0.5},
    });
    recorded
        .fields
        .extend(serde_json::from_value(around).unwrap());
    assert_eq!(live, recorded);

    let usage = RunUsage {
        total_tokens: 3,
        estimated: true,
        ..RunUsage::default()
    };
    let completion = live.into_completion(run(), 0, "asked", FinishReason::Stop, usage);
    let completion = serde_json::to_value(completion).unwrap();
    assert_eq!(completion["model"], "other");
    assert_eq!(completion["service_tier"], "default");
    let choice = &completion["choices"][0];
    assert_eq!(choice["logprobs"], json!({"content": [1, 2]}));
    assert_eq!(choice["matched_stop"], 7);
    assert_eq!(choice["message"]["images"], json!([{"url": "u"}]));
    assert_eq!(
        completion["usage"],
        json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 3,
               "cost": 0.5, "estimated": true})
    );

    let nobody_counted =
        Answer::default().into_completion(run(), 0, "m", FinishReason::Stop, RunUsage::default());
    let completion = serde_json::to_value(nobody_counted).unwrap();
    assert_eq!(completion.get("usage"), Some(&Value::Null));
}
