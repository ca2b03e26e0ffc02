//! Tests ambiguous heads, unread bodies and leaving clients, with raw bytes to the real accept
//! loop.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, soon};

const CHAT: &str = "/v1/chat/completions";

async fn connect(f: &Fixture) -> TcpStream {
    let address = f.base.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

fn head(path: &str, key: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

/// Returns the next answer on a connection: its head, and its body as JSON.
async fn answer(stream: &mut TcpStream) -> (String, Value) {
    let mut said = Vec::new();
    soon(async {
        loop {
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head.to_ascii_lowercase(), body);
            }
            assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{text}");
        }
    })
    .await
}

fn code(body: &Value) -> &str {
    let code = body.pointer("/error/code").unwrap_or(&body["code"]);
    code.as_str().unwrap()
}

#[tokio::test]
async fn a_head_that_leaves_open_what_is_meant_is_refused() {
    let f = Fixture::start().await;
    let body = json!({"model": "m", "input": "x", "messages": []}).to_string();
    for (more, expected) in [
        ("", "host_missing"),
        ("host: a\r\nhost: b\r\n", "header_repeated"),
        (
            "host: a\r\nidempotency-key: a\r\nidempotency-key: b\r\n",
            "header_repeated",
        ),
        (
            "host: a\r\nidempotency-key: a\r\nidempotency-key: a\r\n",
            "header_repeated",
        ),
        (
            "host: a\r\ncontent-type: application/json\r\ncontent-type: text/plain\r\n",
            "header_repeated",
        ),
    ] {
        for path in [CHAT, "/v1/runs", "/v1/api-keys", "/nowhere"] {
            let mut stream = connect(&f).await;
            let request = head(path, &f.key, body.len(), more) + &body;
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, answer) = answer(&mut stream).await;
            assert!(head.starts_with("http/1.1 400"), "{path} {more}: {head}");
            assert_eq!(code(&answer), expected, "{path} {more}");
            let shape = answer["error"].is_object();
            assert_eq!(shape, path == CHAT, "the shape is the route's");
        }
    }
    let (_, page) = f.ask(&f.key, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(page["data"], json!([]), "no run is left behind");
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_what_is_taken() {
    let f = Fixture::start().await;
    for (path, encoding) in [
        (CHAT, "gzip"),
        ("/v1/runs", "br"),
        ("/v1/api-keys", "identity, gzip"),
    ] {
        let mut stream = connect(&f).await;
        let more = format!("host: x\r\ncontent-encoding: {encoding}\r\n");
        let request = head(path, &f.key, 4, &more) + "\x1f\x0b\x08\x01";
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, answer) = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 415"), "{path}: {head}");
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
        assert_eq!(code(&answer), "unsupported_content_encoding");
    }
    let wanted = json!({"name": "k", "scopes": ["runs:read"]});
    let request = f.post("/v1/api-keys", &wanted);
    let plain = request.header("content-encoding", "identity").send().await;
    assert_eq!(plain.unwrap().status(), 201);
}

/// Some clients read nothing before they have sent everything.
#[tokio::test]
async fn the_answer_to_a_body_that_nobody_reads_arrives() {
    let f = Fixture::start().await;
    for (key, mebibytes, status, expected) in [
        (&*f.key, 11, 413, "body_too_large"),
        ("bt_test_bad", 5, 401, "invalid_api_key"),
    ] {
        for path in [CHAT, "/v1/runs"] {
            let mut stream = connect(&f).await;
            let length = mebibytes << 20;
            let begin = head(path, key, length, "host: x\r\n");
            stream.write_all(begin.as_bytes()).await.unwrap();
            let body = vec![b'x'; length];
            soon(stream.write_all(&body)).await.unwrap();
            let (head, answer) = answer(&mut stream).await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
            assert!(head.contains("\r\nconnection: close"), "{head}");
            assert_eq!(code(&answer), expected);
        }
    }
}

#[tokio::test]
async fn a_request_that_follows_a_refused_body_is_not_lost() {
    let f = Fixture::start().await;
    let mut stream = connect(&f).await;
    for length in [2_000, 100_000] {
        for (method, path, key, status) in [
            ("POST", CHAT, "bt_test_bad", 401),
            ("POST", "/v1/nowhere", &*f.key, 404),
            ("PUT", CHAT, &*f.key, 405),
        ] {
            let begin = head(path, key, length, "host: x\r\n").replacen("POST", method, 1);
            stream.write_all(begin.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; length]).await.unwrap();
            let (head, _) = answer(&mut stream).await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
            assert!(!head.contains("\r\nconnection: close"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_whole_chat_cancels_it_whatever_it_sent_behind_it() {
    let f = Fixture::start().await;
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).to_string();
    for behind in ["", "\r\n", "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = connect(&f).await;
        let request = head(CHAT, &f.key, body.len(), "host: x\r\n") + &body + behind;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut worker = f.take_job().await;
        assert!(!f.record(worker.run()).await.cancel_requested);
        drop(stream);
        soon(async {
            while !f.record(worker.run()).await.cancel_requested {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        worker.cancelled("client_closed").await;
    }
}
