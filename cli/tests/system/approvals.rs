//! Calls of unknown outcome wait for a person.

use baton_harness::client::{Client, RunEvent};
use baton_harness::scripted_model::{Gate, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use serde_json::{Value, json};

use crate::fixture::{
    CountingTool, assert_ended, assert_whole, call, chat, count, has_tool_result, model, options,
    run,
};

/// A run that is parked: one worker was killed while it called a tool that cannot recognise a
/// repetition, and another worker has taken the run over and parked it.
struct Parked {
    tool: CountingTool,
    gate: Gate,
    stack: Stack,
    client: Client,
    run: String,
    /// The question.
    asked: RunEvent,
    _model: ScriptedModel,
    _roles: [Role; 3],
}

impl Parked {
    async fn new() -> Self {
        let gate = Gate::closed();
        let tool = CountingTool::start_behind(gate.clone()).await;
        let model = model(|request| {
            if has_tool_result(request) {
                Reply::text(request.last_text("tool").unwrap_or_default())
            } else {
                call("", "count", &json!({"of": "sheep"}))
            }
        })
        .await;
        let mut options = options(&model).short_lease();
        options.config = tool.config();
        let stack = Stack::start(options).await.unwrap();
        let (ingress, scheduler, first) =
            tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
        let client = stack.client(&ingress);
        let run = client.submit(&run()).await.unwrap();
        let mut events = client.events(&run, None).await.unwrap();
        events.until("tool.started").await.unwrap();
        tool.until_called().await;
        first.kill().await;
        let second = stack.worker().await.unwrap();
        events.until("approval.requested").await.unwrap();
        let asked = events.seen.last().unwrap().clone();
        Self {
            tool,
            gate,
            stack,
            client,
            run,
            asked,
            _model: model,
            _roles: [ingress, scheduler, second],
        }
    }

    fn approval(&self) -> &str {
        self.asked.event["data"]["approval_id"].as_str().unwrap()
    }

    async fn decide(&self, decision: &Value) -> (u16, Value) {
        let path = format!("/v1/runs/{}/approvals/{}", self.run, self.approval());
        let answer = self.client.post(&path, decision).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }

    async fn approvals(&self) -> Value {
        let path = format!("/v1/runs/{}/approvals", self.run);
        self.client.get(&path).await.unwrap().json().unwrap()
    }
}

/// Guards `start_call` and the park: a call that may have taken effect is not repeated without a
/// decision. The run waits without a worker or a job, and shows the question.
#[tokio::test]
async fn a_call_that_may_have_happened_waits_for_a_person_and_is_made_again_if_told_so() {
    let parked = Parked::new().await;
    let client = &parked.client;
    let read = client.run(&parked.run).await.unwrap();
    assert_eq!(read["status"], "awaiting_approval");
    let data = &parked.asked.event["data"];
    assert_eq!(data["reason"], "outcome unknown");
    assert_eq!(data["name"], "count");
    assert_eq!(data["arguments"], "{\"of\":\"sheep\"}");
    let list = parked.approvals().await;
    let open = &list["data"][0];
    assert_eq!(open["id"], parked.approval());
    assert_eq!(open["status"], "open");
    assert_eq!(open["call"]["arguments"], "{\"of\":\"sheep\"}");
    assert_eq!(parked.tool.calls(), 1);

    parked.gate.open();
    let (status, decided) = parked.decide(&json!({"decision": "retry"})).await;

    assert_eq!((status, &decided["status"]), (200, &json!("decided")));
    let (run, events) = assert_whole(client, &parked.run, "counted 2").await;
    assert_eq!(
        parked.tool.calls(),
        2,
        "once before, once because a person said so"
    );
    assert_eq!(run["attempt"], 3);
    assert_eq!(count(&events, "approval.requested"), 1);
    assert_eq!(count(&events, "tool.finished"), 1);
}

/// Guards the settling of decided calls: the model gets the person's result, and no tool is called.
#[tokio::test]
async fn a_decided_result_is_told_to_the_model_and_nothing_is_called() {
    let parked = Parked::new().await;
    let result = json!({"decision": "result", "result": "there were 12"});
    assert_eq!(parked.decide(&result).await.0, 200);
    assert_eq!(
        parked.decide(&result).await.0,
        200,
        "the same again changes nothing"
    );
    let (status, refused) = parked.decide(&json!({"decision": "fail"})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("already_decided")));

    let (_, events) = assert_whole(&parked.client, &parked.run, "there were 12").await;
    assert_eq!(parked.tool.calls(), 1);
    let finished = events
        .iter()
        .find(|event| event.kind == "tool.finished")
        .unwrap();
    assert_eq!(finished.event["data"]["ok"], true);
}

/// Guards the public control subjects: a program's request over the bus has the same effect as one
/// over HTTP, and is answered on the run's own subject.
#[tokio::test]
async fn a_program_decides_and_cancels_over_the_bus() {
    let parked = Parked::new().await;
    let asker = parked.stack.asker(&parked.run).await.unwrap();

    let refused = asker
        .ask("decide", &json!({"decision": "retry"}))
        .await
        .unwrap();
    assert_eq!(refused["ok"], false, "{refused}");
    let fail = json!({
        "approval_id": parked.approval(), "decision": "fail", "reason": "lost count",
        "request_id": "mine",
    });
    let done = asker.ask("decide", &fail).await.unwrap();
    assert_eq!(
        (&done["ok"], &done["request_id"]),
        (&json!(true), &json!("mine"))
    );
    assert_whole(&parked.client, &parked.run, "lost count").await;
    let decided = &parked.approvals().await["data"][0];
    let keys = parked.stack.run(&["keys", "list"]).await.unwrap();
    let by = decided["decided_by"].as_str().unwrap();
    assert!(
        keys.starts_with(by),
        "{by} is the key that it connected with"
    );

    let ended = asker.ask("cancel", &json!({})).await.unwrap();
    assert_eq!(
        ended["status"], "completed",
        "what has ended stays so: {ended}"
    );
}

/// Guards the cancel of a run that nobody holds and that has no job.
#[tokio::test]
async fn a_parked_run_is_cancelled_at_once() {
    let parked = Parked::new().await;
    let asker = parked.stack.asker(&parked.run).await.unwrap();
    let done = asker
        .ask("cancel", &json!({"reason": "never mind"}))
        .await
        .unwrap();
    assert_eq!(done["status"], "cancelled");
    let (run, _) = assert_ended(&parked.client, &parked.run, "cancelled").await;
    assert_eq!(run["error"]["message"], "never mind");
    let (status, refused) = parked.decide(&json!({"decision": "retry"})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("run_ended")));
}

/// Guards the end of a chat with a waiting run: the chat's format cannot ask, the client's
/// disconnect cancels nothing, and the run goes on.
#[tokio::test]
async fn a_chat_client_is_told_that_its_run_waits_and_its_leaving_cancels_nothing() {
    let gate = Gate::closed();
    let tool = CountingTool::start_behind(gate.clone()).await;
    let model = model(|request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            call("Counting. ", "count", &json!({}))
        }
    })
    .await;
    let mut options = options(&model).short_lease();
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    tool.until_called().await;
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    answer.finish().await.unwrap();

    let error = answer.error.unwrap();
    assert_eq!(error["code"], "approval_required", "{error}");
    assert_eq!(answer.text, "Counting. ");
    let path = format!("/v1/runs/{}/approvals", answer.run);
    let list = client.get(&path).await.unwrap().json().unwrap();
    let id = list["data"][0]["id"].as_str().unwrap();
    gate.open();
    let retry = json!({"decision": "retry"});
    let decided = client.post(&format!("{path}/{id}"), &retry).await.unwrap();
    assert_eq!(decided.status, 200);
    assert_whole(&client, &answer.run, "Counting. counted 2").await;
}
