//! The record of a run shows the same output as its events, and items and messages are each other's
//! inverse.

use baton_openai::{Message, ToolCall};
use baton_protocol::FinishReason;
use baton_responses::checker::{StreamChecker, check_item};
use baton_responses::items::{to_items, to_messages};
use baton_responses::{Item, Order, RecordedStep, StepSource, output_items, page};
use proptest::prelude::*;
use serde_json::value::{RawValue, to_raw_value};

use super::log::{Log, head, run, stream};

fn raw(message: &Message) -> Box<RawValue> {
    to_raw_value(message).unwrap()
}

#[test]
fn the_record_shows_what_the_stream_ended_with() {
    let mut log = Log::begun();
    log.reasoning("Hm.").text("I count.").turn_recorded();
    log.server_call("42").compacted().next_step();
    log.text("And ask.").call(0, true, "{}");
    log.completed(FinishReason::ToolCalls);
    let checker = StreamChecker::read(&stream(head(""), &log.events, None, false)).unwrap();

    let mut first = Message::text("assistant", "I count.");
    first.rest.insert("reasoning_content".into(), "Hm.".into());
    first.tool_calls = Some(vec![ToolCall::function("call_s2", "calculator", "{}")]);
    let mut last = Message::text("assistant", "And ask.");
    last.tool_calls = Some(vec![ToolCall::function("call_0", "weather", "{}")]);
    let messages = [
        raw(&first),
        raw(&Message::tool_result("call_s2", "42")),
        raw(&Message::text("assistant", "They ask for 6*7.")),
        raw(&last),
    ];
    let call = StepSource::Call {
        call_id: "call_s2",
        name: "calculator",
        arguments: r#"{"expression":"6*7"}"#,
        ok: true,
    };
    let sources = [
        StepSource::Turn(FinishReason::ToolCalls),
        call,
        StepSource::Compaction("c2VhbGVk"),
        StepSource::Turn(FinishReason::ToolCalls),
    ];
    let steps: Vec<_> = (1..)
        .zip(&messages)
        .zip(sources)
        .map(|((step, message), source)| RecordedStep {
            step,
            source,
            message: Some(message),
        })
        .collect();
    let items = output_items(run(), &steps, &["weather".to_owned()], &head("").settings);
    let items = items.unwrap();
    let response = checker.response.unwrap();
    assert_eq!(serde_json::to_value(items).unwrap(), response["output"]);
}

#[test]
fn the_record_shows_calls_of_mcp_servers_as_the_stream_did() {
    let fields = r#","tools":[{"type":"mcp","server_label":"crm"}]"#;
    let mut log = Log::begun();
    log.turn_recorded().mcp_started(2, "crm__find");
    log.mcp_finished(2, "crm__find", true);
    log.mcp_started(3, "crm__pay")
        .mcp_finished(3, "crm__pay", false);
    log.completed(FinishReason::MaxTurns);
    let checker = StreamChecker::read(&stream(head(fields), &log.events, None, false)).unwrap();
    checker.finish().unwrap();
    let result = raw(&Message::tool_result("call_m2", "found"));
    let call = |step, name, ok| RecordedStep {
        step,
        source: StepSource::Call {
            call_id: "call_m2",
            name,
            arguments: r#"{"of":"Ada"}"#,
            ok,
        },
        message: Some(&result),
    };
    let steps = [call(2, "crm__find", true), call(3, "crm__pay", false)];
    let items = output_items(run(), &steps, &[], &head(fields).settings).unwrap();
    let response = checker.response.unwrap();
    assert_eq!(serde_json::to_value(items).unwrap(), response["output"]);
}

#[test]
fn a_list_is_cut_into_pages() {
    let texts = ["a", "b", "c"].map(|text| Message::text("user", text));
    let mut items = to_items(&texts);
    baton_responses::items::with_input_ids(run(), &mut items);
    let list = |order, after: Option<&str>, limit| {
        let page = page(items.clone(), order, after, limit)?;
        serde_json::to_value(page).ok()
    };
    let first = list(Order::Asc, None, 2).unwrap();
    assert_eq!(first["has_more"], true);
    assert_eq!(first["data"][0]["content"][0]["text"], "a");
    let after = first["last_id"].as_str();
    let second = list(Order::Asc, after, 2).unwrap();
    assert_eq!(second["has_more"], false);
    assert_eq!(second["data"][0]["content"][0]["text"], "c");
    assert_eq!(
        list(Order::Desc, None, 1).unwrap()["first_id"],
        second["last_id"]
    );
    assert!(list(Order::Asc, Some("msg_unknown"), 2).is_none());
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let text = "[a-z]{1,8}";
    let user = text.prop_map(|text| vec![Message::text("user", text)]);
    let system = text.prop_map(|text| vec![Message::text("developer", text)]);
    let image = text.prop_map(|name| {
        let parts = serde_json::json!([
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": format!("https://x/{name}"), "detail": "auto"}},
            {"type": "file", "file": {"filename": name, "file_data": "data:text/plain;base64,eA=="}},
        ]);
        vec![serde_json::from_value(serde_json::json!({"role": "user", "content": parts})).unwrap()]
    });
    let spoken = (text, prop::option::of(text), 0_usize..3).prop_map(|(text, reasoning, calls)| {
        let mut message = Message::text("assistant", text);
        if let Some(reasoning) = reasoning {
            message
                .rest
                .insert("reasoning_content".into(), reasoning.into());
        }
        let ids: Vec<_> = (0..calls).map(|n| format!("call_{n}")).collect();
        if calls > 0 {
            let call = |id: &String| ToolCall::function(id, "f", "{}");
            message.tool_calls = Some(ids.iter().map(call).collect());
        }
        let results = ids.iter().map(|id| Message::tool_result(id, "42"));
        let results: Vec<_> = results.collect();
        [vec![message], results].concat()
    });
    let parts = prop_oneof![user, system, image, spoken];
    prop::collection::vec(parts, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn messages_become_items_and_the_same_messages_again(messages in messages()) {
        let mut items = to_items(&messages);
        prop_assert_eq!(&to_messages(&items), &messages);
        prop_assert_eq!(to_items(&to_messages(&items)), items.clone());
        baton_responses::items::with_input_ids(run(), &mut items);
        for item in &items {
            let item: &Item = item;
            check_item(&serde_json::to_value(item).unwrap()).unwrap();
        }
    }
}
