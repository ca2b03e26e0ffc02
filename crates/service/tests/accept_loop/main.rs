//! The accept loop against clients that are slow, silent, many, or in the middle of an answer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod http2;
mod slow_clients;
mod stopping;
mod unread;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use baton_service::accept::AddressLimit;
use baton_service::config::HttpConfig;
use baton_service::{Limits, ServeReport, Shutdown, serve};
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(50);
const NEVER: Duration = Duration::from_hours(1);

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<ServeReport>,
}

/// Limits that no test reaches; each test shortens the one that it is about.
fn limits() -> Limits {
    Limits {
        header_timeout: NEVER,
        body_timeout: NEVER,
        write_timeout: NEVER,
        keep_alive: NEVER,
        lame_duck: Duration::ZERO,
        drain: NEVER,
        ..Limits::of(&HttpConfig::default())
    }
}

async fn start(router: Router, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let task =
        TaskTracker::new().spawn(async move { serve(listener, router, limits, &stop).await });
    Server {
        address,
        shutdown,
        task,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects a client and sends a request for `/`.
    async fn ask(&self) -> TcpStream {
        let mut client = self.connect().await;
        send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        client
    }

    /// A client that has asked for one answer and no more.
    async fn ask_to_close(&self) -> TcpStream {
        let mut client = self.connect().await;
        // A server that refuses the connection may close it before.
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let _ = client.write_all(request).await;
        client
    }

    /// Connects a client that sent a request and received the beginning of a longer answer.
    async fn hear(&self, parts: &Parts, beginning: &'static str) -> TcpStream {
        let mut client = self.ask().await;
        parts.send(beginning).unwrap();
        read_until(&mut client, beginning).await;
        client
    }

    async fn ended(self) -> ServeReport {
        timeout(PATIENCE, self.task)
            .await
            .expect("the server did not end")
            .unwrap()
    }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// The sender of the next parts of an answer's body.
type Parts = mpsc::UnboundedSender<&'static str>;

/// Makes a route `/` with a body that the test sends.
fn streaming() -> (Router, Parts) {
    let (sender, receiver) = mpsc::unbounded_channel::<&'static str>();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let handler = move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
                let part = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Bytes::from(part)), receiver))
            }))
        }
    };
    let handler = std::sync::Arc::new(handler);
    (Router::new().route("/", get(move || handler())), sender)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until `end` arrives.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let count = timeout(PATIENCE, stream.read(&mut buffer))
            .await
            .expect("nothing came");
        let count = count.unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

/// Reads everything before the server closes.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("not closed");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn beyond_the_limit_a_connection_waits_until_another_closes() {
    let (router, parts) = streaming();
    let router = router.route("/hello", get(|| async { "hello" }));
    let server = start(
        router,
        Limits {
            max_connections: 1,
            ..limits()
        },
    )
    .await;
    let mut first = server.connect().await;
    send(
        &mut first,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    parts.send("first").unwrap();
    read_until(&mut first, "first").await;

    let mut second = server.connect().await;
    send(&mut second, "GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let early = timeout(SOON, second.read_u8()).await;
    assert!(
        early.is_err(),
        "the second was served while the first was open"
    );
    drop(parts);
    read_to_close(&mut first).await;
    read_until(&mut second, "hello").await;
}

#[tokio::test]
async fn an_address_has_its_connections_and_others_have_theirs() {
    let server = start(
        hello(),
        Limits {
            per_address: Some(AddressLimit {
                connections: 2,
                excepted: Vec::new(),
            }),
            ..limits()
        },
    )
    .await;
    let mut first = server.ask().await;
    read_until(&mut first, "hello").await;
    let mut second = server.ask().await;
    read_until(&mut second, "hello").await;
    let refused = read_to_close(&mut server.connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after: "), "{refused}");
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut elsewhere = elsewhere.connect(server.address).await.unwrap();
    send(&mut elsewhere, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut elsewhere, "hello").await;

    send(
        &mut first,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    read_to_close(&mut first).await;
    // The place is free when the connection's task has ended, a moment after the close.
    let served = async {
        while !read_to_close(&mut server.ask_to_close().await)
            .await
            .ends_with("hello")
        {}
    };
    timeout(PATIENCE, served).await.unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(hello(), limits()).await;
    for (filler, status) in [(65_000, "200"), (140_000, "431")] {
        let mut client = server.connect().await;
        let filler = "x".repeat(filler);
        // The server may refuse and close before everything is written.
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nfiller: {filler}\r\n\r\n");
        let _ = client.write_all(head.as_bytes()).await;
        let answer = read_until(&mut client, "\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }

    let mut client = server.connect().await;
    let fields = "a: b\r\n".repeat(101);
    send(
        &mut client,
        &format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\n"),
    )
    .await;
    assert!(
        read_until(&mut client, "\r\n")
            .await
            .starts_with("HTTP/1.1 431")
    );
}
