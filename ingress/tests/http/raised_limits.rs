//! Limits of runs that wait at one of them, raised over HTTP and the bus.

use baton_protocol::{ApprovalId, RunId};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::from_the_bus::Program;
use crate::parked::{park, park_at_limit};

async fn accepted(f: &Fixture, key: &str) -> (RunId, String) {
    let wish = json!({
        "model": "m", "input": "x", "limits": {"max_tokens": 100}, "on_limit": "park",
    });
    let (status, run) = f.ask(key, "POST", "/v1/runs", wish).await;
    assert_eq!(status, 202, "{run}");
    let run: RunId = run["id"].as_str().unwrap().parse().unwrap();
    (run, format!("/v1/runs/{run}"))
}

/// Returns a run that waits at its 100 tokens, its question and its path.
async fn at_limit(f: &Fixture, key: &str) -> (RunId, ApprovalId, String) {
    let (run, path) = accepted(f, key).await;
    let question = park_at_limit(f, f.tenant, run).await;
    (run, question, path)
}

fn tokens(most: u64) -> Value {
    json!({"limits": {"max_tokens": most}})
}

/// Guards the whole door: the run and both lists show the limit, each bad raise is refused by name and changes
/// nothing, and a good one lets the run go on.
#[tokio::test]
async fn a_raise_is_checked_by_name_and_lets_the_run_go_on_once() {
    let f = Fixture::start().await;
    let (run, question, path) = at_limit(&f, &f.key).await;
    let (_, shown) = f.ask(&f.key, "GET", &path, Value::Null).await;
    assert_eq!(shown["status"], "awaiting_approval");
    assert_eq!(shown["budget"]["approval_id"], json!(question));
    let used = json!({"tokens": 90, "tool_calls": 0});
    for list in [format!("{path}/approvals"), "/v1/approvals".to_owned()] {
        let (_, open) = f.ask(&f.key, "GET", &list, Value::Null).await;
        let open = &open["data"][0];
        assert_eq!(open["reason"], "budget");
        assert_eq!(open["options"], json!(["raise", "stop"]));
        assert_eq!(open["call"], Value::Null);
        let budget = json!({"limit": "max_tokens", "limits": {"max_tokens": 100}, "used": used});
        assert_eq!(open["budget"], budget);
    }
    for (body, status, code, param, says) in [
        (
            tokens(0),
            400,
            "invalid_limit",
            "limits.max_tokens",
            "whole number",
        ),
        (
            tokens(90),
            400,
            "invalid_limit",
            "limits.max_tokens",
            "used 90",
        ),
        (
            tokens(100),
            400,
            "invalid_limit",
            "limits.max_tokens",
            "100 now",
        ),
        (
            json!({"limits": {}}),
            400,
            "invalid_limit",
            "limits.max_tokens",
            "has reached",
        ),
        (
            json!({"limits": {"max_tokens": 200, "max_cost": "1"}}),
            400,
            "invalid_limit",
            "limits.max_cost",
            "has no `max_cost`",
        ),
        (
            json!({"limits": {"max_turns": 4}}),
            400,
            "invalid_json",
            "",
            "max_turns",
        ),
        (json!({}), 400, "invalid_json", "", "limits"),
    ] {
        let (refused, error) = f.ask(&f.key, "PATCH", &path, body.clone()).await;
        assert_eq!((refused, &error["code"]), (status, &json!(code)), "{error}");
        if !param.is_empty() {
            assert_eq!(error["param"], param, "{body}");
        }
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{body}: {detail}");
    }
    assert_eq!(crate::audit::entries(&f, "approval.decided").await, 0);
    for _ in 0..2 {
        let (status, raised) = f.ask(&f.key, "PATCH", &path, tokens(500)).await;
        assert_eq!(
            (status, &raised["status"]),
            (200, &json!("queued")),
            "{raised}"
        );
        assert_eq!(raised["budget"], Value::Null);
    }
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(600)).await;
    assert_eq!((status, &error["code"]), (409, &json!("already_decided")));
    assert_eq!(crate::audit::entries(&f, "approval.decided").await, 1);

    f.ask(
        &f.key,
        "POST",
        &format!("/v1/runs/{run}/cancel"),
        Value::Null,
    )
    .await;
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (409, &json!("run_ended")));
}

/// Guards the door against runs that wait at no limit, strangers, and keys without the scope.
#[tokio::test]
async fn only_the_scope_of_the_own_tenant_raises_limits_of_a_run_at_one() {
    let f = Fixture::start().await;
    let (run, path) = accepted(&f, &f.key).await;
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (409, &json!("limit_not_reached")));
    park(&f, f.tenant, run).await;
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (409, &json!("limit_not_reached")));

    let (run, question, path) = at_limit(&f, &f.key).await;
    let stranger = f.key_of_another_tenant(8).await;
    let (status, error) = f.ask(&stranger, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (404, &json!("run_not_found")));
    let reader = f.make_key(9, &["runs:read", "runs:write"], None).await;
    let (status, error) = f.ask(&reader, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (403, &json!("scope_missing")));

    let program = Program::new(&f, json!({})).await;
    let raise = |most: u64| json!({"approval_id": question, "decision": "raise", "limits": {"max_tokens": most}});
    let refused = program.control(run, "decide", raise(90)).await;
    assert_eq!(refused["error"]["code"], "invalid_limit", "{refused}");
    let done = program.control(run, "decide", raise(500)).await;
    assert_eq!(
        (&done["ok"], &done["status"]),
        (&json!(true), &json!("queued"))
    );
}

/// Guards the key's budget, which no raise exceeds.
#[tokio::test]
async fn a_limit_is_not_raised_above_the_monthly_budget_of_the_key() {
    let f = Fixture::start().await;
    let key = json!({"name": "limited", "scopes": ["*"], "limits": {"monthly_tokens": 90_000}});
    let (status, key) = f.ask(&f.key, "POST", "/v1/api-keys", key).await;
    assert_eq!(status, 201, "{key}");
    let (_, _, path) = at_limit(&f, key["key"].as_str().unwrap()).await;
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(90_001)).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_limit")));
    assert_eq!(error["param"], "limits.max_tokens");
    assert!(
        error["detail"].as_str().unwrap().contains("90000"),
        "{error}"
    );
    let (status, raised) = f.ask(&f.key, "PATCH", &path, tokens(90_000)).await;
    assert_eq!(status, 200, "{raised}");
}

/// Guards a stop, and the chat that an agent with such limits ends: its client reads where to decide.
#[tokio::test]
async fn a_stop_queues_the_run_for_its_end() {
    let f = Fixture::start().await;
    let (_, question, path) = at_limit(&f, &f.key).await;
    let decide = format!("{path}/approvals/{question}");
    let approve = json!({"decision": "approve"});
    let (status, error) = f.ask(&f.key, "POST", &decide, approve).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_decision")));
    assert!(
        error["detail"].as_str().unwrap().contains("raise or stop"),
        "{error}"
    );
    let stop = json!({"decision": "stop"});
    let (status, decided) = f.ask(&f.key, "POST", &decide, stop.clone()).await;
    assert_eq!((status, &decided["decision"]), (200, &stop));
    let (status, error) = f.ask(&f.key, "PATCH", &path, tokens(500)).await;
    assert_eq!((status, &error["code"]), (409, &json!("already_decided")));
}
