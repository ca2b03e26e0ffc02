//! The client against servers of both eras, and of bad manners.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_mcp::{
    CallAnswer, CallOutcome, Connection, Endpoint, Health, McpError, Question, Server, ToolCall,
};
use baton_outbound::{Guard, Policy, Refused};
use serde_json::{Map, Value, json};
use url::Url;

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(300);

fn endpoint(server: &McpServer, open_timeout: Duration) -> Endpoint {
    Endpoint::new(Url::parse(&server.url()).unwrap(), open_timeout, LONG)
}

fn guard() -> Guard {
    Guard::new(Policy::default())
}

async fn open(server: &McpServer) -> Result<Connection, McpError> {
    Connection::open(Arc::new(endpoint(server, LONG)), &guard()).await
}

fn done(answer: Result<CallAnswer, McpError>) -> Result<CallOutcome, McpError> {
    answer.map(|answer| answer.done().unwrap())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn both_eras_are_spoken() {
    for (era, protocol) in [(Era::Modern, "2026-07-28"), (Era::Legacy, "2025-11-25")] {
        let server = McpServer::start(era, Manner::Honest).await.unwrap();
        let connection = open(&server).await.unwrap();
        let info = connection.info();
        assert_eq!(info.protocol, protocol);
        assert_eq!(info.name.as_deref(), Some("for tests"));

        let listing = connection.list_tools().await.unwrap();
        let names: Vec<_> = listing.tools.iter().map(|tool| &*tool.name).collect();
        assert_eq!(names, ["echo", "wait", "fail"], "over three pages");
        assert_eq!(listing.ttl, (era == Era::Modern).then_some(LONG));
        let echo = listing.get("echo").unwrap();
        assert_eq!((echo.idempotent, echo.read_only), (true, false));
        assert_eq!(echo.parameters["properties"]["text"]["type"], "string");

        let meta = object(json!({"idempotencyKey": "k1"}));
        let arguments = object(json!({"text": "hello"}));
        let call = ToolCall {
            arguments,
            meta,
            ..ToolCall::of("echo")
        };
        let outcome = connection.call(call).await;
        let text = r#"{"text":"hello"}"#.to_owned();
        assert_eq!(done(outcome), Ok(CallOutcome { ok: true, text }));
        let call = &server.seen().calls[0];
        assert_eq!(call["_meta"]["idempotencyKey"], "k1");

        let failed = connection.call(ToolCall::of("fail")).await;
        let text = "it went wrong".to_owned();
        assert_eq!(done(failed), Ok(CallOutcome { ok: false, text }));
        let unknown = connection.call(ToolCall::of("none")).await;
        assert!(
            matches!(unknown, Err(McpError::Answered { code: -32602, .. })),
            "{unknown:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_answers_any_method_is_of_the_earlier_era() {
    let manner = Manner::AnswersAnything;
    let server = McpServer::start(Era::Legacy, manner).await.unwrap();
    let connection = open(&server).await.unwrap();
    assert_eq!(connection.info().protocol, "2025-11-25");
    assert_eq!(connection.list_tools().await.unwrap().tools.len(), 3);
}

/// A server without the handshake cancels a call when its response is closed.
#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_server() {
    for era in [Era::Modern, Era::Legacy] {
        let server = McpServer::start(era, Manner::Honest).await.unwrap();
        let connection = open(&server).await.unwrap();
        let call = connection.call(ToolCall::of("wait"));
        let called = server.wait_until(|seen| seen.calls.len() == 1);
        tokio::select! {
            outcome = call => panic!("{outcome:?}"),
            _ = called => {}
        }
        match era {
            Era::Modern => server.wait_until(|seen| seen.abandoned == 1).await,
            Era::Legacy => server.wait_until(|seen| seen.cancelled == 1).await,
        };
        server.open_gate();
        let outcome = connection.call(ToolCall::of("wait")).await;
        assert_eq!(
            done(outcome).unwrap().text,
            "waited",
            "the connection still works"
        );
    }
}

#[tokio::test]
async fn a_list_is_kept_as_long_as_the_server_says() {
    let server = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
    let client = Server::new(endpoint(&server, LONG), guard(), |_| {});
    for _ in 0..3 {
        assert_eq!(client.tools().await.unwrap().tools.len(), 3);
    }
    let lists = |methods: &[String]| methods.iter().filter(|it| *it == "tools/list").count();
    assert_eq!(lists(&server.seen().methods), 3, "three pages, once");
    tokio::time::pause();
    tokio::time::advance(LONG + SHORT).await;
    tokio::time::resume();
    client.tools().await.unwrap();
    assert_eq!(lists(&server.seen().methods), 6);
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_is_noticed_once_each() {
    let server = McpServer::start(Era::Legacy, Manner::Honest).await.unwrap();
    let (address, endpoint) = (server.address(), endpoint(&server, LONG));
    drop(server);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let client = Server::new(endpoint, guard(), move |health: &Health| {
        hears.lock().unwrap().push(health.clone());
    });
    for _ in 0..2 {
        assert_eq!(client.tools().await, Err(McpError::Unreachable));
        let call = client.call(ToolCall::of("echo")).await;
        assert_eq!(call, Err(McpError::Unreachable));
    }
    assert_eq!(
        *heard.lock().unwrap(),
        [Health::Down(McpError::Unreachable)]
    );

    let server = McpServer::start_at(address, Era::Modern, Manner::Honest)
        .await
        .unwrap();
    assert!(client.tools().await.is_err(), "it rests for a while");
    assert_eq!(server.seen().methods, [""; 0]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(client.tools().await.unwrap().tools.len(), 3);
    assert_eq!(heard.lock().unwrap().last(), Some(&Health::Up));
}

#[tokio::test]
async fn what_a_hostile_server_sends_has_an_end() {
    for (manner, kind) in [
        (Manner::ManyTools(10_000), "too_much"),
        (Manner::EndlessPages, "too_much"),
        (Manner::EndlessBody, "too_much"),
        (Manner::WrongIds, "timed_out"),
        (Manner::SlowDrip, "timed_out"),
    ] {
        let limit = if kind == "timed_out" { SHORT } else { LONG };
        let server = McpServer::start(Era::Modern, manner.clone()).await.unwrap();
        let endpoint = Arc::new(endpoint(&server, limit));
        let guard = guard();
        let listed = async { Connection::open(endpoint, &guard).await?.list_tools().await };
        let error = listed.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{manner:?}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inner = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
    for era in [Era::Modern, Era::Legacy] {
        let manner = Manner::Redirects(inner.url());
        let server = McpServer::start(era, manner).await.unwrap();
        let error = open(&server).await.err().unwrap();
        assert_eq!(error.kind(), "protocol", "{error}");
    }
    assert_eq!(inner.seen().methods, [""; 0]);
}

#[tokio::test]
async fn a_name_of_a_metadata_service_is_refused() {
    let url = Url::parse("http://metadata.test/mcp").unwrap();
    let guard = Guard::with_lookup(Policy::default(), Arc::new(Metadata));
    let endpoint = Arc::new(Endpoint::new(url, LONG, LONG));
    let error = Connection::open(endpoint, &guard).await.err().unwrap();
    let host = "metadata.test".to_owned();
    assert_eq!(error, McpError::Refused(Refused::Address { host }));
}

/// Every name is that of a cloud's metadata service.
struct Metadata;

impl reqwest::dns::Resolve for Metadata {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let address = std::net::SocketAddr::from(([169, 254, 169, 254], 0));
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as reqwest::dns::Addrs) })
    }
}

#[tokio::test]
async fn a_credential_is_sent_and_never_comes_back() {
    let manner = Manner::Guarded("a-bearer-token".to_owned());
    let server = McpServer::start(Era::Modern, manner).await.unwrap();
    let without = open(&server).await.err().unwrap();
    assert_eq!(without, McpError::Unauthorized);
    let endpoint = endpoint(&server, LONG).with_bearer("a-bearer-token".to_owned());
    let connection = Connection::open(Arc::new(endpoint), &guard())
        .await
        .unwrap();
    assert_eq!(connection.list_tools().await.unwrap().tools.len(), 3);

    server.set_manner(Manner::TellsSecrets);
    let listing = connection.list_tools().await.unwrap();
    let leak = listing.get("leak").unwrap();
    assert_eq!(leak.description, "You sent Bearer [secret]");
    let outcome = connection.call(ToolCall::of("leak")).await;
    assert_eq!(done(outcome).unwrap().text, "You sent Bearer [secret]");
}

/// Guards that a server of the later era may ask, gets its own state back, and reads what the client can do with
/// each call. One of the earlier era is not offered that.
#[tokio::test]
async fn a_server_may_ask_a_person_and_gets_its_call_again_with_the_answer() {
    let server = McpServer::start(Era::Modern, Manner::Asks).await.unwrap();
    let connection = open(&server).await.unwrap();
    let asked = connection.call(ToolCall::of("ask")).await.unwrap();
    let CallAnswer::Input(needed) = asked else {
        panic!("{asked:?}");
    };
    let [question] = &needed.questions[..] else {
        panic!("{needed:?}");
    };
    let Question { id, message, .. } = question;
    assert_eq!((&**id, &**message), ("who", "Who pays?"));
    let schema = question.schema.as_ref().unwrap();
    assert_eq!(schema["required"], json!(["name"]));
    assert_eq!(needed.state.as_deref(), Some("1 \u{0}\"state\""));

    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    let again = ToolCall {
        state: needed.state,
        answers: vec![("who".to_owned(), answer)],
        ..ToolCall::of("ask")
    };
    let outcome = done(connection.call(again).await).unwrap();
    assert_eq!(outcome.text, r#"accept {"name":"Ada"}"#);
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    for call in server.seen().calls {
        let offered = &call["_meta"][capabilities]["elicitation"];
        assert!(
            offered["form"].is_object() && offered["url"].is_object(),
            "{call}"
        );
    }

    for (kind, why) in [("sampling", "sampling"), ("roots", "roots")] {
        let call = ToolCall {
            arguments: object(json!({ "kind": kind })),
            ..ToolCall::of("ask")
        };
        let refused = connection.call(call).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    for kind in ["large_state", "many", "large_schema"] {
        let call = ToolCall {
            arguments: object(json!({ "kind": kind })),
            ..ToolCall::of("ask")
        };
        let refused = connection.call(call).await.unwrap_err();
        assert_eq!(refused.kind(), "too_much", "{kind}: {refused}");
    }

    let legacy = McpServer::start(Era::Legacy, Manner::Asks).await.unwrap();
    let connection = open(&legacy).await.unwrap();
    let refused = connection.call(ToolCall::of("ask")).await.unwrap_err();
    assert_eq!(refused.kind(), "error", "{refused}");
    assert_eq!(legacy.seen().capabilities, json!({}));
}
