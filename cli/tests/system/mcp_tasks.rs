//! Calls that a server goes on with as tasks, while workers are killed around them.

use baton_harness::client::Client;
use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Recorded, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use serde_json::{Value, json};

use crate::fixture::{
    assert_ended, assert_whole, call, count, has_tool_result, model, options, run,
};

/// Calls the tool once, and repeats its result.
fn begins(kind: &'static str) -> impl Fn(&Recorded) -> Reply + Send + Sync + 'static {
    move |request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            call("", "docs__task", &json!({ "kind": kind }))
        }
    }
}

struct Tasks {
    server: McpServer,
    stack: Stack,
    client: Client,
    _ingress: Role,
    scheduler: Role,
    _model: ScriptedModel,
}

impl Tasks {
    async fn start(kind: &'static str) -> Self {
        let server = McpServer::start(Era::Modern, Manner::Tasks).await.unwrap();
        let model = model(begins(kind)).await;
        let mut options = options(&model).short_lease();
        options.config = format!(
            "[[mcp.servers]]\nname = \"docs\"\nurl = \"{}\"\ntools = [\"task\"]\n",
            server.url()
        );
        let stack = Stack::start(options).await.unwrap();
        let (ingress, scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
        Self {
            server,
            client: stack.client(&ingress),
            stack,
            _ingress: ingress,
            scheduler,
            _model: model,
        }
    }

    /// Waits until the server was asked about a task so often.
    async fn until_asked(&self, times: usize) {
        let asked = |methods: &[String]| methods.iter().filter(|it| *it == "tasks/get").count();
        self.server
            .wait_until(|seen| asked(&seen.methods) >= times)
            .await;
    }

    fn asked(&self) -> usize {
        let seen = self.server.seen();
        seen.methods.iter().filter(|it| *it == "tasks/get").count()
    }

    async fn parked(&self, id: &str) -> Value {
        let parked = self
            .client
            .run_when(id, |run| run["status"] == "awaiting_approval");
        parked.await.unwrap()
    }
}

/// Guards the whole way: the worker is released, any worker asks about the task, and nobody begins it again or takes
/// its outcome for unknown, wherever a worker dies.
#[tokio::test]
async fn a_task_is_followed_by_any_worker_and_never_begun_again() {
    let t = Tasks::start("done").await;
    let worker = t.stack.worker().await.unwrap();
    let id = t.client.submit(&run()).await.unwrap();
    let parked = t.parked(&id).await;
    let step = &parked["steps"][1];
    assert_eq!(
        (&step["name"], &step["waits_for"]),
        (&json!("docs__task"), &json!("task")),
        "{parked:#}"
    );
    let listed = t
        .client
        .get(&format!("/v1/runs/{id}/approvals"))
        .await
        .unwrap();
    assert_eq!(listed.json().unwrap()["data"], json!([]), "nobody is asked");

    // Killed while the run waits: nobody holds it, and nobody asks.
    t.until_asked(2).await;
    worker.kill().await;
    let before = t.asked();
    let worker = t.stack.worker().await.unwrap();
    t.until_asked(before + 1).await;
    // Killed at any moment of asking.
    worker.kill().await;
    let worker = t.stack.worker().await.unwrap();
    let before = t.asked();
    t.until_asked(before + 1).await;
    t.scheduler
        .until_metric("baton_tasks_due_total", 2)
        .await
        .unwrap();
    t.server.open_gate();
    let (run, events) = assert_whole(&t.client, &id, "done").await;
    drop(worker);
    assert_eq!(t.server.seen().calls.len(), 1, "{run:#}");
    assert_eq!(
        (
            count(&events, "tool.started"),
            count(&events, "tool.finished")
        ),
        (1, 1)
    );
    assert_eq!(count(&events, "approval.requested"), 0);
    assert_eq!(run["steps"][1]["waits_for"], Value::Null);
    assert_eq!(t.server.seen().tasks_cancelled, Vec::<String>::new());
}

/// Guards the ends of a task that brings no result: the model reads the reason.
#[tokio::test]
async fn a_task_without_a_result_is_an_error_of_its_call() {
    for (kind, said) in [
        ("failed", "the MCP server `docs`: its task failed: it broke"),
        (
            "cancelled",
            "the MCP server `docs`: its task was cancelled. ",
        ),
        (
            "lost",
            "the MCP server `docs` has lost its task: it answered with the error -32602: there is no such task; \
             the call may have taken effect",
        ),
    ] {
        let t = Tasks::start(kind).await;
        let _worker = t.stack.worker().await.unwrap();
        let id = t.client.submit(&run()).await.unwrap();
        assert_whole(&t.client, &id, said).await;
        assert_eq!(t.server.seen().calls.len(), 1);
    }
}

/// Guards a question of a task: the run waits for a person, and the task gets the answer once.
#[tokio::test]
async fn a_task_that_asks_a_person_gets_the_answer() {
    let t = Tasks::start("asks").await;
    t.server.open_gate();
    let worker = t.stack.worker().await.unwrap();
    let id = t.client.submit(&run()).await.unwrap();
    let mut events = t.client.events(&id, None).await.unwrap();
    events.until("approval.requested").await.unwrap();
    let asked = events.seen.last().unwrap().event["data"].clone();
    assert_eq!(
        (&asked["reason"], &asked["name"]),
        (&json!("input"), &json!("docs__task"))
    );
    worker.kill().await;
    let path = format!(
        "/v1/runs/{id}/approvals/{}",
        asked["approval_id"].as_str().unwrap()
    );
    let ada = json!({"decision": "accept", "content": {"name": "Ada"}});
    assert_eq!(t.client.post(&path, &ada).await.unwrap().status, 200);
    let _worker = t.stack.worker().await.unwrap();
    assert_whole(&t.client, &id, r#"{"name":"Ada"}"#).await;
    let seen = t.server.seen();
    let answer = json!({"who": {"action": "accept", "content": {"name": "Ada"}}});
    assert_eq!((seen.task_answers, seen.calls.len()), (vec![answer], 1));
}

/// Guards the end of a run with a task: its server gets a cancel after the commit, from another worker than the one
/// that began the task.
#[tokio::test]
async fn the_task_of_a_cancelled_run_is_cancelled_at_its_server() {
    let t = Tasks::start("done").await;
    let worker = t.stack.worker().await.unwrap();
    let id = t.client.submit(&run()).await.unwrap();
    t.until_asked(1).await;
    worker.kill().await;
    let cancelled = t.client.cancel(&id).await.unwrap();
    assert!(cancelled.status.is_success(), "{cancelled:?}");
    assert_eq!(t.server.seen().tasks_cancelled, Vec::<String>::new());
    let _worker = t.stack.worker().await.unwrap();
    assert_ended(&t.client, &id, "cancelled").await;
    t.server
        .wait_until(|seen| seen.tasks_cancelled == ["done-1"])
        .await;
    assert_eq!(t.server.seen().calls.len(), 1);
}
