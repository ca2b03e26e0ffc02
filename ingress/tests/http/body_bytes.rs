//! Tests unfinished bodies against the real accept loop, with raw bytes.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, soon};

const LIMIT: usize = 256 << 10;
const SHARE: usize = 1 << 20;
/// The part of each body that is sent.
const BEGUN: usize = 128 << 10;
const BODIES: usize = 80;

/// Begins a chat of `LIMIT` bytes without finishing it.
async fn begin(f: &Fixture, key: &str) -> (TcpStream, String) {
    let text = "x".repeat(LIMIT - 100);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
    let (begun, rest) = body.split_at(BEGUN);
    let address = f.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{begun}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    (stream, rest.to_owned())
}

/// Returns the status and the body of the first answer.
async fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut said = Vec::new();
    soon(async {
        loop {
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head[9..12].parse().unwrap(), body);
            }
            assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{text}");
        }
    })
    .await
}

#[tokio::test]
async fn unfinished_bodies_hold_a_share_of_their_key_and_nothing_of_others() {
    let f = Fixture::start_with(|config| {
        config.http.body_limit = "256KiB".parse().unwrap();
        config.http.body_bytes = "2MiB".parse().unwrap();
        config.http.body_bytes_per_key = "1MiB".parse().unwrap();
    })
    .await;
    let other = f.make_key(9, &["*"], None).await;
    let mut bodies = Vec::new();
    for _ in 0..BODIES {
        bodies.push(begin(&f, &f.key).await);
    }
    let mut answers: FuturesUnordered<_> = bodies
        .iter_mut()
        .map(|(stream, _)| answer(stream))
        .collect();
    // Only those without room are refused; the others wait for their clients.
    for _ in 0..BODIES - SHARE / BEGUN {
        let (status, body) = answers.next().await.unwrap();
        assert_eq!(
            (status, &body["error"]["code"]),
            (429, &json!("too_many_body_bytes"))
        );
    }
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let request = f.plain("POST", "/v1/chat/completions", &chat);
    let (chat, ()) = tokio::join!(request.bearer_auth(&other).send(), async {
        f.take_job().await.complete().await;
    });
    assert_eq!(chat.unwrap().status(), 200, "another key's");
    drop(answers);
    drop(bodies);
    // The bytes of clients that have gone are given back.
    let (mut stream, rest) = begin(&f, &f.key).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let ((status, _), ()) = tokio::join!(answer(&mut stream), async {
        f.take_job().await.complete().await;
    });
    assert_eq!(status, 200);
}
