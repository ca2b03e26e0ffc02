//! Wishes for titles of threads by a model.

use baton_protocol::ThreadId;
use serde_json::{Value, json};

use crate::fixture::{Fixture, soon};

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

/// Makes a thread and returns its path and id.
async fn thread(f: &Fixture, key: &str, body: Value) -> (String, String) {
    let (status, made) = f.ask(key, "POST", "/v1/threads", body).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    (format!("/v1/threads/{id}"), id)
}

async fn runs(f: &Fixture) -> Vec<Value> {
    let (_, list) = ask(f, "GET", "/v1/runs?limit=100", Value::Null).await;
    list["data"].as_array().unwrap().clone()
}

fn joining(thread: &str) -> Value {
    json!({"model": "m", "input": "How do I get to Rome?", "thread_id": thread})
}

#[tokio::test]
async fn the_run_that_joins_a_thread_asks_for_its_title_once() {
    let f = Fixture::start().await;
    let (path, id) = thread(&f, &f.key, json!({"title_model": "small"})).await;
    let (_, read) = ask(&f, "GET", &path, Value::Null).await;
    assert_eq!(
        (&read["title"], &read["title_model"]),
        (&Value::Null, &json!("small"))
    );
    let (status, joined) = ask(&f, "POST", "/v1/runs", joining(&id)).await;
    assert_eq!(status, 202, "{joined}");
    let own = soon(async {
        loop {
            let all = runs(&f).await;
            if let Some(own) = all.into_iter().find(|run| run["id"] != joined["id"]) {
                break own;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let own = own.await;
    assert_eq!(
        (&own["model"], &own["lane"]),
        (&json!("small"), &json!("background"))
    );
    assert_eq!(
        (&own["thread_id"], &own["agent"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(own["created_by"], joined["created_by"]);
    let own_path = format!("/v1/runs/{}", own["id"].as_str().unwrap());
    let (_, whole) = ask(&f, "GET", &own_path, Value::Null).await;
    let asked = json!([{"role": "user", "content": "How do I get to Rome?"}]);
    assert_eq!(whole["input"], asked);
    let (_, read) = ask(&f, "GET", &path, Value::Null).await;
    assert_eq!(read["title_model"], Value::Null, "it is asked once");

    let mut worker = f.take_job().await;
    worker.complete().await;
    let (status, next) = ask(&f, "POST", "/v1/runs", joining(&id)).await;
    assert_eq!(status, 202, "{next}");
    assert_eq!(runs(&f).await.len(), 3);
}

#[tokio::test]
async fn a_run_without_a_text_or_that_no_key_may_make_leaves_the_wish() {
    let mut f = Fixture::start().await;
    let wish = json!({"title_model": "small"});
    let (_, silent) = thread(&f, &f.key, wish.clone()).await;
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}});
    let messages = json!([{"role": "user", "content": [image]}]);
    let body = json!({"model": "m", "messages": messages, "thread_id": silent});
    assert_eq!(ask(&f, "POST", "/v1/runs", body).await.0, 202);
    // The run that joins is the only one that its key may have.
    let alone = f.limited_key(json!({"concurrent_runs": 1})).await;
    let (_, limited) = thread(&f, &alone, wish).await;
    let joined = f.ask(&alone, "POST", "/v1/runs", joining(&limited)).await;
    assert_eq!(joined.0, 202, "{}", joined.1);
    assert_eq!(runs(&f).await.len(), 2);
    // Then all tasks have ended.
    f.shutdown.soft.cancel();
    f.stopped().await;
    for id in [silent, limited] {
        let mut tx = f.store.tenant(f.tenant).await.unwrap();
        let id: ThreadId = id.parse().unwrap();
        let read = tx.thread(id).await.unwrap().unwrap();
        assert_eq!(read.title_model.as_deref(), Some("small"));
    }
}

#[tokio::test]
async fn a_wish_that_cannot_be_met_is_refused_by_its_field() {
    let f = Fixture::start().await;
    let (titled, _) = thread(&f, &f.key, json!({"title": "Rome"})).await;
    let long = "x".repeat(513);
    let bad = "invalid_title_model";
    for (method, path, body, status, code) in [
        ("POST", "/v1/threads", json!({"title_model": ""}), 400, bad),
        (
            "POST",
            "/v1/threads",
            json!({"title_model": long}),
            400,
            bad,
        ),
        (
            "POST",
            "/v1/threads",
            json!({"title_model": "a\nb"}),
            400,
            bad,
        ),
        (
            "POST",
            "/v1/threads",
            json!({"title": "x", "title_model": "m"}),
            400,
            bad,
        ),
        (
            "PATCH",
            &titled,
            json!({"title": "x", "title_model": "m"}),
            400,
            bad,
        ),
        (
            "PATCH",
            &titled,
            json!({"title_model": "m"}),
            409,
            "thread_has_title",
        ),
    ] {
        let (answered, error) = ask(&f, method, path, body.clone()).await;
        assert_eq!(answered, status, "{body}: {error}");
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!(code), &json!("title_model")),
            "{body}"
        );
    }
    let confined = f.make_key(9, &["*"], Some(&["m"])).await;
    let wish = json!({"title_model": "small"});
    let refused = f.ask(&confined, "POST", "/v1/threads", wish.clone()).await;
    assert_eq!(refused.0, 403, "{}", refused.1);
    assert_eq!(
        (&refused.1["code"], &refused.1["param"]),
        (&json!("model_not_allowed"), &json!("title_model"))
    );

    let foreign = f.key_of_another_tenant(77).await;
    let (status, error) = f.ask(&foreign, "PATCH", &titled, wish.clone()).await;
    assert_eq!((status, &error["code"]), (404, &json!("thread_not_found")));
    let both = json!({"title": null, "title_model": "small"});
    let (_, wanted) = ask(&f, "PATCH", &titled, both).await;
    assert_eq!(
        (&wanted["title"], &wanted["title_model"]),
        (&Value::Null, &json!("small"))
    );
    for end in [json!({"title_model": null}), json!({"title": "Rome"})] {
        ask(
            &f,
            "PATCH",
            &titled,
            json!({"title": null, "title_model": "small"}),
        )
        .await;
        let (_, ended) = ask(&f, "PATCH", &titled, end).await;
        assert_eq!(ended["title_model"], Value::Null);
    }
}
