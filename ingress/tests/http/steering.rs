//! Messages to runs that work, over HTTP and the bus.

use baton_protocol::RunId;
use baton_service::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::from_the_bus::Program;

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

/// Submits a run, and returns its id and the address of its messages.
async fn run(f: &Fixture) -> (RunId, String) {
    let body = json!({"model": "m", "input": "How do I get to Rome?"});
    let (status, run) = ask(f, "POST", "/v1/runs", body).await;
    assert_eq!(status, 202, "{run}");
    let id = run["id"].as_str().unwrap();
    (id.parse().unwrap(), format!("/v1/runs/{id}/messages"))
}

#[tokio::test]
async fn a_message_is_accepted_listed_withdrawn_and_handed_back() {
    let f = Fixture::start().await;
    let (run, messages) = run(&f).await;
    let worker = f.take_job().await;
    let parts = json!([{"type": "text", "text": "By train."}]);
    let sent = json!({"content": parts, "mode": "steer"});
    let (status, first) = ask(&f, "POST", &messages, sent).await;
    assert_eq!((status, &first["position"]), (202, &json!(1)), "{first}");
    assert_eq!(first["message"], json!({"role": "user", "content": parts}));
    assert_eq!(
        (&first["object"], &first["status"]),
        (&json!("run.message"), &json!("waiting"))
    );
    // A repetition with its id is the same message.
    let again = json!({"content": "By train.", "id": first["id"]});
    assert_eq!(
        ask(&f, "POST", &messages, again).await,
        (202, first.clone())
    );
    let (_, second) = ask(&f, "POST", &messages, json!({"content": "In May."})).await;
    let second = format!("{messages}/{}", second["id"].as_str().unwrap());
    assert_eq!(ask(&f, "DELETE", &second, Value::Null).await.0, 204);
    let (status, error) = ask(&f, "DELETE", &second, Value::Null).await;
    assert_eq!((status, &error["code"]), (404, &json!("message_not_found")));

    for position in 3..=11 {
        let (_, sent) = ask(&f, "POST", &messages, json!({"content": "x"})).await;
        assert_eq!(sent["position"], position, "{sent}");
    }
    let (status, error) = ask(&f, "POST", &messages, json!({"content": "x"})).await;
    assert_eq!(
        (status, &error["code"]),
        (429, &json!("too_many_messages")),
        "{error}"
    );
    let (_, page) = ask(&f, "GET", &format!("{messages}?limit=9"), Value::Null).await;
    assert_eq!(page["data"].as_array().unwrap().len(), 9);
    let rest = format!(
        "{messages}?cursor={}",
        page["next_cursor"].as_str().unwrap()
    );
    let (_, rest) = ask(&f, "GET", &rest, Value::Null).await;
    assert_eq!(
        (&rest["data"][0]["position"], &rest["next_cursor"]),
        (&json!(11), &Value::Null)
    );

    let mut worker = worker;
    worker.cancelled("enough").await;
    assert_eq!(worker.run(), run);
    let (_, list) = ask(&f, "GET", &messages, Value::Null).await;
    let returned = list["data"].as_array().unwrap().iter();
    assert!(
        returned.clone().all(|it| it["status"] == "returned"),
        "{list}"
    );
    let (status, error) = ask(&f, "POST", &messages, json!({"content": parts})).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("run_ended")),
        "{error}"
    );
    assert_eq!(error["content"], parts, "the content is handed back");
    let first = format!("{messages}/{}", first["id"].as_str().unwrap());
    let (status, error) = ask(&f, "DELETE", &first, Value::Null).await;
    assert_eq!((status, &error["code"]), (409, &json!("run_ended")));
}

#[tokio::test]
async fn what_is_no_message_is_refused_by_its_field() {
    let f = Fixture::start().await;
    let (_, messages) = run(&f).await;
    for (body, code, named) in [
        (json!({}), "invalid_json", "content"),
        (json!({"content": ""}), "invalid_messages", "content"),
        (json!({"content": []}), "invalid_messages", "content"),
        (json!({"content": ["x"]}), "invalid_messages", "content"),
        (json!({"content": 7}), "invalid_messages", "content"),
        (
            json!({"content": "x", "mode": "shout"}),
            "invalid_mode",
            "follow_up",
        ),
        (
            json!({"content": "x", "id": "mine"}),
            "invalid_message_id",
            "id",
        ),
        (
            json!({"content": "x", "role": "system"}),
            "invalid_json",
            "role",
        ),
    ] {
        let (status, error) = ask(&f, "POST", &messages, body.clone()).await;
        assert_eq!(status, 400, "{body}: {error}");
        assert_eq!(error["code"], code, "{body}: {error}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{body}: {detail}");
    }
    let (status, error) = ask(&f, "GET", &format!("{messages}?limit=0"), Value::Null).await;
    assert_eq!((status, &error["param"]), (400, &json!("limit")));
    let nowhere = "/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057/messages";
    for (method, body) in [("POST", json!({"content": "x"})), ("GET", Value::Null)] {
        let (status, error) = ask(&f, method, nowhere, body).await;
        assert_eq!((status, &error["code"]), (404, &json!("run_not_found")));
    }
}

#[tokio::test]
async fn a_program_sends_a_message_once_however_often_it_asks() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let reader = Program::new(&f, json!({"scopes": ["runs:read"]})).await;
    let (run, messages) = run(&f).await;
    let id = RunId::from_uuid(uuid::Uuid::now_v7());
    let steer = json!({"content": "By train.", "message_id": id});
    for _ in 0..2 {
        let done = program.control(run, "steer", steer.clone()).await;
        assert_eq!(
            (&done["ok"], &done["status"]),
            (&json!(true), &json!("queued")),
            "{done}"
        );
    }
    let (_, list) = ask(&f, "GET", &messages, Value::Null).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["data"][0]["id"], json!(id));
    let refused = reader.control(run, "steer", steer).await;
    assert_eq!(refused["error"]["code"], "scope_missing");
    let refused = program.control(run, "steer", json!({"content": ""})).await;
    assert_eq!(refused["error"]["code"], "invalid_messages");
    let id = RunId::from_uuid(uuid::Uuid::now_v7());
    let refused = program.control(id, "steer", json!({"content": "x"})).await;
    assert_eq!(refused["error"]["code"], "run_not_found");
}

#[tokio::test]
async fn a_program_makes_the_next_run_of_a_thread_once_however_often_it_asks() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let reader = Program::new(&f, json!({"scopes": ["runs:read"]})).await;
    let (alone, _) = run(&f).await;
    let mut worker = f.take_job().await;
    worker.complete().await;
    let (_, thread) = ask(&f, "POST", "/v1/threads", json!({})).await;
    let first = json!({"model": "m", "input": "To Rome?", "thread_id": thread["id"]});
    let (_, first) = ask(&f, "POST", "/v1/runs", first).await;
    let first: RunId = first["id"].as_str().unwrap().parse().unwrap();
    let mut worker = f.take_job().await;
    let id = RunId::new(SystemClock.now());
    let next = |content: &str| json!({"content": content, "mode": "follow_up", "message_id": id});

    let refused = reader.control(first, "steer", next("And back?")).await;
    assert_eq!(refused["error"]["code"], "scope_missing");
    let refused = program.control(alone, "steer", next("And back?")).await;
    assert_eq!(refused["error"]["code"], "run_without_thread", "{refused}");
    let unnamed = json!({"content": "And back?", "mode": "follow_up"});
    let refused = program.control(first, "steer", unnamed).await;
    assert_eq!(refused["error"]["code"], "invalid_request", "{refused}");
    for _ in 0..2 {
        let done = program.control(first, "steer", next("And back?")).await;
        assert_eq!(
            (&done["ok"], &done["run_id"]),
            (&json!(true), &json!(first))
        );
    }
    let refused = program.control(first, "steer", next("And when?")).await;
    assert_eq!(refused["error"]["code"], "run_id_taken", "{refused}");
    let (_, queued) = ask(&f, "GET", &format!("/v1/runs/{id}"), Value::Null).await;
    assert_eq!(
        (&queued["status"], &queued["thread_id"]),
        (&json!("queued"), &thread["id"])
    );
    worker.say("By train.").await;
    worker.complete().await;
    let done = program.control(first, "steer", next("And back?")).await;
    assert_eq!(done["ok"], true, "repeated after the end: {done}");
    let worker = f.take_job().await;
    assert_eq!(worker.run(), id);
    let late =
        json!({"content": "x", "mode": "follow_up", "message_id": RunId::new(SystemClock.now())});
    let refused = program.control(first, "steer", late).await;
    assert_eq!(refused["error"]["code"], "run_ended", "{refused}");
}

#[tokio::test]
async fn a_message_for_afterwards_is_the_next_run_of_the_thread() {
    let f = Fixture::start().await;
    let (_, messages_of_no_thread) = run(&f).await;
    let follow_up = |content: &str| json!({"content": content, "mode": "follow_up"});
    let (status, error) = ask(&f, "POST", &messages_of_no_thread, follow_up("x")).await;
    let code = &error["code"];
    assert_eq!(
        (status, code),
        (409, &json!("run_without_thread")),
        "{error}"
    );
    let mut worker = f.take_job().await;
    worker.complete().await;

    let (_, thread) = ask(&f, "POST", "/v1/threads", json!({})).await;
    let tool = json!({"type": "function", "function": {"name": "look", "parameters": {}}});
    let first = json!({"model": "m", "input": "To Rome?", "thread_id": thread["id"],
        "tools": [tool], "params": {"temperature": 0.5}, "max_turns": 2});
    let (_, first) = ask(&f, "POST", "/v1/runs", first).await;
    let messages = format!("/v1/runs/{}/messages", first["id"].as_str().unwrap());
    let mut worker = f.take_job().await;
    let (status, next) = ask(&f, "POST", &messages, follow_up("And back?")).await;
    assert_eq!((status, &next["status"]), (202, &json!("queued")), "{next}");
    assert_eq!(
        (&next["object"], &next["thread_id"], &next["model"]),
        (&json!("run"), &thread["id"], &json!("m"))
    );
    let mut again = follow_up("And when?");
    again["id"] = json!(RunId::new(SystemClock.now()));
    let (_, third) = ask(&f, "POST", &messages, again.clone()).await;
    assert_eq!(third["id"], again["id"], "the message's id is the run's");
    worker.say("By train.").await;
    worker.complete().await;
    let repeated = ask(&f, "POST", &messages, again.clone()).await;
    assert_eq!((repeated.0, &repeated.1["id"]), (202, &again["id"]));
    let (status, error) = ask(&f, "POST", &messages, follow_up("Too late?")).await;
    assert_eq!(
        (status, &error["code"], &error["content"]),
        (409, &json!("run_ended"), &json!("Too late?"))
    );
    let (_, sent) = ask(&f, "GET", &messages, Value::Null).await;
    assert_eq!(sent["data"], json!([]), "the run itself was sent nothing");

    for (id, contents) in [
        (&next["id"], vec!["To Rome?", "By train.", "And back?"]),
        (
            &third["id"],
            vec!["To Rome?", "By train.", "And back?", "Same.", "And when?"],
        ),
    ] {
        let mut worker = f.take_job().await;
        assert_eq!(json!(worker.run()), *id);
        let record = f.record(worker.run()).await;
        let spec: baton_protocol::RunSpec = serde_json::from_str(&record.spec_json).unwrap();
        let begun: Vec<Value> = serde_json::from_str(spec.messages.get()).unwrap();
        let begun: Vec<_> = begun.iter().map(|it| &it["content"]).collect();
        assert_eq!(begun, contents);
        assert_eq!(spec.client_tools(), ["look"]);
        assert_eq!(spec.limits.max_turns, 2);
        assert_eq!(spec.params.as_raw().get(), r#"{"temperature":0.5}"#);
        worker.say("Same.").await;
        worker.complete().await;
    }
}
