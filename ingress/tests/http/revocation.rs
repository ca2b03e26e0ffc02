//! A revoked credential ends everywhere, on open streams, too.

use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, answer, soon};

/// Reads a stream to its end, and returns the last event's data.
async fn end_of(mut stream: Sse) -> Value {
    let events = stream.rest().await;
    serde_json::from_str(&events.last().expect("a last word").data).unwrap()
}

#[tokio::test]
async fn the_streams_of_a_revoked_key_are_closed_at_every_ingress_and_others_go_on() {
    let fixture = Fixture::start().await;
    let (base, _) = fixture.another_ingress().await;
    let key = fixture.new_key(json!({"name": "short"})).await;
    let secret = key["key"].as_str().unwrap();
    let run = json!({"model": "m", "input": "x"});
    let (_, run) = fixture.ask(secret, "POST", "/v1/runs", run).await;
    let path = format!("/v1/runs/{}/events", run["id"].as_str().unwrap());
    let open = async |base: &str, key: &str| {
        let request = fixture.request(reqwest::Method::GET, &format!("{base}{path}"));
        let response = request.bearer_auth(key).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Sse::of(response)
    };
    let here = open(&fixture.base, secret).await;
    let there = open(&base, secret).await;
    let mut other = open(&base, &fixture.key).await;

    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    let (status, _) = fixture
        .ask(&fixture.key, "DELETE", &path, Value::Null)
        .await;
    assert_eq!(status, 204);
    for stream in [here, there] {
        assert_eq!(soon(end_of(stream)).await["code"], "credential_ended");
    }
    let request = fixture.request(reqwest::Method::GET, &format!("{base}/v1/runs"));
    let refused = request.bearer_auth(secret).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    other.comment().await;
}

#[tokio::test]
async fn the_streams_of_a_session_end_with_it_and_its_chat_counts_as_left() {
    let fixture = Fixture::start().await;
    let tokens = fixture.register("anna@example.org").await;
    let access = tokens["access_token"].as_str().unwrap();
    let chat = json!({
        "model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}],
    });
    let request = fixture.plain("POST", "/v1/chat/completions", &chat);
    let response = request.bearer_auth(access).send().await.unwrap();
    assert_eq!(
        response.status(),
        200,
        "its head comes with the first heartbeat"
    );
    let run = crate::fixture::run_of(&response);
    let stream = Sse::of(response);

    let (_, sessions) = fixture
        .ask(access, "GET", "/v1/auth/sessions", Value::Null)
        .await;
    let id = sessions["data"][0]["id"].as_str().unwrap();
    assert_eq!(sessions["data"][0]["current"], true);
    let path = format!("/v1/auth/sessions/{id}");
    let (status, _) = fixture.ask(access, "DELETE", &path, Value::Null).await;
    assert_eq!(status, 204);
    assert_eq!(
        soon(end_of(stream)).await["error"]["code"],
        "credential_ended"
    );
    let path = format!("/v1/runs/{run}");
    let again = json!({"email": "anna@example.org", "password": crate::fixture::PASSWORD});
    let login = fixture.plain("POST", "/v1/auth/login", &again);
    let (_, tokens) = answer(login.send().await.unwrap()).await;
    let access = tokens["access_token"].as_str().unwrap();
    soon(async {
        loop {
            let (_, run) = fixture.ask(access, "GET", &path, Value::Null).await;
            if run["status"] == "cancelled" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_revocation_that_nobody_announced_is_found_by_looking() {
    let fixture = Fixture::start().await;
    let key = fixture.new_key(json!({"name": "short"})).await;
    let secret = key["key"].as_str().unwrap();
    let run = json!({"model": "m", "input": "x"});
    let (_, run) = fixture.ask(secret, "POST", "/v1/runs", run).await;
    let path = format!("/v1/runs/{}/events", run["id"].as_str().unwrap());
    let request = fixture
        .plain("GET", &path, &Value::Null)
        .bearer_auth(secret);
    let stream = Sse::of(request.send().await.unwrap());
    // Revoked in the ledger only, as the command line does it.
    let mut tx = fixture.store.tenant(fixture.tenant).await.unwrap();
    tx.revoke_api_key(key["id"].as_str().unwrap().parse().unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(soon(end_of(stream)).await["code"], "credential_ended");
}

#[tokio::test]
async fn somebody_who_is_no_member_any_more_loses_their_streams() {
    let fixture = Fixture::start().await;
    let invite = fixture.invite("member").await;
    let body = json!({
        "email": "bob@example.org", "password": crate::fixture::PASSWORD, "token": invite["token"],
    });
    let register = fixture.plain("POST", "/v1/auth/register", &body);
    let (_, tokens) = answer(register.send().await.unwrap()).await;
    let access = tokens["access_token"].as_str().unwrap();
    let run = json!({"model": "m", "input": "x"});
    let (status, run) = fixture.ask(access, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "{run}");
    let path = format!("/v1/runs/{}/events", run["id"].as_str().unwrap());
    let request = fixture
        .plain("GET", &path, &Value::Null)
        .bearer_auth(access);
    let stream = Sse::of(request.send().await.unwrap());
    let (_, me) = fixture.ask(access, "GET", "/v1/auth/me", Value::Null).await;
    let path = format!("/v1/members/{}", me["id"].as_str().unwrap());
    let (status, _) = fixture
        .ask(&fixture.key, "DELETE", &path, Value::Null)
        .await;
    assert_eq!(status, 200);
    assert_eq!(soon(end_of(stream)).await["code"], "credential_ended");
}
