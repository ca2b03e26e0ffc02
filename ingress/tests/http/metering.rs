//! The limits on a key's usage, as clients see them.

use baton_service::config::BuiltInTool;
use baton_service::{Clock as _, Config, SystemClock};
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer};

/// Sets a price so high that a short answer costs something.
fn with_a_price(config: &mut Config) {
    let price = json!({"model": "m", "input_per_million": "1000", "output_per_million": "2000"});
    config.llm.prices = vec![serde_json::from_value(price).unwrap()];
    config.limits.budget_answer_tokens = 100;
    config.tools.built_in = vec![BuiltInTool::Calculator, BuiltInTool::CurrentTime];
}

#[tokio::test]
async fn a_key_with_as_many_runs_as_it_may_have_is_refused_until_one_has_ended() {
    let fixture = Fixture::start().await;
    let key = fixture.limited_key(json!({"concurrent_runs": 1})).await;
    let run = json!({"model": "m", "input": "x"});
    let (status, first) = fixture.ask(&key, "POST", "/v1/runs", run.clone()).await;
    assert_eq!(status, 202, "{first}");
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    for (path, body, media) in [
        ("/v1/runs", &run, "application/problem+json"),
        ("/v1/chat/completions", &chat, "application/json"),
    ] {
        let request = fixture.plain("POST", path, body).bearer_auth(&key);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 429, "{path}");
        assert_eq!(response.headers()["content-type"], media);
        assert!(response.headers().contains_key("retry-after"));
        let (_, body) = answer(response).await;
        let error = body.get("error").unwrap_or(&body);
        assert_eq!(error["code"], "concurrency_limit", "{body}");
    }
    // Other keys of the tenant are unaffected.
    let (status, _) = fixture
        .ask(&fixture.key, "POST", "/v1/runs", run.clone())
        .await;
    assert_eq!(status, 202);
    let cancel = format!("/v1/runs/{}/cancel", first["id"].as_str().unwrap());
    let (status, _) = fixture.ask(&key, "POST", &cancel, Value::Null).await;
    assert!(status < 300, "{status}");
    let (status, next) = fixture.ask(&key, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "{next}");
}

#[tokio::test]
async fn what_was_used_up_is_told_by_day_key_and_model() {
    let fixture = Fixture::start().await;
    for model in ["m", "m", "n"] {
        let body = json!({"model": model, "input": "x"});
        let (status, run) = fixture.ask(&fixture.key, "POST", "/v1/runs", body).await;
        assert_eq!(status, 202, "{run}");
        fixture.take_job().await.complete().await;
    }
    let usage = async |query: &str| {
        let path = format!("/v1/usage{query}");
        let (status, usage) = fixture.ask(&fixture.key, "GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{usage}");
        usage
    };
    let today = SystemClock.now().date_naive().to_string();
    let by_day = usage("").await;
    let expected = json!({
        "day": by_day["data"][0]["day"], "runs": 3, "turns": 3, "estimated_turns": 0,
        "input_tokens": 30, "cached_tokens": 12, "output_tokens": 15,
        "cost": "4.5", "unpriced_turns": 0,
    });
    assert_eq!(by_day["data"], json!([expected]));
    assert!(by_day["data"][0]["day"].as_str().unwrap() <= today.as_str());
    assert_eq!(by_day["next_cursor"], Value::Null);

    let first = usage("?group_by=model,key&limit=1").await;
    assert_eq!(first["data"][0]["model"], "m");
    assert_eq!(first["data"][0]["runs"], 2);
    assert!(first["data"][0]["api_key_id"].is_string());
    assert_eq!(first["data"][0].get("day"), None);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = usage(&format!("?group_by=model,key&limit=1&cursor={cursor}")).await;
    assert_eq!(second["data"][0]["model"], "n");
    assert_eq!(second["next_cursor"], Value::Null);
    let whole = usage("?group_by=").await;
    assert_eq!(whole["data"][0]["runs"], 3);
    let past = usage("?from=2020-01-01&to=2020-12-31").await;
    assert_eq!(past["data"], json!([]), "a leap year fits");

    for (query, param) in [
        ("?from=2020-01-01&to=2021-01-01", "from"),
        ("?from=2020-01-02&to=2020-01-01", "from"),
        ("?from=2020-02-30", "from"),
        ("?to=today", "to"),
        ("?group_by=tenant", "group_by"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?cursor=x", "cursor"),
    ] {
        let path = format!("/v1/usage{query}");
        let (status, error) = fixture.ask(&fixture.key, "GET", &path, Value::Null).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{query}");
    }
    let reader = fixture.make_key(77, &["runs:read"], None).await;
    let (status, error) = fixture.ask(&reader, "GET", "/v1/usage", Value::Null).await;
    assert_eq!((status, &error["code"]), (403, &json!("scope_missing")));
}

#[tokio::test]
async fn a_key_s_budget_is_taken_by_its_runs_and_refuses_when_it_is_used_up() {
    let fixture = Fixture::start_with(with_a_price).await;
    // Room for one first turn: the server's tools alone take more than a thousand bytes of it.
    let limits = json!({"monthly_tokens": 1_700, "monthly_cost_micros": 10_000_000});
    let key = fixture.limited_key(limits).await;
    let run = json!({"model": "m", "input": "x"});
    let (status, first) = fixture.ask(&key, "POST", "/v1/runs", run.clone()).await;
    assert_eq!(status, 202, "{first}");
    let standing = async || {
        let (_, list) = fixture
            .ask(&fixture.key, "GET", "/v1/api-keys", Value::Null)
            .await;
        let keys = list["data"].as_array().unwrap().clone();
        assert_eq!(keys[0].get("usage"), None, "a key without limits");
        keys.into_iter()
            .find_map(|key| key.get("usage").cloned())
            .unwrap()
    };
    let usage = standing().await;
    let reserved = usage["tokens_reserved"].as_u64().unwrap();
    assert!((1_300..1_700).contains(&reserved), "{usage}");
    assert_eq!(
        (&usage["running"], &usage["tokens"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(usage["tokens_left"], 1_700 - reserved);
    assert_ne!(usage["cost_reserved"], "0");
    assert_ne!(usage["cost_left"], "10");

    // The other run may give back some of its reservation, so a retry makes sense.
    let long = json!({"model": "m", "input": "x".repeat(100)});
    let chat =
        |content: String| json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    let refused = async |path: &str, body: &Value| {
        let request = fixture.plain("POST", path, body).bearer_auth(&key);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 429, "{path}");
        let wait = response.headers()["retry-after"]
            .to_str()
            .unwrap()
            .to_owned();
        let again = response.headers().get("x-should-retry").cloned();
        let (_, body) = answer(response).await;
        (body, wait.parse::<u32>().unwrap(), again)
    };
    let (error, wait, again) = refused("/v1/runs", &long).await;
    assert_eq!(
        (&error["code"], wait, again),
        (&json!("budget_reserved"), 2, None)
    );
    fixture.take_job().await.complete().await;
    let usage = standing().await;
    assert_eq!(
        (&usage["running"], &usage["tokens"]),
        (&json!(0), &json!(15))
    );
    assert_eq!(
        (&usage["tokens_reserved"], &usage["cost"]),
        (&json!(0), &json!("1.5"))
    );
    assert_eq!(
        (&usage["tokens_left"], &usage["cost_left"]),
        (&json!(1_685), &json!("8.5"))
    );

    // A used-up budget stays so until the month ends, so no library may retry automatically.
    let (error, wait, again) = refused("/v1/chat/completions", &chat("x".repeat(300))).await;
    let error = &error["error"];
    assert_eq!(error["code"], "budget_exceeded");
    assert_eq!(error["type"], "insufficient_quota");
    let first_of_next = usage["month"].as_str().unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("tokens") && message.contains("-01"),
        "{message} {first_of_next}"
    );
    assert!(wait > 2 && wait <= 31 * 24 * 60 * 60);
    assert_eq!(again.unwrap(), "false");
    let (problem, ..) = refused("/v1/runs", &json!({"model": "m", "input": "x".repeat(300)})).await;
    assert_eq!(problem["code"], "budget_exceeded");

    // Without a price the cost is unknown.
    let unpriced = json!({"model": "other", "input": "x"});
    let (status, error) = fixture
        .ask(&key, "POST", "/v1/runs", unpriced.clone())
        .await;
    assert_eq!((status, &error["code"]), (403, &json!("price_unknown")));
    assert_eq!(error["param"], "model");
    let (status, _) = fixture
        .ask(&fixture.key, "POST", "/v1/runs", unpriced)
        .await;
    assert_eq!(status, 202, "to a key without a budget it is all the same");
}
