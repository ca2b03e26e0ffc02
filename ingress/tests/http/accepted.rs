//! Every committed run is answered as accepted, and no refusal leaves a run, whatever breaks.

use std::net::Ipv4Addr;
use std::time::Duration;

use baton_harness::chaos::proxy::{Mode, Proxy};
use baton_service::Shutdown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer, run_of, soon};

/// The size of the fixture's connection pool to the ledger.
const PLACES: usize = 16;

fn run(text: &str) -> Value {
    json!({"model": "m", "input": text, "metadata": {"text": text}})
}

/// Returns the ids of all runs, the newest first.
async fn runs(f: &Fixture) -> Vec<String> {
    let (status, page) = f
        .ask(&f.key, "GET", "/v1/runs?limit=100", Value::Null)
        .await;
    assert_eq!(status, 200, "{page}");
    let data = page["data"].as_array().unwrap().iter();
    data.map(|run| run["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn send(request: RequestBuilder) -> Response {
    soon(request.send()).await.unwrap()
}

#[tokio::test]
async fn a_run_is_answered_from_the_commit_that_accepts_it_when_no_other_place_is_free() {
    let f = Fixture::start().await;
    let hold_all = async || {
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(f.store.tenant(f.tenant).await.unwrap());
        }
        held
    };
    // All connections are open afterwards, so that holding them again takes less time than the
    // ingress caches the key and the agents for.
    drop(hold_all().await);
    send(f.post("/v1/runs", &run("first"))).await;
    let held = hold_all().await;
    let accepted = send(f.post("/v1/runs", &run("second"))).await;
    assert_eq!(accepted.status(), 202);
    let id = run_of(&accepted);
    let location = format!("/v1/runs/{id}");
    assert_eq!(accepted.headers()["location"], *location);
    let (_, told) = answer(accepted).await;
    drop(held);

    let (_, read) = f.ask(&f.key, "GET", &location, Value::Null).await;
    assert_eq!(told, read, "not a field differs from what the ledger holds");
    assert_eq!(told["metadata"], json!({"text": "second"}));
}

#[tokio::test]
async fn without_a_bus_no_door_commits_a_run_that_it_refuses() {
    let f = Fixture::start().await;
    send(f.post("/v1/runs", &run("first"))).await;
    f.bus.close().await;
    let events = || {
        f.post("/v1/runs", &run("x"))
            .header("accept", "text/event-stream")
    };
    let requests = [
        events(),
        events().header("idempotency-key", "k"),
        f.post("/v1/runs?wait=1s", &run("x")),
        f.post("/v1/runs", &run("x")),
        f.chat(true),
        f.chat(false),
    ];
    for request in requests {
        let refused = send(request).await;
        assert_eq!(refused.status(), 503);
        assert!(!refused.headers().contains_key("x-run-id"));
    }
    assert_eq!(runs(&f).await.len(), 1);
}

/// Guards every answer against a broker that is connected but silent.
#[tokio::test]
async fn a_run_whose_events_cannot_be_had_is_answered_as_accepted() {
    let f = Fixture::start().await;
    let events = || {
        f.post("/v1/runs", &run("x"))
            .header("accept", "text/event-stream")
            .header("idempotency-key", "native")
    };
    let chat = || f.chat(true).header("idempotency-key", "chat");
    let first = run_of(&send(events()).await);
    let chatting = send(chat()).await;
    let second = run_of(&chatting);
    let broker = Pid::from_raw(i32::try_from(f.nats.pid()).unwrap());
    kill(broker, Signal::SIGSTOP).unwrap();

    let again = send(events()).await;
    assert_eq!(again.status(), 202);
    assert_eq!(run_of(&again), first);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(answer(again).await.1["status"], "queued");

    // A chat's answer consists of its events, so the error names the run and asks for a retry.
    let again = send(chat()).await;
    assert_eq!(again.status(), 503);
    assert_eq!(run_of(&again), second);
    assert!(again.headers().contains_key("retry-after"));
    assert!(!again.headers().contains_key("x-should-retry"));
    let (_, body) = answer(again).await;
    assert_eq!(body["error"]["code"], "answer_unavailable");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("was accepted and goes on"), "{message}");
    assert!(message.contains(&second.to_string()), "{message}");

    kill(broker, Signal::SIGCONT).unwrap();
    drop(chatting);
    assert_eq!(runs(&f).await.len(), 2);
}

/// Starts an ingress that reaches the ledger through a proxy.
async fn behind_a_proxy(f: &Fixture) -> (Proxy, String, Shutdown) {
    let server = (Ipv4Addr::LOCALHOST, f.database.port()).into();
    let proxy = Proxy::start(server).await.unwrap();
    let store = f.database.store_behind(proxy.address().port()).await;
    let (base, shutdown) = f.another_ingress_on(&store).await;
    (proxy, base, shutdown)
}

fn plain(f: &Fixture, base: &str) -> RequestBuilder {
    f.post_to(base, "/v1/runs", &run("x"))
}

/// Sends a request, lets its commit happen and loses the answer; afterwards the proxy is in `then`.
async fn answer_lost(
    f: &Fixture,
    (proxy, base): (&Proxy, &str),
    request: RequestBuilder,
    then: Mode,
) -> Response {
    // Prepares both statements now, so that the one that waits for the lock only has to commit.
    for request in [
        plain(f, base),
        plain(f, base).header("idempotency-key", "warm"),
    ] {
        assert_eq!(send(request).await.status(), 202);
    }
    let before = runs(f).await.len();
    let held = f.database.hold_runs().await;
    let breaking = async {
        f.database.until_blocked("runs.accept").await;
        proxy.set(Mode::DropToClient);
        drop(held);
        while runs(f).await.len() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The connections with lost answers end.
        proxy.set(then);
    };
    let (answered, ()) = tokio::join!(send(request), breaking);
    assert_eq!(runs(f).await.len(), before + 1);
    answered
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_and_answered_as_accepted() {
    let f = Fixture::start().await;
    let (proxy, base, _shutdown) = behind_a_proxy(&f).await;
    for request in [
        plain(&f, &base),
        plain(&f, &base).header("idempotency-key", "k"),
    ] {
        let accepted = answer_lost(&f, (&proxy, &base), request, Mode::Pass).await;
        assert_eq!(accepted.status(), 202);
        assert!(!accepted.headers().contains_key("idempotent-replayed"));
        let id = run_of(&accepted).to_string();
        assert_eq!(runs(&f).await[0], id);
        let (_, told) = answer(accepted).await;
        let (_, read) = f
            .ask(&f.key, "GET", &format!("/v1/runs/{id}"), Value::Null)
            .await;
        assert_eq!(told, read);
    }
}

#[tokio::test]
async fn a_commit_that_nobody_can_be_asked_about_is_no_refusal_and_names_its_run() {
    let f = Fixture::start().await;
    let (proxy, base, _shutdown) = behind_a_proxy(&f).await;
    let request = plain(&f, &base);
    let unknown = answer_lost(&f, (&proxy, &base), request, Mode::Cut).await;
    assert_eq!(unknown.status(), 503);
    assert_eq!(unknown.headers()["x-should-retry"], "false");
    assert_eq!(run_of(&unknown).to_string(), runs(&f).await[0]);
    let (_, problem) = answer(unknown).await;
    assert_eq!(problem["code"], "acceptance_unknown");

    // With a key, the same request finds the same run.
    proxy.set(Mode::Pass);
    let keyed = || plain(&f, &base).header("idempotency-key", "k");
    let unknown = answer_lost(&f, (&proxy, &base), keyed(), Mode::Cut).await;
    assert!(!unknown.headers().contains_key("x-should-retry"));
    let id = run_of(&unknown);
    proxy.set(Mode::Pass);
    let again = send(keyed()).await;
    assert_eq!((again.status().as_u16(), run_of(&again)), (202, id));
}

#[tokio::test]
async fn what_never_reached_the_ledger_is_refused_and_has_no_row() {
    let f = Fixture::start().await;
    let (proxy, base, _shutdown) = behind_a_proxy(&f).await;
    let before = runs(&f).await;
    // The key is cached, and no connection that accepts runs is open yet.
    let read = f.get_from(&base, "/v1/runs");
    assert_eq!(send(read).await.status(), 200);
    proxy.set(Mode::Cut);
    let refused = send(plain(&f, &base)).await;
    assert_eq!(refused.status(), 503);
    assert!(!refused.headers().contains_key("x-run-id"));
    let (_, problem) = answer(refused).await;
    assert_eq!(problem["code"], "ledger_unavailable");
    assert_eq!(runs(&f).await, before);
}
