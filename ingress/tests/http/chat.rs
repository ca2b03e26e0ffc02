//! Chats, streamed and whole.

use std::time::Duration;

use baton_protocol::event::{ToolCallDelta, ToolFinished, ToolStarted};
use baton_protocol::{EventData, RunStatus};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, run_of, soon};

#[tokio::test]
async fn a_streamed_answer_arrives_as_it_is_made() {
    let f = Fixture::start().await;
    let (response, mut worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(run_of(&response), worker.run());
    assert!(response.headers().contains_key("x-request-id"));
    let mut sse = Sse::of(response);

    let role = sse.json().await;
    assert_eq!(role["id"], format!("chatcmpl-{}", worker.run()));
    assert_eq!(role["object"], "chat.completion.chunk");
    assert_eq!(role["model"], "m");
    assert_eq!(
        role["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(role["usage"], Value::Null);
    assert_eq!(sse.json().await["choices"][0]["delta"]["content"], "Hel");

    // Later text is shown before the run has ended.
    worker.say("lo").await;
    assert_eq!(sse.json().await["choices"][0]["delta"]["content"], "lo");
    sse.comment().await;

    worker.complete().await;
    let finish = sse.json().await;
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    let usage = sse.json().await;
    assert_eq!(
        (&usage["choices"], &usage["usage"]["total_tokens"]),
        (&json!([]), &json!(15))
    );
    let rest = sse.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].data, "[DONE]");
    assert_eq!(
        (&rest[0].id, &rest[0].event),
        (&None, &None),
        "no ids on OpenAI routes"
    );
    assert_eq!(f.record(worker.run()).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_whole_answer_is_one_object() {
    let f = Fixture::start().await;
    let (response, worker) = tokio::join!(f.chat(false).send(), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker.say("lo").await;
        worker.complete().await;
        worker
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(run_of(&response), worker.run());
    let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], 10);
}

#[tokio::test]
async fn server_side_calls_are_not_shown_and_client_calls_are() {
    let f = Fixture::start().await;
    let (response, ()) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        let started = ToolStarted {
            call_id: "call_s".into(),
            name: "calculator".into(),
            arguments: "{}".into(),
            edited: false,
        };
        worker.append(EventData::ToolStarted(started)).await;
        let finished = ToolFinished {
            call_id: "call_s".into(),
            name: "calculator".into(),
            ok: true,
            result: "127.05".into(),
            duration_ms: 1,
        };
        worker.append(EventData::ToolFinished(finished)).await;
        let call = ToolCallDelta {
            index: 0,
            id: Some("call_c".into()),
            name: Some("look_up".into()),
            arguments: "{\"q\":".into(),
        };
        worker.append(EventData::ToolCallDelta(call)).await;
        let more = ToolCallDelta {
            index: 0,
            id: None,
            name: None,
            arguments: "1}".into(),
        };
        worker.append(EventData::ToolCallDelta(more)).await;
        worker.complete().await;
    });
    let mut sse = Sse::of(response.unwrap());
    let all: Vec<String> = sse
        .rest()
        .await
        .into_iter()
        .map(|event| event.data)
        .collect();
    let text = all.join("\n");
    assert!(
        !text.contains("call_s") && !text.contains("127.05"),
        "{text}"
    );
    let calls: Vec<Value> = all
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["tool_calls"][0]
                .as_object()
                .cloned()
        })
        .map(Value::Object)
        .collect();
    assert_eq!(calls[0]["id"], "call_c");
    assert_eq!(calls[0]["function"]["name"], "look_up");
    assert_eq!(calls[1]["function"]["arguments"], "1}");
}

#[tokio::test]
async fn a_run_that_fails_before_its_first_token_is_answered_with_a_status() {
    // A long heartbeat, so that the head is not sent before the first event.
    let f = Fixture::start_with(|config| config.http.heartbeat = Duration::from_secs(30)).await;
    // Client libraries retry automatically unless an answer forbids it; then the same work would be
    // paid for twice.
    for (stream, worked, code, status, again) in [
        (true, false, "upstream_timeout", 504, false),
        (true, false, "upstream_rejected", 400, false),
        (true, false, "upstream_rate_limited", 429, true),
        (true, true, "upstream_rate_limited", 429, false),
        (false, false, "upstream_unreachable", 502, true),
        (false, true, "upstream_error", 502, false),
        (false, false, "upstream_rate_limited", 429, true),
    ] {
        let (response, worker) = tokio::join!(f.chat(stream).send(), async {
            let mut worker = f.take_job().await;
            if worked {
                worker.append(EventData::Usage(crate::fixture::USAGE)).await;
            }
            worker.fail(code).await;
            worker
        });
        let response = response.unwrap();
        assert_eq!(response.status(), status, "{code}");
        let said = response.headers().get("x-should-retry");
        assert_eq!(said.is_none(), again, "{code} {worked} {said:?}");
        assert_eq!(run_of(&response), worker.run());
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], code);
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap()
                .contains("it did not work")
        );
    }
}

#[tokio::test]
async fn a_run_that_fails_in_the_middle_ends_the_stream_with_an_error_object() {
    let f = Fixture::start().await;
    let (response, worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("half an ans").await;
        worker.fail("upstream_cut").await;
        worker
    });
    let events = Sse::of(response.unwrap()).rest().await;
    let last: Value = serde_json::from_str(&events.last().unwrap().data).unwrap();
    assert_eq!(last["error"]["code"], "upstream_cut");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&worker.run().to_string())
    );
    for key in ["message", "type", "param", "code"] {
        assert!(
            last["error"].as_object().unwrap().contains_key(key),
            "{key}"
        );
    }
    assert!(events.iter().all(|event| event.data != "[DONE]"));
}

#[tokio::test]
async fn a_withdrawn_answer_ends_the_stream_and_a_continued_one_goes_on() {
    let f = Fixture::start().await;
    for continues in [false, true] {
        let (response, mut worker) = tokio::join!(f.chat(true).send(), async {
            let mut worker = f.take_job().await;
            worker.say("shown").await;
            worker
        });
        let mut sse = Sse::of(response.unwrap());
        sse.json().await;
        sse.json().await;
        worker.reset(continues).await;
        worker.say(" more").await;
        let next = sse.json().await;
        if continues {
            assert_eq!(next["choices"][0]["delta"]["content"], " more");
        } else {
            assert_eq!(next["error"]["code"], "answer_withdrawn");
            assert!(
                next["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains(&worker.run().to_string())
            );
            assert_eq!(sse.next().await, None);
            // The run is still active: the server ended the stream.
            let record = f.record(worker.run()).await;
            assert!(!record.cancel_requested);
        }
    }
}

#[tokio::test]
async fn a_reset_before_anything_was_shown_goes_unnoticed() {
    let f = Fixture::start().await;
    let (response, ()) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.reset(false).await;
        worker.say("x").await;
        let end = baton_protocol::event::RunCompleted {
            finish_reason: baton_protocol::FinishReason::Stop,
            usage: crate::fixture::USAGE,
        };
        worker.append(EventData::RunCompleted(end)).await;
    });
    let events = soon(async { Sse::of(response.unwrap()).rest().await }).await;
    assert_eq!(events.last().unwrap().data, "[DONE]");
}
