//! Refusals, and their shapes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::Fixture;

async fn read(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn errors_have_the_shape_of_their_path() {
    let f = Fixture::start_with(|config| config.http.body_limit = "4KiB".parse().unwrap()).await;
    let chat = "/v1/chat/completions";
    let long = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(5_000)}]});
    let bad = json!({"model": "m"});
    let many = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 3});
    for (path, body, status, code) in [
        (chat, &long, 413, "body_too_large"),
        (chat, &bad, 400, "invalid_messages"),
        (chat, &many, 400, "unsupported_value"),
        ("/v1/runs", &long, 413, "body_too_large"),
        ("/v1/runs", &bad, 400, "invalid_messages"),
        (
            "/v1/runs",
            &json!({"model": "m", "input": "x", "tempreature": 1}),
            400,
            "invalid_json",
        ),
        (
            "/v1/runs",
            &json!({"model": "m", "input": "x", "thread_id": "t"}),
            400,
            "invalid_thread_id",
        ),
        (
            "/v1/runs",
            &json!({"agent": "nobody", "input": "x"}),
            404,
            "agent_not_found",
        ),
    ] {
        let response = f.post(path, body).send().await.unwrap();
        assert_eq!(response.status(), status, "{path} {code}");
        let media = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let body = read(response).await;
        if path == chat {
            assert_eq!(media, "application/json");
            assert_eq!(body["error"]["code"], code);
        } else {
            assert_eq!(media, "application/problem+json");
            assert_eq!(body["code"], code);
        }
    }
    let page = read(f.get("/v1/runs").send().await.unwrap()).await;
    assert_eq!(page["data"], json!([]), "no run is left behind");
}

#[tokio::test]
async fn a_key_opens_only_what_its_scopes_and_models_say() {
    let f = Fixture::start().await;
    let ask = |key: String, method: Method, path: &'static str, body: Value| {
        let url = format!("{}{path}", f.base);
        let request = f.request(method, &url).body(body.to_string());
        async move {
            let response = request.header("x-api-key", key).send().await.unwrap();
            (response.status().as_u16(), read(response).await)
        }
    };
    let reader = f.make_key(1, &["runs:read"], None).await;
    let writer = f.make_key(2, &["runs:write"], Some(&["m"])).await;
    let run = json!({"model": "m", "input": "x"});

    let (status, body) = ask(reader.clone(), Method::POST, "/v1/runs", run.clone()).await;
    assert_eq!((status, &body["code"]), (403, &json!("scope_missing")));
    assert_eq!(
        ask(reader.clone(), Method::GET, "/v1/runs", json!(null))
            .await
            .0,
        200
    );
    assert_eq!(
        ask(writer.clone(), Method::POST, "/v1/runs", run).await.0,
        202
    );
    assert_eq!(
        ask(writer.clone(), Method::GET, "/v1/runs", json!(null))
            .await
            .0,
        403
    );
    let other = json!({"model": "other", "messages": [{"role": "user", "content": "x"}]});
    let (status, body) = ask(writer, Method::POST, "/v1/chat/completions", other).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (403, &json!("model_not_allowed"))
    );
    let stranger = baton_identity::ApiKey::from_random("test", [99; 32]).unwrap();
    let (status, _) = ask(
        stranger.expose().to_owned(),
        Method::GET,
        "/v1/runs",
        json!(null),
    )
    .await;
    assert_eq!(status, 401);
    let (status, body) = ask("bt_test".to_owned(), Method::GET, "/v1/models", json!(null)).await;
    assert_eq!(
        (status, &body["error"]["type"]),
        (401, &json!("authentication_error"))
    );
}

#[tokio::test]
async fn another_tenants_run_does_not_exist() {
    let f = Fixture::start().await;
    let run = f.queued_run().await;
    let stranger = f.key_of_another_tenant(3).await;
    for (method, path) in [
        (Method::GET, format!("/v1/runs/{run}")),
        (Method::GET, format!("/v1/runs/{run}/events")),
        (Method::POST, format!("/v1/runs/{run}/cancel")),
    ] {
        let url = format!("{}{path}", f.base);
        let response = f
            .request(method, &url)
            .bearer_auth(&stranger)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(read(response).await["code"], "run_not_found");
    }
    assert!(!f.record(run).await.cancel_requested);
}

#[tokio::test]
async fn a_full_queue_of_one_tenant_refuses_with_429_and_leaves_nothing_behind() {
    let f = Fixture::start_with(|config| config.limits.queued_per_tenant = 2).await;
    let run = json!({"model": "m", "input": "x"});
    for _ in 0..2 {
        let accepted = f.post("/v1/runs", &run).send().await.unwrap();
        assert_eq!(accepted.status(), 202);
    }
    let refused = f.post("/v1/runs", &run).send().await.unwrap();
    assert_refused(refused, 429, |body| body["code"] == "queue_full").await;
    for stream in [false, true] {
        let refused = f.chat(stream).send().await.unwrap();
        assert_refused(refused, 429, |body| body["error"]["code"] == "queue_full").await;
    }
    assert_eq!(runs(&f).await, 2);
}

#[tokio::test]
async fn a_full_system_refuses_with_503_and_leaves_nothing_behind() {
    let f = Fixture::start_with(|config| config.limits.queued_total = 1).await;
    let run = json!({"model": "m", "input": "x"});
    // The total of queued runs is counted periodically, not for each request.
    let mut accepted = 0;
    let refused = crate::fixture::soon(async {
        loop {
            let response = f.post("/v1/runs", &run).send().await.unwrap();
            if response.status() != 202 {
                return response;
            }
            accepted += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(accepted > 0);
    assert_refused(refused, 503, |body| body["code"] == "system_full").await;
    let refused = f.chat(true).send().await.unwrap();
    assert_refused(refused, 503, |body| body["error"]["code"] == "system_full").await;
    assert_eq!(runs(&f).await, accepted);
}

async fn assert_refused(response: reqwest::Response, status: u16, says: fn(&Value) -> bool) {
    assert_eq!(response.status(), status);
    let headers = response.headers();
    assert!(headers.contains_key("retry-after"));
    assert!(!headers.contains_key("x-run-id"));
    assert!(!headers.contains_key("x-should-retry"), "it may ask again");
    let body = read(response).await;
    assert!(says(&body), "{body}");
}

/// Returns the number of the tenant's runs, up to a hundred.
async fn runs(f: &Fixture) -> usize {
    let page = read(f.get("/v1/runs?limit=100").send().await.unwrap()).await;
    page["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn without_a_broker_nothing_is_accepted() {
    let mut f = Fixture::start().await;
    f.nats.kill().await;
    crate::fixture::soon(async {
        while f.bus.is_connected() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let refused = f.chat(true).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(read(refused).await["error"]["code"], "broker_unavailable");
    let page = read(f.get("/v1/runs").send().await.unwrap()).await;
    assert_eq!(page["data"], json!([]));
}

#[tokio::test]
async fn the_description_names_every_route() {
    let f = Fixture::start().await;
    let description = read(f.get("/openapi.json").send().await.unwrap()).await;
    let paths: Vec<&str> = description["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for path in [
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{id}",
        "/v1/runs",
        "/v1/runs/{id}",
        "/v1/runs/{id}/cancel",
        "/v1/runs/{id}/events",
    ] {
        assert!(paths.contains(&path), "{path} is missing in {paths:?}");
    }
    let docs = f.get("/docs/").send().await.unwrap();
    assert_eq!(docs.status(), 200);
    assert!(docs.text().await.unwrap().contains("swagger"));
    let models = read(f.get("/v1/models").send().await.unwrap()).await;
    assert_eq!(
        models["data"][0]["id"], "house",
        "without an upstream, the default is known"
    );
}

#[tokio::test]
async fn a_refusal_names_what_is_wrong_and_nothing_is_guessed_in_its_place() {
    let f = Fixture::start().await;
    let run = "/v1/runs/00000000-0000-7000-8000-000000000000/events";
    for (path, param) in [
        (&*format!("{run}?rebuilt=maybe"), "rebuilt"),
        (&*format!("{run}?after=1&after=2"), "after"),
        ("/v1/runs?limit=many", "limit"),
        ("/v1/runs?limit=0", "limit"),
        ("/v1/runs?cursor=x", "cursor"),
        ("/v1/usage?cursor=x", "cursor"),
        ("/v1/usage?from=yesterday", "from"),
    ] {
        let response = f.get(path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let problem = read(response).await;
        assert_eq!(problem["code"], "invalid_parameter", "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("`{param}`")), "{path}: {detail}");
    }
    let made = f.post(
        "/v1/api-keys",
        &json!({"name": "n", "limits": {"per_minute": "9"}}),
    );
    let problem = read(made.send().await.unwrap()).await;
    assert_eq!(problem["param"], "limits.per_minute", "{problem}");
}
