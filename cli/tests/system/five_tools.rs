//! One run with five tools, three of which need a person's yes, while its worker is killed at each step.

use std::sync::Arc;

use baton_harness::client::{Client, EventStream};
use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Gate, Recorded, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use serde_json::{Value, json};

use crate::fixture::{CountingTool, assert_whole, count, gated, gated_call, model, options, run};

/// The tools, in the order of the turns that call them.
const TOOLS: [&str; 5] = ["calculator", "current_time", "count", "post", "docs__wait"];
const REQUIRED: &str = "approval required";
const UNKNOWN: &str = "outcome unknown";

/// Calls one tool after the other, and then answers. Each turn ends when its gate is open.
fn call_all(request: &Recorded, turns: &[Gate]) -> Reply {
    let messages = request.body["messages"].as_array().unwrap();
    let results = messages.iter().filter(|it| it["role"] == "tool").count();
    let gate = &turns[results];
    match TOOLS.get(results) {
        Some(&"calculator") => gated_call("", "calculator", &json!({"expression": "6 * 7"}), gate),
        Some(&"docs__wait") => gated_call("", "docs__wait", &json!({"text": "sheep"}), gate),
        Some(name) => gated_call("", name, &json!({}), gate),
        None => gated(&["All "], gate, &["done."]),
    }
}

/// The run, its followed events and the worker that has it.
struct Journey {
    stack: Stack,
    client: Client,
    model: ScriptedModel,
    turns: Arc<Vec<Gate>>,
    id: String,
    events: EventStream,
    worker: Option<Role>,
    /// The requests to the model so far.
    requests: usize,
    /// The workers that were killed.
    killed: usize,
}

impl Journey {
    /// Kills the worker.
    async fn kill(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill().await;
            self.killed += 1;
        }
    }

    async fn start(&mut self) {
        self.worker = Some(self.stack.worker().await.unwrap());
    }

    /// Kills the worker within a turn; the next one takes the turn again.
    async fn kill_within_turn(&mut self, turn: usize) {
        let expected = self.requests + 1;
        self.model.wait_until(|it| it.requests >= expected).await;
        self.kill().await;
        self.turns[turn].open();
        self.start().await;
        self.requests = expected + 1;
        let again = self.requests;
        self.model.wait_until(|it| it.requests >= again).await;
    }

    /// Waits for a question, kills the worker while the run waits, and decides before another one starts.
    async fn decide(&mut self, tool: &str, reason: &str, decision: &Value) {
        let is_asked = |asked: &Value| asked["name"] == tool && asked["reason"] == reason;
        let asked = self.events.until_event(|event| {
            event.kind == "approval.requested" && is_asked(&event.event["data"])
        });
        let asked = asked.await.unwrap().event["data"].clone();
        self.kill().await;
        let approval = asked["approval_id"].as_str().unwrap();
        let path = format!("/v1/runs/{}/approvals/{approval}", self.id);
        let answer = self.client.post(&path, decision).await.unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.text());
        self.start().await;
    }
}

/// Guards the whole way of a call: no recorded turn and no recorded call is repeated, an approved one begins
/// once for each yes, and a repeatable one goes on by itself, with fourteen workers killed in between.
#[tokio::test]
async fn five_tools_and_three_approvals_survive_a_kill_at_each_step() {
    let turns: Arc<Vec<Gate>> = Arc::new((0..=TOOLS.len()).map(|_| Gate::closed()).collect());
    let held = Arc::clone(&turns);
    let model = model(move |request| call_all(request, &held)).await;
    let (counting, posting) = (Gate::closed(), Gate::closed());
    let counter = CountingTool::start_behind(counting.clone()).await;
    let poster = CountingTool::start_behind(posting.clone()).await;
    let server = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
    let mut options = options(&model).short_lease();
    let post = poster.config().replace("\"count\"", "\"post\"");
    let post = post.replace("idempotent = false", "idempotent = true");
    options.config = format!(
        "[tools]\napproval_required = [\"count\", \"post\", \"docs__*\"]\n{}{post}\
         [[mcp.servers]]\nname = \"docs\"\nurl = \"{}\"\ntools = [\"wait\"]\ntimeout = \"10m\"\n",
        counter.config(),
        server.url(),
    );
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut journey = Journey {
        events: client.events(&id, None).await.unwrap(),
        stack,
        client,
        model,
        turns,
        id,
        worker: Some(worker),
        requests: 0,
        killed: 0,
    };
    let approve = json!({"decision": "approve"});

    // The calculator and the clock: each turn is taken again, and what was recorded before it stays.
    journey.kill_within_turn(0).await;
    journey.kill_within_turn(1).await;

    // A call that must not be made twice: a person says yes, the worker dies within it, and a person decides.
    journey.kill_within_turn(2).await;
    journey.decide("count", REQUIRED, &approve).await;
    counter.until_called().await;
    journey.kill().await;
    journey.start().await;
    counting.open();
    let retry = json!({"decision": "retry"});
    journey.decide("count", UNKNOWN, &retry).await;

    // A call that its server recognises: it is repeated without another yes.
    journey.kill_within_turn(3).await;
    journey.decide("post", REQUIRED, &approve).await;
    poster.until_called().await;
    journey.kill().await;
    posting.open();
    journey.start().await;

    // A call of an MCP server: a person says yes, the worker dies within it, and a person knows the result.
    journey.kill_within_turn(4).await;
    journey.decide("docs__wait", REQUIRED, &approve).await;
    server.wait_until(|seen| seen.calls.len() == 1).await;
    journey.kill().await;
    journey.start().await;
    let result = json!({"decision": "result", "result": "waited, by hand"});
    journey.decide("docs__wait", UNKNOWN, &result).await;

    // The answer: what was shown of it is withdrawn, and it is given again.
    journey.kill_within_turn(5).await;

    let (run, events) = assert_whole(&journey.client, &journey.id, "All done.").await;
    assert_eq!(journey.killed, 14);
    assert_eq!(journey.model.requests().len(), 12, "each turn twice");
    assert_eq!(
        counter.calls(),
        2,
        "once before, once because a person said so"
    );
    assert_eq!(poster.calls(), 2, "the second is a repetition of the first");
    assert_eq!(server.seen().calls.len(), 1);
    assert_eq!(count(&events, "tool.finished"), 5);
    let steps = run["steps"].as_array().unwrap();
    let calls = steps.iter().filter(|step| step["kind"] == "call");
    let calls: Vec<_> = calls.map(|call| (&call["name"], &call["ok"])).collect();
    let expected = TOOLS.map(|name| (json!(name), json!(true)));
    let expected: Vec<_> = expected.iter().map(|(name, ok)| (name, ok)).collect();
    assert_eq!(calls, expected);
    let results = run["output"].as_array().unwrap().iter();
    let results = results.filter(|message| message["role"] == "tool");
    let results: Vec<_> = results.map(|it| it["content"].as_str().unwrap()).collect();
    assert_eq!(results[0], "42");
    assert_eq!(results[2..], ["counted 2", "counted 2", "waited, by hand"]);
}
