//! Servers that ask a person in the middle of a call, while workers are killed around the question.

use baton_harness::client::Client;
use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Recorded, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use serde_json::{Value, json};

use crate::fixture::{assert_whole, call, count, has_tool_result, model, options, run};

/// Calls the tool once with these arguments, and repeats its result.
fn asks(arguments: Value) -> impl Fn(&Recorded) -> Reply + Send + Sync + 'static {
    move |request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            call("", "docs__ask", &arguments)
        }
    }
}

struct Asking {
    server: McpServer,
    stack: Stack,
    client: Client,
    ingress: Role,
    _scheduler: Role,
    _model: ScriptedModel,
}

impl Asking {
    async fn start(arguments: Value) -> Self {
        let server = McpServer::start(Era::Modern, Manner::Asks).await.unwrap();
        let model = model(asks(arguments)).await;
        let mut options = options(&model).short_lease();
        options.config = format!(
            "[[mcp.servers]]\nname = \"docs\"\nurl = \"{}\"\ntools = [\"ask\"]\n\
             timeout = \"10m\"\n",
            server.url()
        );
        let stack = Stack::start(options).await.unwrap();
        let (ingress, scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
        Self {
            server,
            client: stack.client(&ingress),
            stack,
            ingress,
            _scheduler: scheduler,
            _model: model,
        }
    }

    /// Waits until the run asks for this reason and in this round, and returns the event's data.
    async fn asked(&self, run: &str, reason: &str, round: u32) -> Value {
        let mut events = self.client.events(run, None).await.unwrap();
        let asked = events.until_event(|event| {
            let data = &event.event["data"];
            data["reason"] == reason && (reason != "input" || data["input"]["round"] == round)
        });
        asked.await.unwrap().event["data"].clone()
    }

    async fn decide(&self, run: &str, asked: &Value, decision: &Value) -> (u16, Value) {
        let approval = asked["approval_id"].as_str().unwrap();
        let path = format!("/v1/runs/{run}/approvals/{approval}");
        let answer = self.client.post(&path, decision).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }
}

/// Guards each place around a question of a server: the run waits without a worker, the answer is checked and is
/// not lost, the call is repeated with it and with the same key, and the server may ask again.
#[tokio::test]
async fn a_question_of_a_server_survives_a_kill_at_each_step() {
    let a = Asking::start(json!({"rounds": 2, "hold": true})).await;
    let worker = a.stack.worker().await.unwrap();
    let id = a.client.submit(&run()).await.unwrap();
    let asked = a.asked(&id, "input", 1).await;
    assert_eq!(
        (&asked["name"], &asked["input"]["requests"][0]["message"]),
        (&json!("docs__ask"), &json!("Who pays?"))
    );
    assert!(asked["expires_at"].is_string(), "{asked}");
    assert!(
        !asked.to_string().contains("state"),
        "the state is the server's own: {asked}"
    );

    // Killed while the run waits: nobody holds it.
    worker.kill().await;
    let shown = a
        .client
        .get(&format!("/v1/runs/{id}/approvals"))
        .await
        .unwrap()
        .json()
        .unwrap();
    let question = &shown["data"][0];
    assert_eq!(question["options"], json!(["accept", "decline", "cancel"]));
    assert_eq!(question["input"]["schema"]["required"], json!(["name"]));
    assert_eq!(question["call"]["parameters"], Value::Null);
    for (wrong, status, code) in [
        (json!({"decision": "accept"}), 422, "invalid_content"),
        (
            json!({"decision": "accept", "content": {"name": "A"}}),
            422,
            "invalid_content",
        ),
        (
            json!({"decision": "accept", "content": {"name": "Ada", "times": 0}}),
            422,
            "invalid_content",
        ),
        (json!({"decision": "approve"}), 400, "invalid_decision"),
    ] {
        let (answered, error) = a.decide(&id, &asked, &wrong).await;
        assert_eq!(
            (answered, &error["code"]),
            (status, &json!(code)),
            "{error}"
        );
    }
    let ada = json!({"decision": "accept", "content": {"name": "Ada"}});
    for _ in 0..2 {
        let (status, decided) = a.decide(&id, &asked, &ada).await;
        assert_eq!(
            (status, &decided["decision"]["content"]),
            (200, &json!({"name": "Ada", "times": 2}))
        );
    }
    let (status, error) = a.decide(&id, &asked, &json!({"decision": "decline"})).await;
    assert_eq!((status, &error["code"]), (409, &json!("already_decided")));
    assert_eq!(
        a.server.seen().calls.len(),
        1,
        "decided, and no worker is there"
    );

    // The second question is answered from the command line.
    let worker = a.stack.worker().await.unwrap();
    let asked = a.asked(&id, "input", 2).await;
    worker.kill().await;
    let address = format!("http://{}", a.ingress.address());
    let accept = [
        "approvals",
        "accept",
        &*id,
        asked["approval_id"].as_str().unwrap(),
        "--content",
        "{\"name\": \"Grace\"}",
    ];
    let environment = [
        ("BATON_API_KEY", a.stack.api_key()),
        ("BATON_BASE_URL", &*address),
    ];
    let (ok, printed) = a
        .stack
        .output_of(&["approvals", "list"], &environment)
        .await
        .unwrap();
    assert!(ok && printed.contains("docs__ask  Who pays?"), "{printed}");
    let (ok, printed) = a.stack.output_of(&accept, &environment).await.unwrap();
    assert!(ok && printed.contains("accept"), "{printed}");

    // Killed within the call that has the last answer: the tool may not be called twice.
    let worker = a.stack.worker().await.unwrap();
    a.server.wait_until(|seen| seen.calls.len() == 3).await;
    worker.kill().await;
    let _worker = a.stack.worker().await.unwrap();
    let unknown = a.asked(&id, "outcome unknown", 0).await;
    a.server.open_gate();
    let (status, _) = a.decide(&id, &unknown, &json!({"decision": "retry"})).await;
    assert_eq!(status, 200);
    let said = r#"accept {"name":"Grace","times":2}"#;
    let (_, events) = assert_whole(&a.client, &id, said).await;
    assert_eq!(
        (
            count(&events, "tool.started"),
            count(&events, "tool.finished")
        ),
        (1, 1)
    );
    let calls = a.server.seen().calls;
    assert_eq!(calls.len(), 4);
    let key = |call: &Value| call["_meta"]["idempotencyKey"].clone();
    assert!(
        calls.iter().all(|call| key(call) == key(&calls[0])),
        "{calls:?}"
    );
    assert_eq!(calls[2]["requestState"], calls[3]["requestState"]);
    assert_eq!(calls[2]["inputResponses"], calls[3]["inputResponses"]);
    let first = &calls[1]["inputResponses"]["who"];
    assert_eq!(
        first,
        &json!({"action": "accept", "content": {"name": "Ada", "times": 2}})
    );
}

/// Guards the other answers, and the other kinds of questions.
#[tokio::test]
async fn a_person_may_decline_or_visit_an_address_or_answer_several_questions() {
    for (kind, decision, said) in [
        ("form", json!({"decision": "decline"}), "decline"),
        ("form", json!({"decision": "cancel"}), "cancel"),
        ("page", json!({"decision": "accept"}), "accept"),
        (
            "two",
            json!({"decision": "accept", "content": {"who": {"name": "Ada"}, "where": {"name": "Ulm", "times": 1}}}),
            r#"page: accept; where: accept {"name":"Ulm","times":1}; accept {"name":"Ada","times":2}"#,
        ),
    ] {
        let a = Asking::start(json!({ "kind": kind })).await;
        let _worker = a.stack.worker().await.unwrap();
        let id = a.client.submit(&run()).await.unwrap();
        let asked = a.asked(&id, "input", 1).await;
        if kind == "page" {
            let request = &asked["input"]["requests"][0];
            assert_eq!(request["url"], "https://pay.example/1");
            let content = json!({"decision": "accept", "content": {}});
            assert_eq!(a.decide(&id, &asked, &content).await.0, 422);
        }
        let (status, error) = a.decide(&id, &asked, &decision).await;
        assert_eq!(status, 200, "{kind}: {error}");
        assert_whole(&a.client, &id, said).await;
    }
}

/// Guards the bound: a server that wants its call again and again, without a question, gets it ten times more.
#[tokio::test]
async fn a_server_that_wants_its_call_again_and_again_is_given_up() {
    let a = Asking::start(json!({"kind": "wait", "rounds": 3})).await;
    let _worker = a.stack.worker().await.unwrap();
    let id = a.client.submit(&run()).await.unwrap();
    assert_whole(&a.client, &id, "unasked").await;
    assert_eq!(a.server.seen().calls.len(), 4);

    let a = Asking::start(json!({"kind": "wait", "rounds": 99})).await;
    let _worker = a.stack.worker().await.unwrap();
    let id = a.client.submit(&run()).await.unwrap();
    let (run, _) = assert_whole(
        &a.client,
        &id,
        "the MCP server `docs` asked for input more than 10 times, and the call was given up",
    )
    .await;
    assert_eq!(a.server.seen().calls.len(), 11, "{run}");
}
