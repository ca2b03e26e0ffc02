//! Streams of responses, while the processes behind them are killed.

use baton_harness::client::{Client, ResponseEvent};
use baton_harness::scripted_model::{Gate, Piece, Reply};
use baton_harness::stack::Stack;
use baton_protocol::RunId;
use baton_responses::checker::StreamChecker;
use serde_json::{Value, json};

use crate::fixture::{calling, gated, has_tool_result, model, options, stack};

fn request() -> Value {
    json!({"model": "script", "input": "Please.", "stream": true, "background": true})
}

fn id_of(events: &[ResponseEvent]) -> String {
    let id = events[0].data["response"]["id"].as_str();
    id.expect("the first event has the response").to_owned()
}

/// Returns whether a worker has marked the log of an ended response as unbroken.
async fn ends_unbroken(stack: &Stack, events: &[ResponseEvent]) -> bool {
    let bus = stack.bus().await.unwrap();
    let run: RunId = id_of(events).replace("resp_", "").parse().unwrap();
    let tenant = stack.tenant().await.unwrap();
    bus.ends_unbroken(tenant, run).await.unwrap()
}

/// Checks a stream by the wire's schema, and with the response that a read shows.
async fn check(client: &Client, events: &[ResponseEvent]) -> StreamChecker {
    let mut checker = StreamChecker::default();
    for event in events {
        checker.take(&event.kind, &event.data).unwrap();
    }
    checker.finish().unwrap();
    let path = format!("/v1/responses/{}", id_of(events));
    let read = client.get(&path).await.unwrap().json().unwrap();
    let last = checker.response.as_ref().unwrap();
    assert_eq!(read["output"], last["output"]);
    assert_eq!(read["status"], last["status"]);
    checker
}

/// Guards `sequence_number` and the resuming of streams: a client of a killed ingress goes on at
/// another one, and has one uncut stream.
#[tokio::test]
async fn a_stream_of_a_killed_ingress_goes_on_at_another() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |_| gated(&["one ", "two "], &held, &["three"])).await;
    let stack = stack(&model).await;
    let (first, second, _worker) =
        tokio::try_join!(stack.ingress(), stack.ingress(), stack.worker()).unwrap();
    let (client, other) = (stack.client(&first), stack.client(&second));
    let mut stream = client.response(&request()).await.unwrap();
    stream.until_text("two ").await.unwrap();

    first.kill().await;
    while let Ok(Some(_)) = stream.next().await {}
    let mut seen = stream.seen;
    let id = id_of(&seen);
    let after = seen.last().unwrap().number().unwrap();
    let resumed = other.follow_response(&id, Some(after)).await.unwrap();
    gate.open();

    seen.extend(resumed.rest().await.unwrap());
    let uncut = other.follow_response(&id, None).await.unwrap();
    assert_eq!(seen, uncut.rest().await.unwrap());
    let checker = check(&other, &seen).await;
    assert_eq!(checker.items.len(), 1);
    assert_eq!(checker.items[0].texts, ["one two three"]);
}

/// Guards the rule for withdrawn text: a lost worker's item is closed as incomplete, the next worker
/// opens another one, and the response has that alone.
#[tokio::test]
async fn the_text_of_a_killed_worker_is_closed_as_incomplete() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated(&["lost ", "text"], &held, &[]),
        _ => Reply::text("kept"),
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut stream = client.response(&request()).await.unwrap();
    stream.until_text("text").await.unwrap();

    worker.kill().await;
    let _second = stack.worker().await.unwrap();

    let events = stream.rest().await.unwrap();
    let checker = check(&client, &events).await;
    let [lost, kept] = &*checker.items else {
        panic!("{:?}", checker.items)
    };
    assert_eq!(
        (&*lost.texts[0], lost.done.as_deref()),
        ("lost text", Some("incomplete"))
    );
    assert_eq!(
        (&*kept.texts[0], kept.done.as_deref()),
        ("kept", Some("completed"))
    );
    let output = &checker.response.unwrap()["output"];
    assert_eq!(output.as_array().unwrap().len(), 1, "{output}");
    assert!(
        !ends_unbroken(&stack, &events).await,
        "a text was withdrawn"
    );
}

/// Guards the mark of an unbroken log: a server that goes on with it reads nothing before the cursor, and sends
/// what the whole stream has after it.
#[tokio::test]
async fn an_ended_response_of_several_turns_is_resumed_after_each_of_its_events() {
    let model = model(|request| {
        let think = ["Let me ", "see. "].map(|text| Piece::Reasoning(text.to_owned()));
        if has_tool_result(request) {
            let text = ["It ", "is ", "42."].map(|text| Piece::Text(text.to_owned()));
            Reply::pieces(think.into_iter().chain(text)).ended("stop")
        } else {
            let sum = json!({"expression": "6*7"});
            let call = calling("I calculate.", "calculator", &sum);
            Reply::pieces(think.into_iter().chain(call)).ended("tool_calls")
        }
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let stream = client.response(&request()).await.unwrap();
    let uncut = stream.rest().await.unwrap();
    let checker = check(&client, &uncut).await;
    let kinds: Vec<_> = checker.items.iter().map(|item| &*item.kind).collect();
    let expected = [
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "message",
    ];
    assert_eq!(kinds, expected);
    assert!(ends_unbroken(&stack, &uncut).await);
    let id = id_of(&uncut);
    for (index, event) in uncut.iter().enumerate() {
        let after = event.number().unwrap();
        let resumed = client.follow_response(&id, Some(after)).await.unwrap();
        assert_eq!(
            resumed.rest().await.unwrap(),
            uncut[index + 1..],
            "{event:?}"
        );
    }
}
