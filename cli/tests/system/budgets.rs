//! Budgets and usage, by the command line and over HTTP, with real processes.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::json;

use crate::fixture::{call, chat, has_tool_result, model, options};

const PRICES: &str =
    r#"[{"model": "script", "input_per_million": "1000", "output_per_million": "0"}]"#;

/// Guards the whole of a budget's way: taken at the ingress, raised by the worker before each turn, told
/// to the model, settled, refused when it is used up, and told by route and command.
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
    // A token that is read costs a thousandth of a unit; two turns of the script read fourteen.
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

    // Two units are two thousand tokens of prompt, from above.
    body["messages"][0]["content"] = json!("x".repeat(2_000));
    let refused = client.post("/v1/chat/completions", &body).await.unwrap();
    assert_eq!(refused.status, 429);
    let error = refused.json().unwrap()["error"].clone();
    assert_eq!(error["code"], "budget_exceeded");
    assert_eq!(error["type"], "insufficient_quota");
    assert_eq!(model.counts().requests, 2);
}
