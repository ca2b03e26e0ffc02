//! What a key may use up, as clients meet it.

use serde_json::{Value, json};

use crate::fixture::{Fixture, answer};

async fn key_with(fixture: &Fixture, limits: Value) -> String {
    let wish = json!({"name": "limited", "scopes": ["*"], "limits": limits});
    let (status, key) = fixture
        .ask(&fixture.key, "POST", "/v1/api-keys", wish)
        .await;
    assert_eq!(status, 201, "{key}");
    key["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_with_as_many_runs_as_it_may_have_is_refused_until_one_has_ended() {
    let fixture = Fixture::start().await;
    let key = key_with(&fixture, json!({"concurrent_runs": 1})).await;
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
    // Others of the tenant go on.
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
