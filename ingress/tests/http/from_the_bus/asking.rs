//! Programs' requests about runs: to cancel them, and to read their past events.

use baton_protocol::RunStatus;
use baton_store::AuditFilter;
use serde_json::{Value, json};

use super::{Program, fresh, question};
use crate::fixture::Fixture;

/// Guards control requests: the key behind the connection needs the scope, and is the recorded
/// actor.
#[tokio::test]
async fn a_cancel_needs_the_scope_and_is_audited_with_its_key() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let reader = Program::new(&f, json!({"scopes": ["runs:read"]})).await;
    let slow = Program::new(&f, json!({"limits": {"per_minute": 1}})).await;
    let run = fresh();
    assert_eq!(slow.submit(run, question()).await["ok"], true);

    for (by, code) in [(&reader, "scope_missing"), (&slow, "rate_limited")] {
        let refused = by.control(run, "cancel", json!({})).await;
        assert_eq!(
            (&refused["ok"], &refused["error"]["code"]),
            (&json!(false), &json!(code))
        );
    }
    let decide = json!({"approval_id": fresh(), "decision": "retry"});
    let refused = reader.control(run, "decide", decide).await;
    assert_eq!(refused["error"]["code"], "scope_missing");

    let mut replies = program.replies(run).await;
    let cancel = json!({"reason": "enough"});
    let done = program.control(run, "cancel", cancel).await;
    let id = done["request_id"].clone();
    assert_eq!(
        done,
        json!({"v": 1, "verb": "cancel", "run_id": run, "request_id": id, "ok": true,
               "status": "cancelled"})
    );
    assert_eq!(replies.next().await, done);
    f.until_status(run, RunStatus::Cancelled).await;
    let filter = AuditFilter {
        action: Some("run.cancelled".into()),
        limit: 10,
        ..AuditFilter::default()
    };
    let audited = f.store.system().audit_log(&filter).await.unwrap();
    assert_eq!(audited.len(), 1, "{audited:?}");
    assert_eq!(audited[0].actor.as_deref(), Some(&*program.key));
    assert_eq!(audited[0].request_id.as_deref(), id.as_str());
    let unknown = program.control(fresh(), "cancel", json!({})).await;
    assert_eq!(unknown["error"]["code"], "run_not_found");
}

fn ids(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect()
}

/// Guards history: its pages, from any cursor, equal HTTP's events, also when only the ledger has
/// them.
#[tokio::test]
async fn history_is_told_in_pages_from_any_cursor_and_after_the_stream_is_lost() {
    let mut f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    program.submit(run, question()).await;
    let none_yet = program.history(run, json!({})).await;
    let id = none_yet["request_id"].clone();
    assert_eq!(
        none_yet,
        json!({"v": 1, "run_id": run, "request_id": id, "ok": true, "events": [], "next_after": null, "done": false})
    );
    let mut worker = f.take_job().await;
    for text in ["a", "b", "c"] {
        worker.say(text).await;
    }
    let so_far = program.history(run, json!({})).await;
    assert_eq!(ids(&so_far).len(), 4);
    assert_eq!(
        (&so_far["next_after"], &so_far["done"]),
        (&Value::Null, &json!(false))
    );
    worker.complete().await;

    let expected: Vec<_> = f
        .all_events(run)
        .await
        .iter()
        .map(|event| event.id.as_u64())
        .collect();
    let mut paged = Vec::new();
    let mut after = json!(0);
    loop {
        let page = program
            .history(run, json!({"after": after, "limit": 2}))
            .await;
        assert!(ids(&page).len() <= 2);
        paged.extend(ids(&page));
        if page["next_after"].is_null() {
            assert_eq!(page["done"], true);
            break;
        }
        after = page["next_after"].clone();
    }
    assert_eq!(paged, expected);
    let last = expected.last().unwrap();
    let nothing = program.history(run, json!({"after": last})).await;
    assert_eq!((ids(&nothing), &nothing["done"]), (vec![], &json!(true)));

    for (question, code) in [
        (json!({"after": expected[1] + 1000}), "cursor_unknown"),
        (json!({"limit": 0}), "invalid_request"),
    ] {
        let refused = program.history(run, question).await;
        assert_eq!(refused["error"]["code"], code);
    }
    let writer = Program::new(&f, json!({"scopes": ["runs:write"]})).await;
    assert_eq!(
        writer.history(run, json!({})).await["error"]["code"],
        "scope_missing"
    );
    let unknown = program.history(fresh(), json!({})).await;
    assert_eq!(unknown["error"]["code"], "run_not_found");

    f.lose_all_events().await;
    let rebuilt = program.history(run, json!({})).await;
    assert_eq!(rebuilt["done"], true, "{rebuilt}");
    let text: String = rebuilt["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["data"]["text"].as_str())
        .collect();
    assert_eq!(text, "abc");
}

/// Guards the tenant in every look-up: another tenant's run does not exist.
#[tokio::test]
async fn another_tenants_run_is_no_run() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let stranger = f.register("anna@example.com").await;
    let token = stranger["access_token"].as_str().unwrap();
    let (_, made) = f.ask(token, "POST", "/v1/runs", question()).await;
    let theirs = made["id"].as_str().unwrap().parse().unwrap();
    for answer in [
        program.history(theirs, json!({})).await,
        program.control(theirs, "cancel", json!({})).await,
    ] {
        assert_eq!(answer["error"]["code"], "run_not_found", "{answer}");
    }
}
