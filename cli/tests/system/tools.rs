//! Calls of tools that a request makes itself, through the whole of Baton.

use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{CountingTool, assert_ended, count, model, options};

/// Guards the route from a request to a worker's tools and back, and that no model takes part.
#[tokio::test]
async fn a_caller_lists_tools_and_calls_them_without_a_model() {
    let tool = CountingTool::start().await;
    let model = model(|_| Reply::text("never asked")).await;
    let mut options = options(&model);
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);

    let list: Value = client.get("/v1/tools").await.unwrap().json().unwrap();
    let seen: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            (
                tool["name"].as_str().unwrap(),
                tool["source"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("calculator", "built_in"),
        ("count", "http"),
        ("current_time", "built_in"),
    ];
    assert_eq!(seen, expected);
    let count_tool: Value = client.get("/v1/tools/count").await.unwrap().json().unwrap();
    assert_eq!(
        (&count_tool["effect"], &count_tool["timeout_ms"]),
        (&json!("at_most_once"), &json!(600_000))
    );

    let path = "/v1/tools/calculator/execute";
    let body = json!({"arguments": {"expression": "0.15 * 847"}});
    let done = client.post(path, &body).await.unwrap();
    assert_eq!(done.status, 200);
    assert_eq!(done.json().unwrap()["result"], "127.05");
    let wrong = json!({"arguments": {"expresion": "1"}});
    let wrong = client.post(path, &wrong).await.unwrap();
    assert_eq!(wrong.status, 400);
    let error = wrong.json().unwrap();
    assert_eq!(error["code"], "invalid_arguments");
    assert!(
        error["detail"].as_str().unwrap().contains("expression"),
        "{error}"
    );

    let batch = json!({"calls": [
        {"name": "count"},
        {"name": "calculator", "arguments": {"expression": "1/0"}},
        {"name": "calculator", "arguments": {}},
        {"name": "calculator", "arguments": {"expression": "6*7"}},
    ]});
    let again = [("idempotency-key", "once")];
    let mut answers = Vec::new();
    for _ in 0..2 {
        let done = client
            .post_with("/v1/tools/execute", &again, &batch)
            .await
            .unwrap();
        assert_eq!(done.status, 200);
        answers.push(done.json().unwrap());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(tool.calls(), 1, "the repetition is the same run");
    let results = answers[0]["data"].as_array().unwrap();
    let ends: Vec<_> = results.iter().map(|it| it["failure"].as_str()).collect();
    assert_eq!(
        ends,
        [
            None,
            Some("invalid_arguments"),
            Some("invalid_arguments"),
            None
        ]
    );
    assert_eq!(
        (&results[0]["result"], &results[3]["result"]),
        (&json!("counted 1"), &json!("42"))
    );

    let id = answers[0]["run_id"].as_str().unwrap();
    let (run, events) = assert_ended(&client, id, "completed").await;
    assert_eq!(
        (&run["finish_reason"], &run["agent"]),
        (&json!("stop"), &Value::Null)
    );
    assert_eq!(run["steps"].as_array().unwrap().len(), 4);
    assert_eq!(count(&events, "tool.finished"), 4);
    assert_eq!(model.counts().requests, 0);
}

/// Guards the record of given calls: a recorded result is not made again, and a call that may have taken
/// effect waits for a person.
#[tokio::test]
async fn given_calls_survive_their_worker() {
    let gate = Gate::closed();
    let tool = CountingTool::start_behind(gate.clone()).await;
    let model = model(|_| Reply::text("never asked")).await;
    let mut options = options(&model).short_lease();
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let calls = json!({"calls": [
        {"name": "calculator", "arguments": {"expression": "6*7"}},
        {"name": "count"},
    ]});
    let killed = async {
        tool.until_called().await;
        let runs: Value = client.get("/v1/runs").await.unwrap().json().unwrap();
        let id = runs["data"][0]["id"].as_str().unwrap().to_owned();
        let mut events = client.events(&id, None).await.unwrap();
        events.until("tool.finished").await.unwrap();
        first.kill().await;
        stack.worker().await.unwrap()
    };
    let (answer, _second) = tokio::join!(client.post("/v1/tools/execute", &calls), killed);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 409);
    let error = answer.json().unwrap();
    assert_eq!(error["code"], "approval_required");

    let id = answer.headers["x-run-id"].to_str().unwrap();
    let path = format!("/v1/runs/{id}/approvals");
    let asked: Value = client.get(&path).await.unwrap().json().unwrap();
    let question = asked["data"][0]["id"].as_str().unwrap();
    let decision = json!({"decision": "result", "result": "counted by hand"});
    let decided = client
        .post(&format!("{path}/{question}"), &decision)
        .await
        .unwrap();
    assert_eq!(decided.status, 200);
    let (run, events) = assert_ended(&client, id, "completed").await;
    assert_eq!(tool.calls(), 1);
    assert_eq!(run["steps"][0]["attempt"], 1, "its result stands");
    assert_eq!(run["steps"][1]["ok"], true);
    assert_eq!(count(&events, "tool.finished"), 2);
}
