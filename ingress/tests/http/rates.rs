//! Rate limits, as clients see them.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer};

/// Returns the limit, the remaining requests and the reset of an answer.
fn standing(response: &Response) -> [u32; 3] {
    ["limit", "remaining", "reset"].map(|what| {
        let value = &response.headers()[format!("x-ratelimit-{what}")];
        value.to_str().unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn a_key_s_limit_is_shown_kept_and_shared_by_all_ingresses() {
    let fixture = Fixture::start().await;
    let (other, _stop) = fixture.another_ingress().await;
    let key = fixture
        .limited_key(json!({"per_minute": 6, "per_day": 1000}))
        .await;
    let ask = async |base: &str, path: &str| {
        let request = fixture.request(Method::GET, &format!("{base}{path}"));
        request.bearer_auth(&key).send().await.unwrap()
    };
    for place in 0..6 {
        let base = if place % 2 == 0 {
            &fixture.base
        } else {
            &other
        };
        let response = ask(base, "/v1/runs").await;
        assert_eq!(response.status(), 200);
        let [limit, remaining, reset] = standing(&response);
        assert_eq!((limit, remaining), (6, 5 - place));
        assert!((1..=60).contains(&reset), "{reset}");
        assert!(!response.headers().contains_key("retry-after"));
    }
    for (path, media) in [
        ("/v1/runs", "application/problem+json"),
        ("/v1/models", "application/json"),
    ] {
        for base in [&fixture.base, &other] {
            let response = ask(base, path).await;
            assert_eq!(response.status(), 429, "{path}");
            assert_eq!(response.headers()["content-type"], media);
            let [limit, remaining, reset] = standing(&response);
            assert_eq!((limit, remaining), (6, 0));
            assert_eq!(response.headers()["retry-after"], reset.to_string());
            let (_, body) = answer(response).await;
            let error = body.get("error").unwrap_or(&body);
            assert_eq!(error["code"], "rate_limited");
        }
    }
    let unlimited = fixture.get("/v1/runs").send().await.unwrap();
    assert_eq!(unlimited.status(), 200);
    assert!(!unlimited.headers().contains_key("x-ratelimit-limit"));
}

#[tokio::test]
async fn who_has_no_limit_of_their_own_has_the_configured_one() {
    let fixture = Fixture::start_with(|config| {
        config.limits.per_key_per_minute = 3;
        config.limits.per_key_per_day = 2;
    })
    .await;
    for remaining in [1, 0] {
        let response = fixture.get("/v1/runs").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(standing(&response)[..2], [2, remaining]);
    }
    let response = fixture.get("/v1/runs").send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(standing(&response)[2] > 60 * 60);
    let tokens = fixture.register("ann@example.org").await;
    let token = tokens["access_token"].as_str().unwrap();
    for status in [200, 200, 429] {
        let (answered, _) = fixture.ask(token, "GET", "/v1/auth/me", Value::Null).await;
        assert_eq!(answered, status);
    }
}

#[tokio::test]
async fn an_address_is_limited_before_anybody_is_asked_who_it_is() {
    let fixture = Fixture::start_with(|config| config.limits.per_ip_per_minute = 4).await;
    let forwarded = |request: reqwest::RequestBuilder, from: &str| {
        let request = request.header("x-forwarded-for", from);
        request.header("forwarded", format!("for={from}"))
    };
    // Without a credential, with a bad one, with a good one, and on a route that needs none: all
    // are counted, and the address that a client claims is ignored.
    let credentials = ["", "bt_test_nonsense", &fixture.key];
    for (place, credential) in (0..).zip(credentials) {
        let request = forwarded(
            fixture
                .plain("GET", "/v1/runs", &Value::Null)
                .bearer_auth(credential),
            &format!("198.51.100.{place}"),
        );
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), if place == 2 { 200 } else { 401 });
        assert_eq!(standing(&response)[..2], [4, 3 - place]);
    }
    let login = json!({"email": "a@example.org", "password": "x"});
    let response = fixture
        .plain("POST", "/v1/auth/login", &login)
        .send()
        .await
        .unwrap();
    assert_eq!(standing(&response)[..2], [4, 0]);
    for credential in credentials {
        let request = fixture.plain("GET", "/v1/runs", &Value::Null);
        let request = forwarded(request.bearer_auth(credential), "198.51.100.9");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-ratelimit-limit"], "4");
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(answer(response).await.1["code"], "rate_limited");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_client_has_its_own_limit() {
    let fixture = Fixture::start_with(|config| {
        config.limits.per_ip_per_minute = 1;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for (from, status) in [
        ("198.51.100.1", 200),
        ("198.51.100.2", 200),
        ("198.51.100.1", 429),
        // The client wrote the first address, the proxy the second.
        ("192.0.2.77, 198.51.100.2", 429),
    ] {
        let request = fixture.get("/v1/runs").header("x-forwarded-for", from);
        assert_eq!(request.send().await.unwrap().status(), status, "{from}");
    }
}

#[tokio::test]
async fn every_route_s_description_knows_the_answer_of_a_limit() {
    let fixture = Fixture::start().await;
    let document = fixture.get("/openapi.json").send().await.unwrap();
    let (_, document) = answer(document).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = &operation["responses"];
            let fails = responses
                .as_object()
                .unwrap()
                .keys()
                .any(|status| status.starts_with('4'));
            assert!(
                !fails || responses["429"]["content"].is_object(),
                "{method} {path}"
            );
        }
    }
}
