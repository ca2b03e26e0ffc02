//! Ingresses with wrong clocks decide like all others: by the ledger's clock.

use std::sync::Arc;

use baton_identity::ApiKey;
use baton_protocol::ApiKeyId;
use baton_service::{Clock as _, SystemClock, WrongClock};
use baton_store::NewApiKey;
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, Sse, answer};

/// Longer than an access token's lifetime.
const WRONG_BY: TimeDelta = TimeDelta::minutes(11);

/// Starts an ingress that is ahead, and one that is behind.
async fn wrong_ones(fixture: &Fixture) -> [String; 2] {
    let [(ahead, _), (behind, _)] = [
        fixture
            .another_ingress_by(Arc::new(WrongClock(WRONG_BY)))
            .await,
        fixture
            .another_ingress_by(Arc::new(WrongClock(-WRONG_BY)))
            .await,
    ];
    [ahead, behind]
}

async fn status(fixture: &Fixture, base: &str, credential: &str) -> u16 {
    let request = fixture.request(Method::GET, &format!("{base}/v1/runs"));
    let answer = request.bearer_auth(credential).send().await.unwrap();
    answer.status().as_u16()
}

async fn key_until(fixture: &Fixture, random: u8, end: TimeDelta) -> String {
    let key = ApiKey::from_random("test", [random; 32]).unwrap();
    let now = SystemClock.now();
    let mut tx = fixture.store.tenant(fixture.tenant).await.unwrap();
    tx.create_api_key(&NewApiKey {
        id: ApiKeyId::new(now),
        hash: key.hash(),
        name: "until".into(),
        prefix: key.hint().to_owned(),
        scopes: vec!["*".into()],
        allowed_models: None,
        allowed_tools: None,
        expires_at: Some(now + end),
        limits: baton_store::KeyLimits::default(),
        created_by: None,
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    key.expose().to_owned()
}

#[tokio::test]
async fn a_key_expires_everywhere_at_the_same_time() {
    let fixture = Fixture::start().await;
    let good = key_until(&fixture, 21, TimeDelta::minutes(5)).await;
    let expired = key_until(&fixture, 22, -TimeDelta::minutes(5)).await;
    for base in wrong_ones(&fixture).await {
        assert_eq!(status(&fixture, &base, &good).await, 200, "{base}");
        assert_eq!(status(&fixture, &base, &expired).await, 401, "{base}");
    }
}

#[tokio::test]
async fn an_access_token_of_any_ingress_is_good_at_every_other() {
    let fixture = Fixture::start().await;
    fixture.register("anna@example.org").await;
    let [ahead, behind] = wrong_ones(&fixture).await;
    let all = [fixture.base.clone(), ahead, behind];
    for issuing in &all {
        let login = json!({"email": "anna@example.org", "password": PASSWORD});
        let url = format!("{issuing}/v1/auth/login");
        let (code, tokens) = answer(
            fixture
                .request(Method::POST, &url)
                .json(&login)
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(code, 200, "{tokens}");
        for base in &all {
            let token = tokens["access_token"].as_str().unwrap();
            assert_eq!(
                status(&fixture, base, token).await,
                200,
                "{issuing} at {base}"
            );
        }
    }
}

#[tokio::test]
async fn a_limit_is_kept_by_ingresses_together_whatever_their_clocks_say() {
    let fixture = Fixture::start().await;
    let wish = json!({"name": "limited", "scopes": ["*"], "limits": {"per_minute": 3}});
    let (_, key) = fixture
        .ask(&fixture.key, "POST", "/v1/api-keys", wish)
        .await;
    let key = key["key"].as_str().unwrap();
    let [ahead, behind] = wrong_ones(&fixture).await;
    for base in [&behind, &fixture.base, &behind] {
        assert_eq!(status(&fixture, base, key).await, 200, "{base}");
    }
    for base in [&ahead, &behind, &fixture.base] {
        let request = fixture.request(Method::GET, &format!("{base}/v1/runs"));
        let refused = request.bearer_auth(key).send().await.unwrap();
        assert_eq!(refused.status(), 429, "{base}");
        let reset: u32 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=60).contains(&reset), "{base}: {reset}");
    }
}

#[tokio::test]
async fn a_stream_is_followed_and_a_revoked_key_refused_where_the_clock_is_wrong() {
    let fixture = Fixture::start().await;
    let wrong = wrong_ones(&fixture).await;
    let (_, key) = fixture
        .ask(
            &fixture.key,
            "POST",
            "/v1/api-keys",
            json!({"name": "short"}),
        )
        .await;
    let secret = key["key"].as_str().unwrap();
    let run = json!({"model": "m", "input": "x"});
    let (_, run) = fixture.ask(secret, "POST", "/v1/runs", run).await;
    let path = format!("/v1/runs/{}/events", run["id"].as_str().unwrap());
    let mut streams = Vec::new();
    for base in &wrong {
        for key in [secret, &fixture.key] {
            let request = fixture.request(Method::GET, &format!("{base}{path}"));
            let response = request.bearer_auth(key).send().await.unwrap();
            assert_eq!(response.status(), 200);
            streams.push(Sse::of(response));
        }
    }
    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    fixture
        .ask(&fixture.key, "DELETE", &path, Value::Null)
        .await;
    let mut worker = fixture.take_job().await;
    for (revoked, stream) in [true, false, true, false].into_iter().zip(&mut streams) {
        if revoked {
            let last = stream.rest().await.pop().unwrap();
            assert!(last.data.contains("credential_ended"), "{}", last.data);
        }
    }
    worker.say("heard").await;
    worker.complete().await;
    for (revoked, stream) in [true, false, true, false].into_iter().zip(&mut streams) {
        if !revoked {
            let last = stream.rest().await.pop().unwrap();
            assert_eq!(last.event.as_deref(), Some("run.completed"));
        }
    }
    for base in &wrong {
        assert_eq!(status(&fixture, base, secret).await, 401, "{base}");
    }
}
