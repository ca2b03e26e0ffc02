//! Tickets: the event stream of one run, for clients that cannot send a header.

use std::time::Duration;

use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::RunId;
use baton_store::TicketMaker;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, answer, soon};

async fn start_run(f: &Fixture, credential: &str) -> String {
    let run = json!({"model": "m", "input": "x"});
    let (status, run) = f.ask(credential, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

async fn make_ticket(f: &Fixture, credential: &str, run: &str) -> String {
    let path = format!("/v1/runs/{run}/events/ticket");
    let (status, made) = f.ask(credential, "POST", &path, Value::Null).await;
    assert_eq!(status, 201, "{made}");
    made["ticket"].as_str().unwrap().to_owned()
}

async fn refusal(f: &Fixture, run: &str, ticket: &str) -> (u16, Value) {
    let path = format!("/v1/runs/{run}/events?ticket={ticket}");
    answer(f.plain("GET", &path, &Value::Null).send().await.unwrap()).await
}

async fn open(f: &Fixture, base: &str, run: &str, ticket: &str) -> Sse {
    let url = format!("{base}/v1/runs/{run}/events?ticket={ticket}");
    let response = f.request(reqwest::Method::GET, &url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    Sse::of(response)
}

#[tokio::test]
async fn a_ticket_opens_the_stream_of_its_run_at_any_ingress_and_nothing_else() {
    let f = Fixture::start().await;
    let (there, _) = f.another_ingress().await;
    let (run, other) = (start_run(&f, &f.key).await, start_run(&f, &f.key).await);
    let ticket = make_ticket(&f, &f.key, &run).await;
    for base in [&f.base, &there] {
        open(&f, base, &run, &ticket).await.comment().await;
    }

    assert_eq!(refusal(&f, &other, &ticket).await.0, 401);
    assert_eq!(refusal(&f, "house", &ticket).await.0, 404);
    for path in [
        format!("/v1/runs/{run}?ticket={ticket}"),
        format!("/v1/runs/{run}/approvals?ticket={ticket}"),
    ] {
        let asked = f.plain("GET", &path, &Value::Null).send().await.unwrap();
        assert_eq!(asked.status(), 401, "{path}");
    }
    let bearer = f.ask(&ticket, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(bearer.0, 401);

    let path = format!("/v1/runs/{run}/events?ticket={ticket}");
    let (status, both) = f.ask(&f.key, "GET", &path, Value::Null).await;
    assert_eq!((status, &both["param"]), (400, &"ticket".into()));
    let missing = "/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057/events/ticket";
    assert_eq!(f.ask(&f.key, "POST", missing, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_ticket_that_is_over_or_was_never_made_is_refused() {
    let f = Fixture::start().await;
    let run = start_run(&f, &f.key).await;
    let token = OpaqueToken::from_random(TokenKind::StreamTicket, [9; 32]);
    assert_eq!(refusal(&f, &run, token.expose()).await.0, 401, "never made");
    let key = f.new_key(json!({"name": "short"})).await;
    let maker = TicketMaker::ApiKey(key["id"].as_str().unwrap().parse().unwrap());
    let id: RunId = run.parse().unwrap();
    let mut tx = f.store.tenant(f.tenant).await.unwrap();
    let made = tx.create_stream_ticket(token.hash(), id, &maker, Duration::ZERO);
    assert!(made.await.unwrap().is_some());
    tx.commit().await.unwrap();
    let (status, over) = refusal(&f, &run, token.expose()).await;
    assert_eq!((status, &over["code"]), (401, &"invalid_token".into()));
    for bad in ["", "x", "bt_test_x", "%00"] {
        assert_eq!(refusal(&f, &run, bad).await.0, 401, "{bad:?}");
    }
    // The next ticket that the tenant creates removes it.
    make_ticket(&f, &f.key, &run).await;
    let found = f.store.system().find_stream_ticket(token.hash()).await;
    assert_eq!(found.unwrap(), None);
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_made_its_ticket() {
    let f = Fixture::start().await;
    let key = f.new_key(json!({"name": "short"})).await;
    let secret = key["key"].as_str().unwrap();
    let tokens = f.register("anna@example.org").await;
    let access = tokens["access_token"].as_str().unwrap();

    let run = start_run(&f, secret).await;
    let ticket = make_ticket(&f, secret, &run).await;
    let mut of_key = open(&f, &f.base, &run, &ticket).await;
    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    assert_eq!(f.ask(&f.key, "DELETE", &path, Value::Null).await.0, 204);
    let last = soon(of_key.rest()).await.pop().unwrap();
    assert!(last.data.contains("credential_ended"), "{}", last.data);
    assert_eq!(refusal(&f, &run, &ticket).await.0, 401, "not opened again");

    let run = start_run(&f, access).await;
    let ticket = make_ticket(&f, access, &run).await;
    let mut of_session = open(&f, &f.base, &run, &ticket).await;
    of_session.comment().await;
    let (_, sessions) = f.ask(access, "GET", "/v1/auth/sessions", Value::Null).await;
    let path = format!(
        "/v1/auth/sessions/{}",
        sessions["data"][0]["id"].as_str().unwrap()
    );
    assert_eq!(f.ask(access, "DELETE", &path, Value::Null).await.0, 204);
    let last = soon(of_session.rest()).await.pop().unwrap();
    assert!(last.data.contains("credential_ended"), "{}", last.data);
    assert_eq!(refusal(&f, &run, &ticket).await.0, 401, "not opened again");
}

#[tokio::test]
async fn a_credential_without_the_scope_makes_no_ticket() {
    let f = Fixture::start().await;
    let run = start_run(&f, &f.key).await;
    let writer = f.make_key(8, &["runs:write"], None).await;
    let path = format!("/v1/runs/{run}/events/ticket");
    assert_eq!(f.ask(&writer, "POST", &path, Value::Null).await.0, 403);
}
