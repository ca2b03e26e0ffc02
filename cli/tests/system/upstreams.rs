//! Several upstreams, of which one dies.

use baton_harness::client::Client;
use baton_harness::scripted_model::{Gate, Reply, ScriptedModel};
use baton_harness::stack::{Stack, StackOptions};
use serde_json::{Value, json};

use crate::fixture::{assert_whole, call, gated, has_tool_result, model, options, run};

const KEY: &str = "sk-key-of-the-first-upstream";

/// A route of `script` from `one` to `two`, where the model is named `other`.
fn two(one: &ScriptedModel, two: &ScriptedModel) -> StackOptions {
    let mut options = options(one);
    options.upstream = String::new();
    options.config = format!(
        "[tools]\nbuilt_in = [\"calculator\"]\n\
         [[llm.upstreams]]\nname = \"one\"\nbase_url = \"{}\"\napi_key = \"{KEY}\"\n\
         [[llm.upstreams]]\nname = \"two\"\nbase_url = \"{}\"\n\
         [[llm.routes]]\nmodel = \"script\"\naliases = [\"fast\"]\n\
         to = [{{ upstream = \"one\" }}, {{ upstream = \"two\", model = \"other\" }}]\n",
        one.base_url(),
        two.base_url()
    );
    options
}

async fn models(client: &Client) -> Vec<String> {
    let listed = client.get("/v1/models").await.unwrap().json().unwrap();
    let listed = listed["data"].as_array().unwrap().iter();
    listed
        .map(|model: &Value| model["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Guards fallbacks: runs under way at an upstream that dies, before and after the first token, and runs
/// that come later, all end whole, and the second upstream gets its own name of the model.
#[tokio::test]
async fn runs_go_on_at_the_next_upstream_when_one_dies() {
    let never = Gate::closed();
    let held = never.clone();
    let one = model(move |request| match request.index % 2 {
        0 => gated(&["half "], &held, &["never"]),
        _ => Reply::hang_before_headers(),
    })
    .await;
    let other = model(|_| Reply::text("whole at two")).await;
    let stack = Stack::start(two(&one, &other)).await.unwrap();
    let (ingress, _scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    assert_eq!(models(&client).await, ["script", "fast"]);

    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(client.submit(&run()).await.unwrap());
    }
    one.wait_until(|counts| counts.requests == 8).await;
    assert_eq!(
        one.requests()[0].headers["authorization"],
        format!("Bearer {KEY}")
    );
    one.stop().await;
    for _ in 0..8 {
        ids.push(client.submit(&run()).await.unwrap());
    }
    ids.push(
        client
            .submit(&json!({"model": "fast", "input": "x"}))
            .await
            .unwrap(),
    );
    for id in &ids {
        assert_whole(&client, id, "whole at two").await;
    }
    let read = client.run(&ids[8]).await.unwrap();
    let route = &read["steps"][0]["route"];
    assert_eq!(
        (&route["upstream"], &route["model"]),
        (&json!("two"), &json!("other"))
    );
    assert_eq!(
        (&route["left"][0]["upstream"], &route["left"][0]["model"]),
        (&json!("one"), &json!("script"))
    );
    let path = format!("/v1/runs/{}/timeline", ids[8]);
    let timeline: Value = client.get(&path).await.unwrap().json().unwrap();
    let entries = timeline["data"].as_array().unwrap();
    let turn = entries.iter().find(|entry| entry["kind"] == "turn");
    assert_eq!(&turn.unwrap()["route"], route);
    for request in other.requests() {
        assert_eq!(request.body["model"], "other");
        assert!(!request.headers.contains_key("authorization"));
    }
    let up = "baton_model_upstream_up{upstream=\"one\"}";
    assert_eq!(worker.metric(up).await.unwrap(), 0);
    let passed_over = "baton_model_fallbacks_total{upstream=\"one\",reason=\"down\"}";
    worker.until_metric(passed_over, 1).await.unwrap();

    let unknown = json!({"model": "nobody", "input": "x"});
    let refused = client.post("/v1/runs", &unknown).await.unwrap();
    assert_eq!(refused.status, 404);
    assert!(refused.text().unwrap().contains("model_not_found"));
    let shown = [worker.metrics().await.unwrap(), stack.logged().unwrap()];
    assert!(shown.iter().all(|text| !text.contains(KEY)));
}

/// Guards the fallbacks of an agent: another model of another route answers, under its own name, is recorded on
/// the step and charged at its own price. A request that names the model has no fallback.
#[tokio::test]
async fn an_agent_falls_back_to_its_next_model() {
    let one = model(|_| Reply::status(503)).await;
    let other = model(|_| Reply::text("second best")).await;
    let mut options = two(&one, &other);
    options.config = options.config.replace(
        ", { upstream = \"two\", model = \"other\" }]",
        "]\n[[llm.routes]]\nmodel = \"backup\"\nto = [{ upstream = \"two\", model = \"theirs\" }]",
    );
    options.config += "[llm]\nmax_retries = 0\n[[llm.prices]]\nmodel = \"backup\"\ninput_per_million = \"1000\"\n\
         output_per_million = \"1000\"\n";
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let agent = json!({"name": "steady", "model": "script", "fallbacks": ["unknown", "backup"]});
    let made = client.post("/v1/agents", &agent).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text().unwrap());
    let asked = json!({"agent": "steady", "input": "x"});
    let id = client.submit(&asked).await.unwrap();
    let (run, _) = assert_whole(&client, &id, "second best").await;
    assert_eq!(other.requests()[0].body["model"], "theirs");
    let step = &run["steps"][0];
    assert_eq!(
        step["route"],
        json!({"upstream": "two", "model": "theirs",
            "left": [{"upstream": "one", "model": "script", "reason": "upstream_error"}]})
    );
    let usage = client.get("/v1/usage?group_by=model").await.unwrap();
    let usage = usage.json().unwrap();
    assert_ne!(usage["data"][0]["cost"], "0", "{usage}");
    let named = json!({"agent": "steady", "model": "script", "input": "x"});
    let id = client.submit(&named).await.unwrap();
    let failed = client.ended(&id).await.unwrap();
    assert_eq!(failed["status"], "failed", "{failed}");
}

/// Guards the recorded step: the second upstream answers the first turn of a run, then the worker is
/// killed. The run goes on, and the recorded turn is not asked for again.
#[tokio::test]
async fn a_killed_worker_s_run_goes_on_at_the_upstream_that_is_left() {
    let one = model(|_| Reply::status(503)).await;
    let other = model(|request| match (has_tool_result(request), request.index) {
        (false, _) => call("Let me see. ", "calculator", &json!({"expression": "6*7"})),
        (true, 1) => Reply::tokens(0).hang(),
        (true, _) => Reply::text(request.last_text("tool").unwrap_or("nothing")),
    })
    .await;
    let options = two(&one, &other).short_lease();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    other.wait_until(|counts| counts.requests == 2).await;
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    let (run, _) = assert_whole(&client, &id, "Let me see. 42").await;
    assert_eq!(run["attempt"], 2);
    assert_eq!(
        other.counts().requests,
        3,
        "the recorded turn is not repeated"
    );
}
