//! People register, sign in, stay signed in, and sign out.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, answer};

async fn post(fixture: &Fixture, path: &str, body: Value) -> (u16, Value) {
    answer(fixture.plain("POST", path, &body).send().await.unwrap()).await
}

async fn login(fixture: &Fixture, email: &str, password: &str) -> (u16, Value) {
    let body = json!({"email": email, "password": password});
    post(fixture, "/v1/auth/login", body).await
}

async fn refresh(fixture: &Fixture, token: &Value) -> (u16, Value) {
    post(fixture, "/v1/auth/refresh", json!({"refresh_token": token})).await
}

fn access(tokens: &Value) -> &str {
    tokens["access_token"].as_str().unwrap()
}

#[tokio::test]
async fn who_registers_is_signed_in_owns_a_tenant_and_runs_agents_there() {
    let fixture = Fixture::start().await;
    let tokens = fixture.register("Anna@Example.org").await;
    assert_eq!(
        tokens.as_object().unwrap().keys().collect::<BTreeSet<_>>(),
        BTreeSet::from([
            &"access_token".to_owned(),
            &"expires_in".to_owned(),
            &"refresh_token".to_owned(),
            &"token_type".to_owned()
        ])
    );
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"]),
        (&json!("Bearer"), &json!(600))
    );
    let (status, me) = fixture
        .ask(access(&tokens), "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!(status, 200, "{me}");
    assert_eq!(me["email"], "anna@example.org");
    assert_eq!(
        (&me["role"], &me["scopes"]),
        (&json!("owner"), &json!(["*"]))
    );
    assert_eq!(me["memberships"][0]["tenant"], me["tenant"]);
    assert_ne!(me["tenant"], json!(fixture.tenant));

    let run = json!({"model": "m", "input": "hello"});
    let (status, run) = fixture.ask(access(&tokens), "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "{run}");
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    let (status, _) = fixture
        .ask(access(&tokens), "GET", &path, Value::Null)
        .await;
    assert_eq!(status, 200);
    let (status, _) = fixture.ask(&fixture.key, "GET", &path, Value::Null).await;
    assert_eq!(status, 404, "another tenant's run is nowhere");
    // The other carrier.
    let request = fixture.plain("GET", &path, &Value::Null);
    let request = request.header("x-api-key", access(&tokens));
    assert_eq!(request.send().await.unwrap().status(), 200);

    let again = json!({"email": "anna@example.org", "password": PASSWORD});
    let (status, error) = post(&fixture, "/v1/auth/register", again).await;
    assert_eq!((status, &error["code"]), (409, &json!("email_taken")));
    let weak = json!({"email": "bob@example.org", "password": "short"});
    let (status, error) = post(&fixture, "/v1/auth/register", weak).await;
    assert_eq!((status, &error["param"]), (400, &json!("password")));
}

#[tokio::test]
async fn whoever_is_refused_learns_nothing_and_no_answer_quotes_a_password() {
    let fixture = Fixture::start().await;
    fixture.register("anna@example.org").await;
    let (status, tokens) = login(&fixture, "ANNA@example.org", PASSWORD).await;
    assert_eq!(status, 200, "{tokens}");

    let wrong = login(&fixture, "anna@example.org", "not her password").await;
    let unknown = login(&fixture, "nobody@example.org", PASSWORD).await;
    let huge = login(&fixture, "anna@example.org", &"x".repeat(5_000)).await;
    let system = fixture.store.system();
    let user = system.user_by_email("anna@example.org");
    let user = user.await.unwrap().unwrap().id;
    fixture
        .store
        .system()
        .set_disabled(user, true)
        .await
        .unwrap();
    let disabled = login(&fixture, "anna@example.org", PASSWORD).await;
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong.1["code"], "invalid_credentials");
    for other in [unknown, huge, disabled] {
        assert_eq!(other, wrong);
    }

    for body in [
        r#"{"email":"a@b.c","password":"hunter2hunter2","pasword":1}"#,
        r#"{"email":"a@b.c","password":{"x":"hunter2hunter2"}}"#,
        r#"{"email":"a@b.c","password":"hunter2hunter2""#,
    ] {
        let request = fixture.plain("POST", "/v1/auth/login", &Value::Null);
        let (status, error) = answer(request.body(body).send().await.unwrap()).await;
        assert_eq!((status, &error["code"]), (400, &json!("invalid_json")));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn tries_are_counted_by_the_client_s_network_not_by_the_proxy_or_the_last_bits() {
    let fixture = Fixture::start_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let body = json!({"email": "anna@example.org", "password": "not the password"});
    let from = async |address: &str| {
        let request = fixture.plain("POST", "/v1/auth/login", &body);
        let request = request.header("x-forwarded-for", address);
        request.send().await.unwrap().status().as_u16()
    };
    for n in 0..10 {
        assert_eq!(from(&format!("2001:db8::{n}")).await, 401);
    }
    assert_eq!(from("2001:db8::dead:beef").await, 429);
    assert_eq!(from("2001:db8:0:1::1").await, 401);
    assert_eq!(from("198.51.100.7").await, 401);
}

#[tokio::test]
async fn passwords_are_tried_a_few_times_and_no_more_whether_there_is_such_a_user_or_not() {
    let fixture = Fixture::start().await;
    fixture.register("anna@example.org").await;
    for email in ["anna@example.org", "nobody@example.org"] {
        let tries = join_all((0..12).map(|_| login(&fixture, email, "not the password"))).await;
        let refused = tries.iter().filter(|(status, _)| *status == 401).count();
        let throttled: Vec<_> = tries.iter().filter(|(status, _)| *status == 429).collect();
        assert_eq!((refused, throttled.len()), (10, 2), "{email}");
        assert_eq!(throttled[0].1["code"], "too_many_tries");
    }
    // Even the right password has to wait.
    let (status, _) = login(&fixture, "anna@example.org", PASSWORD).await;
    assert_eq!(status, 429);
    let (base, _) = fixture.another_ingress().await;
    let body = json!({"email": "anna@example.org", "password": PASSWORD}).to_string();
    let elsewhere = fixture.request(reqwest::Method::POST, &format!("{base}/v1/auth/login"));
    let elsewhere = elsewhere.body(body).send().await.unwrap();
    assert_eq!(elsewhere.status(), 429);
    assert!(elsewhere.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn twenty_refreshes_at_once_get_one_successor_and_a_replay_ends_the_session() {
    let fixture = Fixture::start().await;
    let first = fixture.register("anna@example.org").await;
    let all = join_all((0..20).map(|_| refresh(&fixture, &first["refresh_token"]))).await;
    let successors: BTreeSet<_> = all
        .iter()
        .map(|(status, tokens)| {
            assert_eq!(*status, 200, "{tokens}");
            tokens["refresh_token"].as_str().unwrap()
        })
        .collect();
    assert_eq!(successors.len(), 1);
    let second = &all[0].1;
    let (status, third) = refresh(&fixture, &second["refresh_token"]).await;
    assert_eq!(status, 200);
    let me = async |tokens: &Value| {
        let (status, _) = fixture
            .ask(access(tokens), "GET", "/v1/auth/me", Value::Null)
            .await;
        status
    };
    assert_eq!(me(&third).await, 200);
    // A token of two generations ago: somebody has a copy.
    let (status, error) = refresh(&fixture, &first["refresh_token"]).await;
    assert_eq!((status, &error["code"]), (401, &json!("invalid_token")));
    let (status, _) = refresh(&fixture, &third["refresh_token"]).await;
    assert_eq!(status, 401);
    assert_eq!(me(&third).await, 401, "its access tokens went with it");
    // Another session of hers is unaffected.
    let (status, _) = login(&fixture, "anna@example.org", PASSWORD).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn one_kind_of_token_is_never_taken_for_another_and_logging_out_ends_them_all() {
    let fixture = Fixture::start().await;
    let tokens = fixture.register("anna@example.org").await;
    let (access, refresh_token) = (access(&tokens), tokens["refresh_token"].as_str().unwrap());
    let (status, _) = fixture
        .ask(refresh_token, "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!(status, 401);
    let (status, _) = refresh(&fixture, &json!(access)).await;
    assert_eq!(status, 401);
    let (status, _) = refresh(&fixture, &json!(fixture.key)).await;
    assert_eq!(status, 401);
    let mut changed = access.to_owned();
    changed.pop();
    for bad in [changed.as_str(), "eyJhbGciOiJub25lIn0.e30.", "eyJ.eyJ.x"] {
        let (status, error) = fixture.ask(bad, "GET", "/v1/runs", Value::Null).await;
        assert_eq!((status, &error["code"]), (401, &json!("invalid_token")));
    }

    let (status, _) = fixture.ask(access, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(status, 200);
    let out = json!({"refresh_token": refresh_token});
    let (status, _) = post(&fixture, "/v1/auth/logout", out.clone()).await;
    assert_eq!(status, 204);
    let (status, _) = fixture.ask(access, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(status, 401);
    let (status, _) = refresh(&fixture, &json!(refresh_token)).await;
    assert_eq!(status, 401);
    let (status, _) = post(&fixture, "/v1/auth/logout", out).await;
    assert_eq!(status, 204, "signing out twice is no mistake");
}

#[tokio::test]
async fn without_a_key_people_cannot_sign_in_and_machines_can_do_all_they_could() {
    let fixture = Fixture::start_with(|config| config.auth.jwt_secret = None).await;
    let body = json!({"email": "anna@example.org", "password": PASSWORD});
    for path in ["/v1/auth/register", "/v1/auth/login"] {
        let (status, error) = post(&fixture, path, body.clone()).await;
        assert_eq!((status, &error["code"]), (403, &json!("sign_in_off")));
    }
    let (status, me) = fixture
        .ask(&fixture.key, "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!((status, &me["kind"]), (200, &json!("api_key")));
}
