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
