use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{any, get};
use baton_protocol::RunId;
use chrono::DateTime;
use http::StatusCode;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::*;

/// A server that echoes, redirects to a private address, refuses and floods.
async fn server() -> (u16, DropGuard) {
    async fn echo(request: Request) -> String {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let kind = parts.headers.get(CONTENT_TYPE);
        let kind = kind.map(|kind| kind.to_str().unwrap()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        format!("{} {} {kind} {body}", parts.method, parts.uri)
    }
    let app = axum::Router::new()
        .route("/echo", any(echo))
        .route(
            "/away",
            get(|| async { Redirect::temporary("http://10.0.0.1/latest") }),
        )
        .route(
            "/gone",
            get(|| async { (StatusCode::NOT_FOUND, "no such page") }),
        )
        .route(
            "/flood",
            get(|| async { vec![b'x'; 4 * MAX_BODY].into_response() }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    TaskTracker::new().spawn(async move {
        let serve = axum::serve(listener, app).with_graceful_shutdown(stopped.cancelled_owned());
        serve.await.unwrap();
    });
    (port, stop.drop_guard())
}

fn config(hosts: &[String], methods: &[&str]) -> HttpRequestConfig {
    HttpRequestConfig {
        hosts: hosts.to_vec(),
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
    }
}

fn tool(hosts: &[String], networks: &[&str]) -> HttpRequest {
    let outbound = OutboundConfig {
        allow_networks: networks.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let config = config(hosts, &["GET", "POST"]);
    HttpRequest::new(&config, &outbound).unwrap().unwrap()
}

async fn ask(tool: &HttpRequest, arguments: Value) -> Result<String, ToolError> {
    let context = ToolContext {
        run: RunId::new(DateTime::UNIX_EPOCH),
        step: 1,
        call_id: "call_1".to_owned(),
        request_id: Some("order-17".to_owned()),
        traceparent: None,
        now: DateTime::UNIX_EPOCH,
        resumes: None,
    };
    tool.call(arguments, &context).await
}

#[test]
fn there_is_no_such_tool_without_hosts() {
    let config = HttpRequestConfig::default();
    let tool = HttpRequest::new(&config, &OutboundConfig::default()).unwrap();
    assert!(tool.is_none());
}

#[test]
fn a_tool_that_posts_is_not_repeated() {
    let effect = |methods| HttpRequest::spec(&config(&[], methods), CONNECT_TIMEOUT).effect;
    assert_eq!(effect(&["GET", "PUT", "DELETE"]), Effect::Idempotent);
    assert_eq!(effect(&["GET", "POST"]), Effect::AtMostOnce);
}

#[test]
fn hosts_are_matched_whole_with_their_port() {
    let allows = |host, url| Host::parse(host).allows(&Url::parse(url).unwrap());
    for (host, url) in [
        ("a.example", "https://a.example/x"),
        ("a.example", "http://A.EXAMPLE:80/x"),
        ("*.a.example", "https://b.a.example/"),
        ("*.a.example", "https://c.b.a.example/"),
        ("a.example:8443", "https://a.example:8443/"),
        ("a.example:443", "https://a.example/"),
    ] {
        assert!(allows(host, url), "{host} {url}");
    }
    for (host, url) in [
        ("a.example", "https://b.a.example/"),
        ("a.example", "https://a.example.evil.example/"),
        ("a.example", "https://evil.example/?a.example"),
        ("a.example", "https://a.example@evil.example/"),
        ("a.example", "https://a.example:8443/"),
        ("a.example:8443", "https://a.example/"),
        ("*.a.example", "https://a.example/"),
        ("*.a.example", "https://evila.example/"),
    ] {
        assert!(!allows(host, url), "{host} {url}");
    }
}

#[tokio::test]
async fn a_request_is_sent_as_the_model_wrote_it() {
    let (port, _server) = server().await;
    let tool = tool(&[format!("127.0.0.1:{port}")], &["127.0.0.1/32"]);
    let url = format!("http://127.0.0.1:{port}/echo?a=b");
    let answer = ask(&tool, json!({"url": url})).await.unwrap();
    assert!(
        answer.starts_with("200 OK\ncontent-type: text/plain"),
        "{answer}"
    );
    assert!(answer.ends_with("GET /echo?a=b  "), "{answer}");
    let post = json!({"url": url, "method": "POST", "body": "hello", "content_type": "text/plain"});
    let answer = ask(&tool, post).await.unwrap();
    assert!(
        answer.ends_with("POST /echo?a=b text/plain hello"),
        "{answer}"
    );
}

/// Each of these costs its own call and no more.
#[tokio::test]
async fn answers_that_refuse_redirect_or_flood_are_bounded() {
    let (port, _server) = server().await;
    let tool = tool(
        &[format!("127.0.0.1:{port}"), "10.0.0.1".to_owned()],
        &["127.0.0.1/32"],
    );
    let at = |path: &str| json!({"url": format!("http://127.0.0.1:{port}{path}")});
    let answer = ask(&tool, at("/away")).await.unwrap();
    assert!(
        answer.starts_with("307 Temporary Redirect\nlocation: http://10.0.0.1/latest"),
        "{answer}"
    );
    // The model may follow it, and meets the same checks, although the host is listed.
    let error = ask(&tool, json!({"url": "http://10.0.0.1/latest"}))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not public"), "{error}");
    let error = ask(&tool, at("/gone")).await.unwrap_err();
    assert!(error.to_string().ends_with("no such page"), "{error}");
    let answer = ask(&tool, at("/flood")).await.unwrap();
    assert!(answer.len() < MAX_BODY + 1_000, "{}", answer.len());
}

#[tokio::test]
async fn hosts_and_addresses_that_are_not_listed_are_refused() {
    let (port, _server) = server().await;
    let here = format!("127.0.0.1:{port}");
    let listed = tool(std::slice::from_ref(&here), &["127.0.0.1/32"]);
    for url in [
        "https://other.example/",
        "ftp://127.0.0.1/",
        "no address",
        "http://127.0.0.1:1/",
    ] {
        let error = ask(&listed, json!({"url": url})).await.unwrap_err();
        assert!(matches!(error, ToolError::Arguments(_)), "{url}: {error}");
    }
    let url = format!("http://user:password@{here}/echo");
    let error = ask(&listed, json!({"url": url})).await.unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
    // A listed host is no permission for a private address.
    let guarded = tool(std::slice::from_ref(&here), &[]);
    let url = format!("http://{here}/echo");
    let error = ask(&guarded, json!({"url": url})).await.unwrap_err();
    assert!(error.to_string().contains("not public"), "{error}");
}
