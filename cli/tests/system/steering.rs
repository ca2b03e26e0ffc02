//! Messages to runs that work.

use baton_harness::client::{Client, RunEvent};
use baton_harness::scripted_model::{Gate, Recorded, Reply};
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{
    CountingTool, assert_whole, call, count, gated, gated_call, model, options, run, stack,
};

async fn send(client: &Client, run: &str, content: &str) -> Value {
    let path = format!("/v1/runs/{run}/messages");
    let sent = client.post(&path, &json!({"content": content})).await;
    let sent = sent.unwrap();
    assert_eq!(sent.status, 202, "{sent:?}");
    sent.json().unwrap()
}

async fn messages(client: &Client, run: &str) -> Vec<Value> {
    let list = client.get(&format!("/v1/runs/{run}/messages")).await;
    let list = list.unwrap().json().unwrap();
    list["data"].as_array().unwrap().clone()
}

/// Returns the messages of a request, each as its role and content.
fn conversation(request: &Recorded) -> Vec<(String, String)> {
    let messages = request.body["messages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    messages
        .iter()
        .map(|message| (text(&message["role"]), text(&message["content"])))
        .collect()
}

/// Returns the events about messages that no reset has withdrawn, as the type and the id of the message.
fn about_messages(events: &[RunEvent]) -> Vec<(String, Value)> {
    let mut kept: Vec<&RunEvent> = Vec::new();
    for event in events {
        if event.kind == "attempt.reset" {
            let resume_after = event.event["data"]["resume_after"].as_u64().unwrap();
            kept.retain(|before| before.id <= resume_after);
        } else if event.kind.starts_with("input.") {
            kept.push(event);
        }
    }
    let data = |event: &RunEvent| event.event["data"]["id"].clone();
    kept.iter().map(|it| (it.kind.clone(), data(it))).collect()
}

/// Returns the events of a message that was accepted and applied.
fn taken(message: &Value) -> Vec<(String, Value)> {
    let kinds = ["input.accepted", "input.applied"];
    kinds
        .map(|kind| (kind.to_owned(), message.clone()))
        .to_vec()
}

/// Guards the end that gives way: a message that was accepted before it gets a turn of its own.
#[tokio::test]
async fn a_run_that_would_end_takes_a_waiting_message_and_another_turn() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated(&["By plane. "], &held, &["Bye. "]),
        _ => Reply::text(request.last_text("user").unwrap()),
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut follower = client.events(&id, None).await.unwrap();
    follower.until("text.delta").await.unwrap();
    let sent = send(&client, &id, "By train.").await;
    // It is shown while the model still speaks.
    let accepted = follower.until("input.accepted").await.unwrap();
    assert_eq!(
        accepted.event["data"],
        json!({"id": sent["id"], "position": 1})
    );
    let second = send(&client, &id, "In May.").await;
    gate.open();

    let (run, events) = assert_whole(&client, &id, "By plane. Bye. In May.").await;
    assert_eq!(follower.rest().await.unwrap().last(), events.last());
    let steps: Vec<_> = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].clone())
        .collect();
    assert_eq!(steps, ["turn", "input", "input", "turn"]);
    let applied: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "input.applied")
        .map(|event| event.event["data"].clone())
        .collect();
    assert_eq!(
        applied,
        [
            json!({"id": sent["id"], "step": 2}),
            json!({"id": second["id"], "step": 3})
        ]
    );
    let shown = about_messages(&events);
    assert_eq!(shown.len(), 4, "{shown:?}");
    for message in [&sent["id"], &second["id"]] {
        let own: Vec<_> = shown.iter().filter(|(_, id)| id == message).collect();
        assert_eq!(own, taken(message).iter().collect::<Vec<_>>());
    }
    let read: Vec<_> = conversation(&model.requests()[1]);
    let said = [
        ("user", "Please."),
        ("assistant", "By plane. Bye. "),
        ("user", "By train."),
        ("user", "In May."),
    ];
    assert_eq!(
        read,
        said.map(|(role, text)| (role.to_owned(), text.to_owned()))
    );
    assert!(
        messages(&client, &id)
            .await
            .iter()
            .all(|it| it["status"] == "applied")
    );
}

/// Guards the commit: the next attempt finds the message in the transcript, shows it once, and sends
/// the model the same bytes. The message comes while the tool works, and follows its result.
#[tokio::test]
async fn a_message_survives_its_worker_and_is_not_applied_twice() {
    let tool_gate = Gate::closed();
    let tool = CountingTool::start_behind(tool_gate.clone()).await;
    let model = model(|request| match request.index {
        0 => call("Counting. ", "count", &json!({})),
        // The first worker dies in the turn that has read the message.
        1 => Reply::tokens(0).hang(),
        _ => Reply::text("By train."),
    })
    .await;
    let mut options = options(&model).short_lease();
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    tool.until_called().await;
    let mut follower = client.events(&id, None).await.unwrap();
    let sent = send(&client, &id, "By train.").await;
    follower.until("input.accepted").await.unwrap();
    tool_gate.open();
    model.wait_until(|counts| counts.requests == 2).await;
    first.kill().await;
    let _second = stack.worker().await.unwrap();

    let (run, events) = assert_whole(&client, &id, "Counting. By train.").await;
    assert_eq!(run["attempt"], 2);
    assert_eq!(about_messages(&events), taken(&sent["id"]));
    assert_eq!(count(&events, "input.accepted"), 1, "the commit keeps it");
    let requests = model.requests();
    assert_eq!(requests[1].body["messages"], requests[2].body["messages"]);
    let read = conversation(&requests[2]);
    let roles: Vec<_> = read.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "user"]);
    assert_eq!(tool.calls(), 1);
}

/// Guards the message that a lost attempt could not take: it waits in the ledger, not in the worker.
#[tokio::test]
async fn a_message_to_a_worker_that_dies_before_its_commit_is_taken_by_the_next() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated_call("Hm. ", "calculator", &json!({"expression": "1"}), &held),
        1 => call("Hm. ", "calculator", &json!({"expression": "1"})),
        _ => Reply::text(request.last_text("user").unwrap()),
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut follower = client.events(&id, None).await.unwrap();
    follower.until("text.delta").await.unwrap();
    let sent = send(&client, &id, "By train.").await;
    follower.until("input.accepted").await.unwrap();
    first.kill().await;
    let _second = stack.worker().await.unwrap();

    let (run, events) = assert_whole(&client, &id, "Hm. By train.").await;
    assert_eq!(run["attempt"], 2);
    // The first acceptance was withdrawn with the turn, and is shown again.
    assert_eq!(count(&events, "input.accepted"), 2);
    assert_eq!(about_messages(&events), taken(&sent["id"]));
    assert_eq!(messages(&client, &id).await[0]["step"], 3);
}
