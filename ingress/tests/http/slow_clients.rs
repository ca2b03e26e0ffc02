//! Tests clients that begin and stall, against the real accept loop with configured limits.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, soon};

const SHORT: Duration = Duration::from_millis(200);

/// Returns all that the server sends until it closes the connection.
async fn said_to(f: &Fixture, beginning: &str) -> String {
    let address = f.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    soon(stream.read_to_end(&mut said)).await.unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let f = Fixture::start_with(|config| config.http.header_timeout = SHORT).await;
    for beginning in [
        "",
        "GET /v1/runs HT",
        "GET /v1/runs HTTP/1.1\r\nhost: x\r\nauthor",
    ] {
        let said = said_to(&f, beginning).await;
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_in_the_shape_of_its_route() {
    let f = Fixture::start_with(|config| config.http.body_timeout = SHORT).await;
    for (path, code) in [
        ("/v1/chat/completions", "/error/code"),
        ("/v1/runs", "/code"),
        ("/v1/api-keys", "/code"),
    ] {
        let said = said_to(
            &f,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
                 content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"model\":",
                f.key
            ),
        )
        .await;
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408"), "{path}: {said}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body.pointer(code), Some(&json!("body_timeout")), "{path}");
    }
    let (_, page) = f.ask(&f.key, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(page["data"], json!([]), "no run is left behind");
}
