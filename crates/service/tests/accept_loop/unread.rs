//! Requests that are answered before their body was read, and clients that leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{PATIENCE, limits, read_to_close, read_until, send, start};

/// `/no` refuses without reading, `/first` after the first piece, `/` answers a GET.
fn refusing() -> Router {
    telling(mpsc::unbounded_channel().0)
}

/// As [`refusing`]; each request of `/no` is reported.
fn telling(asked: mpsc::UnboundedSender<()>) -> Router {
    let no = move || {
        let _ = asked.send(());
        async { (StatusCode::UNAUTHORIZED, "no") }
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/no", post(no))
        .route(
            "/first",
            post(|mut body: Body| async move {
                body.frame().await.unwrap().unwrap();
                (StatusCode::PAYLOAD_TOO_LARGE, "no")
            }),
        )
}

async fn head(client: &mut TcpStream, path: &str, length: usize, more: &str) {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{more}\r\n");
    send(client, &head).await;
}

#[tokio::test]
async fn a_small_body_that_comes_after_its_answer_was_made_costs_no_later_request() {
    let (asked, mut asks) = mpsc::unbounded_channel();
    let server = start(telling(asked), limits()).await;
    let mut client = server.connect().await;
    for length in [1, 2_000, 100_000, 200_000] {
        head(&mut client, "/no", length, "").await;
        asks.recv().await.unwrap();
        client.write_all(&vec![b'x'; length]).await.unwrap();
        let answer = read_until(&mut client, "no").await;
        assert!(!answer.contains("connection: close"), "{length}: {answer}");
    }
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut client, "hello").await;
}

#[tokio::test]
async fn a_chunked_body_is_read_to_its_end_too() {
    let server = start(refusing(), limits()).await;
    let mut client = server.connect().await;
    let request = "POST /no HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..3 {
        send(&mut client, request).await;
        let answer = read_until(&mut client, "no").await;
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_large_body_is_dropped_until_its_client_has_the_answer() {
    const LENGTH: usize = 11 << 20;
    let server = start(refusing(), limits()).await;
    for path in ["/no", "/first"] {
        let mut client = server.connect().await;
        head(&mut client, path, LENGTH, "").await;
        // As clients do that read nothing before they have sent everything.
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LENGTH >> 20 {
            timeout(PATIENCE, client.write_all(&piece))
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let answer = read_to_close(&mut client).await;
        assert!(answer.contains("connection: close"), "{path}: {answer}");
        assert!(answer.ends_with("no"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_not_asked() {
    let server = start(refusing(), limits()).await;
    let mut client = server.connect().await;
    head(&mut client, "/no", 1_000, "expect: 100-continue\r\n").await;
    let answer = read_to_close(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_answered_however_much_of_it_comes() {
    let server = start(refusing(), limits()).await;
    let mut client = server.connect().await;
    let line = vec![b'x'; 1 << 20];
    client.write_all(b"GET / HTTP/9.9\r\n").await.unwrap();
    for _ in 0..8 {
        client.write_all(&line).await.unwrap();
    }
    let answer = read_to_close(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// Sets its flag when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            let _ = dropped.send(());
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_whatever_it_has_sent_behind_its_request() {
    for behind in ["", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n", "x"] {
        let (sender, dropped) = oneshot::channel();
        let (begun, begins) = oneshot::channel();
        let kept = std::sync::Mutex::new(Some((Dropped(Some(sender)), begun)));
        let left = Arc::new(AtomicBool::new(true));
        let answered = Arc::clone(&left);
        let handler = {
            let kept = Arc::new(kept);
            move || {
                let (kept, begun) = kept.lock().unwrap().take().unwrap();
                begun.send(()).unwrap();
                async move {
                    std::future::pending::<()>().await;
                    answered.store(false, Ordering::SeqCst);
                    drop(kept);
                }
            }
        };
        let server = start(Router::new().route("/", get(handler)), limits()).await;
        let mut client = server.ask().await;
        begins.await.unwrap();
        send(&mut client, behind).await;
        drop(client);
        timeout(PATIENCE, dropped)
            .await
            .unwrap_or_else(|_| panic!("the client was not missed: {behind:?}"))
            .unwrap();
        assert!(left.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn a_client_that_stays_has_its_answers_one_after_another() {
    let server = start(refusing(), limits()).await;
    let mut client = server.connect().await;
    let one = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    send(&mut client, &one.repeat(3)).await;
    let mut heard = 0;
    while heard < 3 {
        heard += read_until(&mut client, "hello")
            .await
            .matches("hello")
            .count();
    }
}
