//! Budgets and usage, by the command line and over HTTP, with real processes.

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::json;

use crate::fixture::{call, chat, has_tool_result, model, options};

const PRICES: &str =
    r#"[{"model": "script", "input_per_million": "1000", "output_per_million": "0"}]"#;

/// Guards the whole life of a budget: reserved at the ingress, raised by the worker before each
/// turn, sent to the model as a limit, settled, refused when it is used up, and reported by route
/// and command.
#[tokio::test]
async fn a_budgeted_run_is_limited_charged_and_told_and_the_next_one_is_refused() {
    let model = model(|request| {
        if has_tool_result(request) {
            Reply::text("forty two")
        } else {
            call("", "calculator", &json!({"expression": "6*7"}))
        }
    })
    .await;
    let options = options(&model)
        .set("BATON_LLM__PRICES", PRICES)
        .set("BATON_LIMITS__BUDGET_ANSWER_TOKENS", "500");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    // A prompt token costs a thousandth of a unit; two turns of the script read fourteen.
    let key = stack
        .run(&[
            "keys",
            "create",
            "--name",
            "budgeted",
            "--monthly-tokens",
            "100000",
            "--monthly-cost-micros",
            "2014000",
        ])
        .await
        .unwrap();
    let client = ingress.client(key.trim());
    let mut body = chat();
    body["stream"] = json!(false);
    let answer = client.post("/v1/chat/completions", &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text().unwrap());
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests
            .iter()
            .all(|request| request.body["max_tokens"] == 500)
    );

    let list = client.get("/v1/api-keys").await.unwrap().json().unwrap();
    let usage = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|key| key.get("usage"));
    let usage = usage.unwrap();
    assert_eq!(
        (&usage["cost"], &usage["cost_reserved"]),
        (&json!("0.014"), &json!("0"))
    );
    assert_eq!(usage["cost_left"], "2");
    let told = client
        .get("/v1/usage?group_by=model")
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(
        (&told["data"][0]["turns"], &told["data"][0]["cost"]),
        (&json!(2), &json!("0.014"))
    );
    let printed = stack.run(&["usage", "--by", "model"]).await.unwrap();
    assert!(printed.starts_with("script  1 runs  14 in"), "{printed}");
    assert!(printed.contains("cost 0.014"), "{printed}");
    for command in ["usage", "audit"] {
        let lost = stack.run(&[command, "--tenant", "nowhere"]).await;
        let told = lost.unwrap_err().to_string();
        assert!(
            told.contains("no tenant called nowhere") && told.contains("(default)"),
            "{told}"
        );
    }

    // A prompt of 2000 characters counts as at most 2000 tokens, which cost two units.
    body["messages"][0]["content"] = json!("x".repeat(2_000));
    let refused = client.post("/v1/chat/completions", &body).await.unwrap();
    assert_eq!(refused.status, 429);
    let error = refused.json().unwrap()["error"].clone();
    assert_eq!(error["code"], "budget_exceeded");
    assert_eq!(error["type"], "insufficient_quota");
    assert_eq!(model.counts().requests, 2);
}

/// Guards accepted runs against one another's reservations: their use fits the month many times
/// over, but their reservations do not.
#[tokio::test]
async fn runs_that_come_at_once_wait_for_one_another_and_none_ends_for_the_budget() {
    const RUNS: usize = 8;

    let model = model(|request| {
        if has_tool_result(request) {
            Reply::text("forty two")
        } else {
            call("", "calculator", &json!({"expression": "6*7"}))
        }
    })
    .await;
    let options = options(&model).set("BATON_LIMITS__BUDGET_ANSWER_TOKENS", "500");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let create = ["keys", "create", "--name", "b", "--monthly-tokens", "6000"];
    let key = stack.run(&create).await.unwrap();
    let client = ingress.client(key.trim());
    let body = json!({"model": "script", "input": "What is 6*7?"});
    let submit = || async {
        let ended = async {
            loop {
                let answer = client.post("/v1/runs?wait=60s", &body).await.unwrap();
                if answer.status != 429 {
                    return answer;
                }
                let refused = answer.json().unwrap();
                assert_eq!(refused["code"], "budget_reserved", "{refused}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text().unwrap());
        answer.json().unwrap()
    };
    for run in futures_util::future::join_all((0..RUNS).map(|_| submit())).await {
        assert_eq!(run["finish_reason"], "stop", "{run}");
        assert_eq!(run["output"].as_array().unwrap().len(), 3, "{run}");
    }
}
