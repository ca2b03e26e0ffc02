//! Threads over HTTP: create, list, change, append to, delete.

use serde_json::{Value, json};

use crate::fixture::Fixture;

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

/// Makes a thread and returns its id.
async fn thread(f: &Fixture, body: Value) -> String {
    let (status, made) = ask(f, "POST", "/v1/threads", body).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

fn titles(list: &Value) -> Vec<&str> {
    let data = list["data"].as_array().unwrap().iter();
    data.map(|thread| thread["title"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_thread_is_made_changed_found_and_deleted() {
    let f = Fixture::start().await;
    let wish = json!({"title": "Trip to Rome", "metadata": {"user": "ada", "plan": "pro"}});
    let (status, made) = ask(&f, "POST", "/v1/threads", wish).await;
    assert_eq!((status, &made["object"]), (201, &json!("thread")), "{made}");
    assert_eq!(made["metadata"], json!({"user": "ada", "plan": "pro"}));
    let path = format!("/v1/threads/{}", made["id"].as_str().unwrap());
    assert_eq!(ask(&f, "GET", &path, Value::Null).await, (200, made));

    let change = json!({"title": "Trip to Naples"});
    let (_, changed) = ask(&f, "PATCH", &path, change).await;
    assert_eq!(changed["title"], "Trip to Naples");
    assert_eq!(
        changed["metadata"]["plan"], "pro",
        "an absent field stays as it is"
    );
    thread(
        &f,
        json!({"title": "rome again", "metadata": {"user": "bob"}}),
    )
    .await;
    thread(&f, json!({"title": "Taxes", "metadata": {"user": "ada"}})).await;
    for (query, found) in [
        ("", vec!["Taxes", "rome again", "Trip to Naples"]),
        ("?title=ROME", vec!["rome again"]),
        (
            "?metadata=%7B%22user%22%3A%22ada%22%7D",
            vec!["Taxes", "Trip to Naples"],
        ),
        (
            "?title=trip&metadata=%7B%22user%22%3A%22bob%22%7D",
            Vec::new(),
        ),
        ("?title=%25", Vec::new()),
    ] {
        let (_, list) = ask(&f, "GET", &format!("/v1/threads{query}"), Value::Null).await;
        assert_eq!(titles(&list), found, "{query}");
        assert_eq!(list["next_cursor"], Value::Null);
    }
    let (_, page) = ask(&f, "GET", "/v1/threads?limit=2", Value::Null).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = format!("/v1/threads?cursor={cursor}");
    let (_, rest) = ask(&f, "GET", &rest, Value::Null).await;
    assert_eq!(titles(&rest), ["Trip to Naples"]);

    let clear = json!({"title": null, "metadata": null});
    let (_, cleared) = ask(&f, "PATCH", &path, clear).await;
    assert_eq!(
        (&cleared["title"], &cleared["metadata"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(ask(&f, "DELETE", &path, Value::Null).await.0, 204);
    let messages = format!("{path}/messages");
    for (method, path, body) in [
        ("GET", &path, Value::Null),
        ("PATCH", &path, json!({})),
        ("DELETE", &path, Value::Null),
        ("GET", &messages, Value::Null),
        (
            "POST",
            &messages,
            json!({"messages": [{"role": "user", "content": "x"}]}),
        ),
    ] {
        let (status, error) = ask(&f, method, path, body).await;
        assert_eq!((status, &error["code"]), (404, &json!("thread_not_found")));
    }
    let filter = baton_store::AuditFilter {
        limit: 10,
        ..baton_store::AuditFilter::default()
    };
    let log = f.store.system().audit_log(&filter).await.unwrap();
    let deleted: Vec<_> = log
        .iter()
        .filter(|entry| entry.action == "thread.deleted")
        .collect();
    assert_eq!(deleted.len(), 1, "{log:?}");
}

#[tokio::test]
async fn messages_are_appended_in_order_and_read_in_pages() {
    let f = Fixture::start().await;
    let path = format!("/v1/threads/{}/messages", thread(&f, json!({})).await);
    for text in ["a", "b"] {
        let messages = json!({"messages": [
            {"role": "user", "content": text, "name": "ada"},
            {"role": "assistant", "content": format!("{text}!")},
        ]});
        let (status, appended) = ask(&f, "POST", &path, messages.clone()).await;
        assert_eq!(status, 201, "{appended}");
        for (index, stored) in appended["data"].as_array().unwrap().iter().enumerate() {
            assert_eq!(stored["message"], messages["messages"][index]);
            assert_eq!(stored["object"], "thread.message");
        }
    }
    let contents = |list: &Value| -> Vec<String> {
        let data = list["data"].as_array().unwrap().iter();
        data.map(|it| it["message"]["content"].as_str().unwrap().to_owned())
            .collect()
    };
    for (order, pages) in [
        ("asc", [["a", "a!", "b"].as_slice(), &["b!"]]),
        ("desc", [["b!", "b", "a!"].as_slice(), &["a"]]),
    ] {
        let first = format!("{path}?limit=3&order={order}");
        let (_, list) = ask(&f, "GET", &first, Value::Null).await;
        assert_eq!(contents(&list), pages[0]);
        let cursor = list["next_cursor"].as_str().unwrap();
        let (_, list) = ask(&f, "GET", &format!("{first}&cursor={cursor}"), Value::Null).await;
        assert_eq!(contents(&list), pages[1]);
        assert_eq!(list["next_cursor"], Value::Null);
    }
}

#[tokio::test]
async fn a_bad_request_about_a_thread_is_refused_by_its_field() {
    let f = Fixture::start().await;
    let path = format!("/v1/threads/{}", thread(&f, json!({})).await);
    let messages = format!("{path}/messages");
    let long = "x".repeat(513);
    let many: serde_json::Map<_, _> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    for (method, path, body, named) in [
        ("POST", "/v1/threads", json!({"title": long}), "title"),
        ("POST", "/v1/threads", json!({"title": "a\nb"}), "title"),
        ("POST", "/v1/threads", json!({"colour": 1}), "colour"),
        (
            "POST",
            "/v1/threads",
            json!({"metadata": {"a": 1}}),
            "metadata",
        ),
        ("POST", "/v1/threads", json!({"metadata": many}), "metadata"),
        (
            "POST",
            "/v1/threads",
            json!({"metadata": {"a": "\u{0}"}}),
            "metadata.a",
        ),
        ("PATCH", &path, json!({"title": 1}), "title"),
        ("PATCH", &path, json!({"metadata": {"a": long}}), "metadata"),
        ("POST", &messages, json!({}), "messages"),
        ("POST", &messages, json!({"messages": []}), "messages"),
        (
            "POST",
            &messages,
            json!({"messages": [{"role": "king"}]}),
            "messages[0].role",
        ),
        ("GET", "/v1/threads?limit=0", Value::Null, "limit"),
        ("GET", "/v1/threads?cursor=x", Value::Null, "cursor"),
        ("GET", "/v1/threads?metadata=x", Value::Null, "metadata"),
        (
            "GET",
            &format!("{messages}?order=up"),
            Value::Null,
            "`order`",
        ),
        (
            "GET",
            &format!("{messages}?cursor=-1"),
            Value::Null,
            "cursor",
        ),
    ] {
        let (status, error) = ask(&f, method, path, body.clone()).await;
        assert_eq!(status, 400, "{method} {path} {body}: {error}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{method} {path} {body}: {detail}");
    }
    let (status, error) = ask(&f, "GET", "/v1/threads/x", Value::Null).await;
    assert_eq!((status, &error["code"]), (404, &json!("thread_not_found")));
}

/// Returns the texts of a thread's messages, in order.
async fn contents(f: &Fixture, thread: &str) -> Vec<String> {
    let path = format!("/v1/threads/{thread}/messages");
    let (_, list) = ask(f, "GET", &path, Value::Null).await;
    let data = list["data"].as_array().unwrap().iter();
    data.map(|it| it["message"]["content"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn runs_of_every_door_go_one_after_the_other_on_a_thread() {
    let f = Fixture::start().await;
    let thread = thread(&f, json!({})).await;
    let run = json!({"model": "m", "input": "one", "thread_id": thread});
    let (status, first) = ask(&f, "POST", "/v1/runs", run.clone()).await;
    assert_eq!((status, &first["thread_id"]), (202, &json!(thread)));

    let (status, error) = ask(&f, "POST", "/v1/runs", run).await;
    assert_eq!((status, &error["code"]), (409, &json!("thread_busy")));
    let chat = json!({
        "model": "m", "messages": [{"role": "user", "content": "two"}], "thread_id": thread,
    });
    let refused = f.post("/v1/chat/completions", &chat).send().await.unwrap();
    assert_eq!(refused.headers()["x-should-retry"], "false");
    let (status, error) = crate::fixture::answer(refused).await;
    let code = &error["error"]["code"];
    assert_eq!((status, code), (409, &json!("thread_busy")), "{error}");
    let path = format!("/v1/threads/{thread}");
    let (status, error) = ask(&f, "DELETE", &path, Value::Null).await;
    assert_eq!((status, &error["code"]), (409, &json!("thread_busy")));

    let queued = json!({
        "model": "m", "input": "two", "thread_id": thread, "on_busy": "queue",
    });
    let (status, second) = ask(&f, "POST", "/v1/runs", queued).await;
    assert_eq!(status, 202, "{second}");
    let mut worker = f.take_job().await;
    assert_eq!(worker.run().to_string(), first["id"].as_str().unwrap());
    worker.say("first").await;
    worker.complete().await;
    let mut worker = f.take_job().await;
    assert_eq!(worker.run().to_string(), second["id"].as_str().unwrap());
    worker.say("second").await;
    worker.complete().await;
    let all = ["one", "first", "two", "second"];
    assert_eq!(contents(&f, &thread).await, all);

    let path = format!("/v1/runs/{}", second["id"].as_str().unwrap());
    let (_, run) = ask(&f, "GET", &path, Value::Null).await;
    let input = run["input"].as_array().unwrap();
    let begun_with: Vec<_> = input.iter().map(|it| it["content"].clone()).collect();
    assert_eq!(begun_with, ["one", "first", "two"]);

    let nowhere = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (body, status, code) in [
        (json!({"thread_id": nowhere}), 404, "thread_not_found"),
        (json!({"thread_id": "t"}), 400, "invalid_thread_id"),
        (json!({"on_busy": "queue"}), 400, "invalid_on_busy"),
        (
            json!({"thread_id": thread, "on_busy": "wait"}),
            400,
            "invalid_on_busy",
        ),
    ] {
        let mut run = json!({"model": "m", "input": "x"});
        let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        for (field, value) in body.as_object().unwrap() {
            run[field] = value.clone();
            chat[field] = value.clone();
        }
        let (got, error) = ask(&f, "POST", "/v1/runs", run).await;
        assert_eq!((got, &error["code"]), (status, &json!(code)), "{body}");
        let (got, error) = ask(&f, "POST", "/v1/chat/completions", chat).await;
        let got_code = &error["error"]["code"];
        assert_eq!((got, got_code), (status, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn a_new_run_interrupts_rolls_back_or_steers_the_one_that_works() {
    let f = Fixture::start().await;
    let thread = thread(&f, json!({})).await;
    let run = |input: &str, on_busy: &str| json!({"model": "m", "input": input, "thread_id": thread, "on_busy": on_busy});
    let (_, first) = ask(&f, "POST", "/v1/runs", run("one", "reject")).await;
    let mut worker = f.take_job().await;
    worker.say("un").await;
    let (status, second) = ask(&f, "POST", "/v1/runs", run("two", "interrupt")).await;
    assert_eq!(status, 202, "{second}");
    worker.cancelled("interrupted").await;
    let mut worker = f.take_job().await;
    assert_eq!(worker.run().to_string(), second["id"].as_str().unwrap());
    assert_eq!(contents(&f, &thread).await, ["one"]);

    let (status, steered) = ask(&f, "POST", "/v1/runs", run("and three", "steer")).await;
    assert_eq!((status, &steered["id"]), (202, &second["id"]), "{steered}");
    let chat = json!({
        "model": "m", "thread_id": thread, "on_busy": "steer",
        "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
    });
    let refused = f.post("/v1/chat/completions", &chat).send().await.unwrap();
    let (status, error) = crate::fixture::answer(refused).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("messages")),
        "{error}"
    );

    worker.say("deux").await;
    let (_, third) = ask(&f, "POST", "/v1/runs", run("four", "rollback")).await;
    worker.cancelled("rolled_back").await;
    let worker = f.take_job().await;
    assert_eq!(worker.run().to_string(), third["id"].as_str().unwrap());
    assert_eq!(
        contents(&f, &thread).await,
        ["one"],
        "the second left nothing"
    );
    let messages = format!("/v1/runs/{}/messages", second["id"].as_str().unwrap());
    let (_, sent) = ask(&f, "GET", &messages, Value::Null).await;
    assert_eq!(sent["data"][0]["status"], "returned");
    let first = format!("/v1/runs/{}", first["id"].as_str().unwrap());
    let (_, first) = ask(&f, "GET", &first, Value::Null).await;
    assert_eq!(
        (&first["status"], &first["error"]["message"]),
        (&json!("cancelled"), &json!("interrupted"))
    );
}

#[tokio::test]
async fn a_cancelled_run_starts_the_next_one_of_its_thread() {
    let f = Fixture::start().await;
    let thread = thread(&f, json!({})).await;
    let run = json!({"model": "m", "input": "x", "thread_id": thread, "on_busy": "queue"});
    let (_, first) = ask(&f, "POST", "/v1/runs", run.clone()).await;
    let (_, second) = ask(&f, "POST", "/v1/runs", run).await;
    // Both jobs are taken; the second one's run waits for its thread, and its job is gone.
    let jobs = f.settle_jobs(2).await;
    assert_eq!(jobs, 2);
    let cancel = format!("/v1/runs/{}/cancel", first["id"].as_str().unwrap());
    let (status, _) = ask(&f, "POST", &cancel, json!({})).await;
    assert_eq!(status, 200);
    let worker = f.take_job().await;
    assert_eq!(worker.run().to_string(), second["id"].as_str().unwrap());
}
