//! Decisions about a call that a person must approve, over HTTP and the bus.

use baton_protocol::{ApprovalId, RunId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{CallState, StepData};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::from_the_bus::Program;
use crate::parked::park_calls;

/// Parks a run that asks about its call `pay {"amount": 7}`. Returns it, its question and its path.
async fn parked(f: &Fixture) -> (RunId, ApprovalId, String) {
    let wish = json!({"model": "m", "input": "x"});
    let (_, run) = f.ask(&f.key, "POST", "/v1/runs", wish).await;
    let run: RunId = run["id"].as_str().unwrap().parse().unwrap();
    let schema = json!({
        "type": "object",
        "properties": {"amount": {"type": "integer", "maximum": 10}},
        "required": ["amount"], "additionalProperties": false,
    });
    let asked = park_calls(f, f.tenant, run, 1, Some(&schema)).await[0];
    (run, asked, format!("/v1/runs/{run}/approvals/{asked}"))
}

/// Returns the call that waits, as the next worker finds it.
async fn call(f: &Fixture, run: RunId) -> (CallState, Option<String>) {
    let mut tx = f.store.tenant(f.tenant).await.unwrap();
    let steps = tx.run_steps(run).await.unwrap();
    match &steps[1].data {
        StepData::Call {
            state,
            edited_arguments,
            ..
        } => (state.clone(), edited_arguments.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_is_approved_with_arguments_that_match_the_schema_and_with_no_others() {
    let f = Fixture::start().await;
    let (run, _, path) = parked(&f).await;
    let list = format!("/v1/runs/{run}/approvals");
    let (_, open) = f.ask(&f.key, "GET", &list, Value::Null).await;
    let open = &open["data"][0];
    assert_eq!(open["reason"], "approval required");
    assert_eq!(open["options"], json!(["approve", "reject"]));
    assert_eq!(open["call"]["arguments"], r#"{"amount":7}"#);
    assert_eq!(open["call"]["parameters"]["required"], json!(["amount"]));

    let approve = |arguments: Value| json!({"decision": "approve", "arguments": arguments});
    let long = "x".repeat(70_000);
    for (body, status, code, says) in [
        (
            approve(json!({"amount": 11})),
            422,
            "invalid_arguments",
            "at /amount: 11",
        ),
        (
            approve(json!({})),
            422,
            "invalid_arguments",
            "\"amount\" is a required property",
        ),
        (
            approve(json!({"amount": 1, "to": "me"})),
            422,
            "invalid_arguments",
            "'to'",
        ),
        (
            approve(json!({"to": long})),
            422,
            "invalid_arguments",
            "65536 bytes",
        ),
        (
            approve(json!("{}")),
            400,
            "invalid_decision",
            "expected a map",
        ),
        (
            json!({"decision": "retry"}),
            400,
            "invalid_decision",
            "approve or reject",
        ),
        (
            json!({"decision": "fail"}),
            400,
            "invalid_decision",
            "approve or reject",
        ),
    ] {
        let (refused, error) = f.ask(&f.key, "POST", &path, body).await;
        assert_eq!((refused, &error["code"]), (status, &json!(code)), "{error}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{says}: {detail}");
    }
    let undecided = CallState::Pending { decision: None };
    assert_eq!(call(&f, run).await, (undecided, None));

    let body = approve(json!({"amount": 5}));
    for _ in 0..2 {
        let (status, decided) = f.ask(&f.key, "POST", &path, body.clone()).await;
        assert_eq!((status, &decided["status"]), (200, &json!("decided")));
        assert_eq!(decided["decision"], body);
        assert_eq!(
            decided["call"]["arguments"], r#"{"amount":7}"#,
            "the model's stay"
        );
    }
    for other in [
        approve(json!({"amount": 6})),
        json!({"decision": "approve"}),
    ] {
        let (status, error) = f.ask(&f.key, "POST", &path, other).await;
        assert_eq!((status, &error["code"]), (409, &json!("already_decided")));
    }
    let (_, edited) = call(&f, run).await;
    assert_eq!(edited.as_deref(), Some(r#"{"amount":5}"#));
    let (_, shown) = f
        .ask(&f.key, "GET", &format!("/v1/runs/{run}"), Value::Null)
        .await;
    let step = &shown["steps"][1];
    assert_eq!(step["arguments"], r#"{"amount":7}"#);
    assert_eq!(step["edited_arguments"], r#"{"amount":5}"#);
    let timeline = format!("/v1/runs/{run}/timeline");
    let (_, timeline) = f.ask(&f.key, "GET", &timeline, Value::Null).await;
    let entries = timeline["data"].as_array().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry["kind"] == "approval")
        .unwrap();
    assert_eq!(
        (&entry["reason"], &entry["decision"], &entry["edited"]),
        (&json!("approval required"), &json!("approve"), &json!(true))
    );
}

/// Parks a run that asks about two calls. Returns it, and its questions.
async fn parked_with_two(f: &Fixture) -> (RunId, [ApprovalId; 2]) {
    let wish = json!({"model": "m", "input": "x"});
    let (_, run) = f.ask(&f.key, "POST", "/v1/runs", wish).await;
    let run: RunId = run["id"].as_str().unwrap().parse().unwrap();
    let schema = json!({"type": "object", "required": ["amount"]});
    let asked = park_calls(f, f.tenant, run, 2, Some(&schema)).await;
    (run, asked.try_into().unwrap())
}

#[tokio::test]
async fn several_questions_are_decided_at_once_and_a_bad_decision_spoils_no_other() {
    let f = Fixture::start().await;
    let (run, [first, second]) = parked_with_two(&f).await;
    let path = format!("/v1/runs/{run}/approvals");
    let decide = async |decisions: Value| {
        let body = json!({ "decisions": decisions });
        f.ask(&f.key, "POST", &path, body).await
    };
    let approve = |id: ApprovalId| json!({"approval_id": id, "decision": "approve"});
    let unknown = ApprovalId::new(SystemClock.now());
    let (status, outcomes) = decide(json!([
        {"approval_id": first, "decision": "approve", "arguments": {}},
        {"approval_id": unknown, "decision": "approve"},
        {"approval_id": second, "decision": "reject", "reason": "no"},
    ]))
    .await;
    assert_eq!(status, 200, "{outcomes}");
    let outcome = |at: usize| &outcomes["data"][at];
    for (at, id, status, code) in [
        (0, first, 422, "invalid_arguments"),
        (1, unknown, 404, "approval_not_found"),
    ] {
        let outcome = outcome(at);
        assert_eq!(outcome["approval_id"], json!(id));
        assert_eq!(outcome["approval"], Value::Null);
        assert_eq!(outcome["error"]["status"], status, "{outcome}");
        assert_eq!(outcome["error"]["code"], code);
    }
    assert_eq!(outcome(2)["error"], Value::Null);
    assert_eq!(outcome(2)["approval"]["id"], json!(second));
    assert_eq!(outcome(2)["approval"]["decision"]["reason"], "no");
    let read = async || {
        let (_, run) = f
            .ask(&f.key, "GET", &format!("/v1/runs/{run}"), Value::Null)
            .await;
        run["status"].clone()
    };
    assert_eq!(read().await, "awaiting_approval");

    // The second one was decided otherwise; the first is, and the run goes on.
    let (_, outcomes) = decide(json!([approve(second), approve(first)])).await;
    assert_eq!(outcomes["data"][0]["error"]["code"], "already_decided");
    assert_eq!(outcomes["data"][1]["approval"]["status"], "decided");
    assert_eq!(read().await, "queued");
    assert_eq!(crate::audit::entries(&f, "approval.decided").await, 2);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_decides_nothing() {
    let f = Fixture::start().await;
    let (run, [first, second]) = parked_with_two(&f).await;
    let path = format!("/v1/runs/{run}/approvals");
    let approve = |id: ApprovalId| json!({"approval_id": id, "decision": "approve"});
    let many: Vec<_> = (0..101)
        .map(|_| approve(ApprovalId::new(SystemClock.now())))
        .collect();
    for (body, says) in [
        (json!({"decisions": []}), "1 to 100"),
        (json!({ "decisions": many }), "1 to 100"),
        (
            json!({"decisions": [approve(first), approve(first)]}),
            "twice",
        ),
        (
            json!({"decisions": [approve(first), {"approval_id": second}]}),
            "decision",
        ),
        (
            json!({"decisions": [approve(first), {"approval_id": second, "decision": "approve", "reason": "x"}]}),
            "reason",
        ),
        (json!({"decisions": [approve(first)], "all": true}), "all"),
        (json!([approve(first)]), "object"),
        (json!({}), "decisions"),
    ] {
        let (status, error) = f.ask(&f.key, "POST", &path, body).await;
        assert_eq!(status, 400, "{error}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{says}: {detail}");
    }
    let (_, open) = f.ask(&f.key, "GET", &path, Value::Null).await;
    let open = open["data"].as_array().unwrap();
    assert!(open.iter().all(|it| it["status"] == "open"), "{open:?}");
    let reader = f.make_key(9, &["runs:read", "runs:write"], None).await;
    let stranger = f.key_of_another_tenant(8).await;
    let body = json!({"decisions": [approve(first)]});
    assert_eq!(f.ask(&reader, "POST", &path, body.clone()).await.0, 403);
    assert_eq!(f.ask(&stranger, "POST", &path, body).await.0, 404);
}

#[tokio::test]
async fn an_approval_for_later_calls_is_shown_and_revoked_once() {
    let f = Fixture::start().await;
    let (run, asked, path) = parked(&f).await;
    let grant = format!("{path}/grant");
    let approve = |scope: &str| json!({"decision": "approve", "scope": scope});
    let (status, error) = f.ask(&f.key, "POST", &path, approve("thread")).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("no_thread")),
        "{error}"
    );
    assert!(error["detail"].as_str().unwrap().contains("run"), "{error}");
    let (status, error) = f.ask(&f.key, "POST", &path, approve("always")).await;
    assert_eq!(status, 400);
    assert!(
        error["detail"].as_str().unwrap().contains("`thread`"),
        "{error}"
    );
    let (status, error) = f.ask(&f.key, "DELETE", &grant, Value::Null).await;
    assert_eq!((status, &error["code"]), (409, &json!("no_grant")));
    let unknown = ApprovalId::new(SystemClock.now());
    let unknown = format!("/v1/runs/{run}/approvals/{unknown}/grant");
    let (status, error) = f.ask(&f.key, "DELETE", &unknown, Value::Null).await;
    assert_eq!(
        (status, &error["code"]),
        (404, &json!("approval_not_found"))
    );

    let (status, decided) = f.ask(&f.key, "POST", &path, approve("run")).await;
    assert_eq!(status, 200, "{decided}");
    assert_eq!(decided["decision"], approve("run"));
    let held = json!({"scope": "run", "tool": "pay", "revoked_at": null});
    assert_eq!(decided["grant"], held);
    let (status, error) = f.ask(&f.key, "POST", &path, approve("once")).await;
    assert_eq!((status, &error["code"]), (409, &json!("already_decided")));
    let reader = f.make_key(9, &["runs:read", "runs:write"], None).await;
    assert_eq!(f.ask(&reader, "DELETE", &grant, Value::Null).await.0, 403);
    for _ in 0..2 {
        assert_eq!(f.ask(&f.key, "DELETE", &grant, Value::Null).await.0, 204);
    }
    assert_eq!(crate::audit::entries(&f, "approval.decided").await, 1);
    assert_eq!(crate::audit::entries(&f, "approval.revoked").await, 1);
    let list = format!("/v1/runs/{run}/approvals");
    let (_, list) = f.ask(&f.key, "GET", &list, Value::Null).await;
    assert_eq!(list["data"][0]["id"], json!(asked));
    assert!(list["data"][0]["grant"]["revoked_at"].is_string(), "{list}");
}

#[tokio::test]
async fn only_the_scope_of_the_own_tenant_approves() {
    let f = Fixture::start().await;
    let (run, _, path) = parked(&f).await;
    let approve = json!({"decision": "approve"});
    let edit = json!({"decision": "approve", "arguments": {"amount": 11}});
    let reader = f.make_key(9, &["runs:read", "runs:write"], None).await;
    let stranger = f.key_of_another_tenant(8).await;
    for body in [approve, edit] {
        let (status, error) = f.ask(&reader, "POST", &path, body.clone()).await;
        assert_eq!((status, &error["code"]), (403, &json!("scope_missing")));
        // No mistake of the arguments shows that the question exists.
        let (status, error) = f.ask(&stranger, "POST", &path, body).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("approval_not_found"))
        );
    }
    let undecided = CallState::Pending { decision: None };
    assert_eq!(call(&f, run).await, (undecided, None));
}

#[tokio::test]
async fn a_program_approves_and_rejects_under_the_same_rules() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let (run, asked, path) = parked(&f).await;
    let approve = |amount: u64| json!({"approval_id": asked, "decision": "approve", "arguments": {"amount": amount}});
    let refused = program.control(run, "decide", approve(11)).await;
    assert_eq!(refused["error"]["code"], "invalid_arguments", "{refused}");
    let done = program.control(run, "decide", approve(5)).await;
    assert_eq!(
        (&done["ok"], &done["status"]),
        (&json!(true), &json!("queued"))
    );
    let (status, error) = f
        .ask(&f.key, "POST", &path, json!({"decision": "reject"}))
        .await;
    assert_eq!((status, &error["code"]), (409, &json!("already_decided")));

    let (run, asked, _) = parked(&f).await;
    let reject = json!({"approval_id": asked, "decision": "reject", "reason": "no"});
    let done = program.control(run, "decide", reject).await;
    assert_eq!(done["ok"], true, "{done}");
    let (state, edited) = call(&f, run).await;
    let CallState::Pending {
        decision: Some(decision),
    } = state
    else {
        panic!("{state:?}");
    };
    assert_eq!((decision.text(), edited), (Some("no"), None));
}

#[tokio::test]
async fn the_open_questions_of_a_tenant_are_listed_in_pages() {
    let f = Fixture::start().await;
    let (first, _, path) = parked(&f).await;
    let (second, asked, _) = parked(&f).await;
    let (cancelled, _, _) = parked(&f).await;
    let cancel = format!("/v1/runs/{cancelled}/cancel");
    assert_eq!(f.ask(&f.key, "POST", &cancel, Value::Null).await.0, 200);
    let list = async |query: &str| {
        let path = format!("/v1/approvals{query}");
        let (status, page) = f.ask(&f.key, "GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let runs = page["data"].as_array().unwrap().iter();
        let runs: Vec<_> = runs
            .map(|it| it["run_id"].as_str().unwrap().to_owned())
            .collect();
        (runs, page["next_cursor"].clone())
    };
    let (runs, next) = list("?limit=1").await;
    assert_eq!((runs, &next), (vec![second.to_string()], &json!(asked)));
    let (runs, next) = list(&format!("?limit=1&cursor={asked}")).await;
    assert_eq!((runs, next), (vec![first.to_string()], Value::Null));
    let approve = json!({"decision": "approve"});
    assert_eq!(f.ask(&f.key, "POST", &path, approve).await.0, 200);
    assert_eq!(list("").await.0, [second.to_string()]);
    let stranger = f.key_of_another_tenant(8).await;
    let (_, none) = f.ask(&stranger, "GET", "/v1/approvals", Value::Null).await;
    assert_eq!(none["data"], json!([]));
    for query in ["?cursor=x", "?limit=0", "?limit=101", "?status=open"] {
        let path = format!("/v1/approvals{query}");
        assert_eq!(
            f.ask(&f.key, "GET", &path, Value::Null).await.0,
            400,
            "{query}"
        );
    }
}
