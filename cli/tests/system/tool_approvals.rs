//! Calls that a person must approve, while workers are killed around the question and the decision.

use std::collections::BTreeSet;

use baton_harness::client::{Client, RunEvent};
use baton_harness::scripted_model::{Gate, Recorded, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use serde_json::{Value, json};

use crate::fixture::{
    CountingTool, assert_ended, assert_whole, call, chat, count, gated_call, has_tool_result,
    model, options, run,
};

const REQUIRED: &str = "approval required";

/// A stack with an operator who requires approval for the tool `count`.
struct Guarded {
    tool: CountingTool,
    gate: Gate,
    stack: Stack,
    client: Client,
    _roles: [Role; 2],
    _model: ScriptedModel,
}

impl Guarded {
    async fn new(choose: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let gate = Gate::closed();
        let tool = CountingTool::start_behind(gate.clone()).await;
        let model = model(choose).await;
        let mut options = options(&model).short_lease();
        options.config = format!(
            "[tools]\napproval_required = [\"count\"]\n{}",
            tool.config()
        );
        let stack = Stack::start(options).await.unwrap();
        let (ingress, scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
        Self {
            tool,
            gate,
            client: stack.client(&ingress),
            stack,
            _roles: [ingress, scheduler],
            _model: model,
        }
    }

    /// Waits until the run asks for this reason, and returns the event's data.
    async fn asked(&self, run: &str, reason: &str) -> Value {
        let mut events = self.client.events(run, None).await.unwrap();
        let asked = events.until_event(|event| event.event["data"]["reason"] == reason);
        asked.await.unwrap().event["data"].clone()
    }

    async fn decide(&self, run: &str, asked: &Value, decision: &Value) -> u16 {
        let approval = asked["approval_id"].as_str().unwrap();
        let path = format!("/v1/runs/{run}/approvals/{approval}");
        let answer = self.client.post(&path, decision).await.unwrap();
        answer.status.as_u16()
    }
}

/// Calls the tool once, and then repeats its result.
fn counts(request: &Recorded) -> Reply {
    if has_tool_result(request) {
        Reply::text(request.last_text("tool").unwrap_or_default())
    } else {
        call("", "count", &json!({"of": "sheep"}))
    }
}

fn started(events: &[RunEvent]) -> Vec<(&Value, bool)> {
    let started = events.iter().filter(|event| event.kind == "tool.started");
    let data = started.map(|event| &event.event["data"]);
    data.map(|data| (&data["arguments"], data["edited"] == true))
        .collect()
}

/// Guards the binding of an approval at each step around it: before the question, while the run waits,
/// after the decision, within the call, and within the repetition that a second question allowed.
#[tokio::test]
async fn an_approved_call_survives_a_kill_at_each_step_and_is_never_made_unasked() {
    let turn = Gate::closed();
    let held = turn.clone();
    let g = Guarded::new(move |request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            gated_call("", "count", &json!({"of": "sheep"}), &held)
        }
    })
    .await;

    // Killed within the turn that makes the call.
    let worker = g.stack.worker().await.unwrap();
    let id = g.client.submit(&run()).await.unwrap();
    let mut events = g.client.events(&id, None).await.unwrap();
    events.until("run.started").await.unwrap();
    worker.kill().await;
    turn.open();
    let worker = g.stack.worker().await.unwrap();
    let asked = g.asked(&id, REQUIRED).await;
    assert_eq!(asked["name"], "count");
    assert_eq!(asked["arguments"], r#"{"of":"sheep"}"#);
    assert!(asked["expires_at"].is_string(), "{asked}");

    // Killed while the run waits: nobody holds it, and nobody is missing.
    worker.kill().await;
    let edited = json!({"decision": "approve", "arguments": {"of": "goats"}});
    assert_eq!(g.decide(&id, &asked, &edited).await, 200);
    assert_eq!(g.tool.calls(), 0, "decided, and no worker is there");

    // Killed within the approved call: its outcome is unknown, and the approval is used up.
    let worker = g.stack.worker().await.unwrap();
    g.tool.until_called().await;
    worker.kill().await;
    let worker = g.stack.worker().await.unwrap();
    let unknown = g.asked(&id, "outcome unknown").await;
    assert_eq!(unknown["arguments"], r#"{"of":"goats"}"#);
    assert_eq!(
        g.decide(&id, &unknown, &edited).await,
        400,
        "no answer to this question"
    );
    assert_eq!(g.tool.calls(), 1);

    // Killed after that decision, before anybody could begin.
    worker.kill().await;
    g.gate.open();
    assert_eq!(
        g.decide(&id, &unknown, &json!({"decision": "retry"})).await,
        200
    );
    let _worker = g.stack.worker().await.unwrap();
    let result = "A person changed the arguments of this call to {\"of\":\"goats\"} before it was made. \
                  The result:\ncounted 2";
    let (run, events) = assert_whole(&g.client, &id, result).await;
    assert_eq!(g.tool.bodies(), [r#"{"of":"goats"}"#; 2]);
    let asked = events
        .iter()
        .filter(|event| event.kind == "approval.requested");
    let asked: BTreeSet<_> = asked
        .map(|it| it.event["data"]["approval_id"].to_string())
        .collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(count(&events, "tool.finished"), 1);
    let goats = json!(r#"{"of":"goats"}"#);
    assert!(started(&events).iter().all(|it| *it == (&goats, true)));
    let step = &run["steps"][1];
    assert_eq!(
        step["arguments"], r#"{"of":"sheep"}"#,
        "the model's stay recorded"
    );
    assert_eq!(step["edited_arguments"], r#"{"of":"goats"}"#);
}

/// Calls the tool twice, one call after the other, and then answers.
fn counts_twice(request: &Recorded) -> Reply {
    let messages = request.body["messages"].as_array().unwrap();
    let results = messages.iter().rev().take_while(|it| it["role"] != "user");
    match results.filter(|it| it["role"] == "tool").count() {
        2 => Reply::text("counted"),
        n => call("", "count", &json!({ "of": n })),
    }
}

/// Guards the grant of a thread: it outlives the worker that asked, holds for the rest of the run and for the
/// thread's next run, and ends with its revocation.
#[tokio::test]
async fn an_approval_for_the_thread_holds_until_it_is_revoked() {
    let g = Guarded::new(counts_twice).await;
    g.gate.open();
    let thread = g.client.post("/v1/threads", &json!({})).await.unwrap();
    let thread = thread.json().unwrap()["id"].clone();
    let wish = json!({"model": "script", "input": "Please.", "thread_id": thread});
    let worker = g.stack.worker().await.unwrap();
    let first = g.client.submit(&wish).await.unwrap();
    let asked = g.asked(&first, REQUIRED).await;
    worker.kill().await;
    let approve = json!({"decision": "approve", "scope": "thread"});
    assert_eq!(g.decide(&first, &asked, &approve).await, 200);
    let _worker = g.stack.worker().await.unwrap();
    let (_, events) = assert_whole(&g.client, &first, "counted").await;
    assert_eq!(count(&events, "approval.requested"), 1);

    let second = g.client.submit(&wish).await.unwrap();
    let (_, events) = assert_whole(&g.client, &second, "counted").await;
    assert_eq!(count(&events, "approval.requested"), 0);
    assert_eq!(g.tool.calls(), 4);

    let approval = asked["approval_id"].as_str().unwrap();
    let grant = format!("/v1/runs/{first}/approvals/{approval}/grant");
    let revoked = g.client.delete(&grant).await.unwrap();
    assert_eq!(revoked.status, 204);
    let third = g.client.submit(&wish).await.unwrap();
    g.asked(&third, REQUIRED).await;
    assert_eq!(g.tool.calls(), 4);
}

/// Guards the rejection: nothing is called, and the model goes on with the reason.
#[tokio::test]
async fn a_rejected_call_is_never_made() {
    let g = Guarded::new(counts).await;
    let _worker = g.stack.worker().await.unwrap();
    let id = g.client.submit(&run()).await.unwrap();
    let asked = g.asked(&id, REQUIRED).await;
    let reject = json!({"decision": "reject", "reason": "not today"});
    assert_eq!(g.decide(&id, &asked, &reject).await, 200);
    let text = "this call was not approved, and it was not made. The reason: not today";
    let (_, events) = assert_whole(&g.client, &id, text).await;
    assert_eq!(g.tool.calls(), 0);
    let finished = events.iter().find(|event| event.kind == "tool.finished");
    assert_eq!(finished.unwrap().event["data"]["ok"], false);
}

/// Guards the chat's door: its format cannot ask, so it ends with the run's name and the run goes on.
#[tokio::test]
async fn a_chat_ends_with_the_question_and_its_run_goes_on() {
    let g = Guarded::new(|request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            call("Counting. ", "count", &json!({"of": "sheep"}))
        }
    })
    .await;
    g.gate.open();
    let _worker = g.stack.worker().await.unwrap();
    let mut answer = g.client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    let error = answer.error.unwrap();
    assert_eq!(error["code"], "approval_required", "{error}");
    let asked = g.asked(&answer.run, REQUIRED).await;
    let approve = json!({"decision": "approve"});
    assert_eq!(g.decide(&answer.run, &asked, &approve).await, 200);
    assert_whole(&g.client, &answer.run, "Counting. counted 1").await;
    assert_eq!(g.tool.bodies(), [r#"{"of":"sheep"}"#]);
}

/// Guards the chat that asks to wait: it is not ended by the question, whether it has shown something before or not.
#[tokio::test]
async fn a_chat_that_waits_goes_on_after_the_decision() {
    let g = Guarded::new(|request| match request.last_role() {
        Some("tool") => Reply::text(request.last_text("tool").unwrap_or_default()),
        _ => call(
            request.last_text("user").unwrap(),
            "count",
            &json!({"of": "sheep"}),
        ),
    })
    .await;
    g.gate.open();
    let _worker = g.stack.worker().await.unwrap();
    for (first, whole) in [("Counting. ", "Counting. counted 1"), ("", "counted 2")] {
        let mut wish = chat();
        wish["on_approval"] = json!("wait");
        wish["messages"][0]["content"] = json!(first);
        let mut answer = g.client.chat(&wish).await.unwrap();
        let asked = g.asked(&answer.run, REQUIRED).await;
        let approve = json!({"decision": "approve"});
        assert_eq!(g.decide(&answer.run, &asked, &approve).await, 200);
        answer.finish().await.unwrap();
        assert_eq!(answer.error, None);
        assert!(answer.done);
        assert_eq!(answer.text, whole);
    }
}

/// Guards the cancel of a run that waits for a yes.
#[tokio::test]
async fn a_run_that_waits_for_a_yes_is_cancelled_and_calls_nothing() {
    let g = Guarded::new(counts).await;
    let _worker = g.stack.worker().await.unwrap();
    let id = g.client.submit(&run()).await.unwrap();
    let asked = g.asked(&id, REQUIRED).await;
    let cancelled = g.client.cancel(&id).await.unwrap();
    assert!(cancelled.status.is_success());
    assert_ended(&g.client, &id, "cancelled").await;
    assert_eq!(
        g.decide(&id, &asked, &json!({"decision": "approve"})).await,
        409
    );
    assert_eq!(g.tool.calls(), 0);
}
