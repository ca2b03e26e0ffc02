//! The accept loop against clients that are slow, silent, many, or in the middle of an answer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::routing::{get, post};
use baton_service::accept::is_body_timeout;
use baton_service::config::HttpConfig;
use baton_service::{Limits, ServeReport, Shutdown, serve};
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(50);
const NEVER: Duration = Duration::from_hours(1);

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<ServeReport>,
}

/// Limits that never strike; each test shortens the one it is about.
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

/// A route `/` whose body is what the test sends.
fn streaming() -> (Router, mpsc::UnboundedSender<&'static str>) {
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

/// Reads until `end` has come.
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

/// What comes before the server closes.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("not closed");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_client_that_is_silent_or_slow_with_its_head_is_cut() {
    let server = start(
        hello(),
        Limits {
            header_timeout: SOON,
            ..limits()
        },
    )
    .await;
    // The last ones look like the beginning of HTTP/2, which has to be told apart first.
    for beginning in [
        "",
        "GET / HTTP/1.1\r\nhost:",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        send(&mut client, beginning).await;
        read_to_close(&mut client).await;
    }
    server.shutdown.stop_soft();
    assert_eq!(
        server.ended().await,
        ServeReport {
            accepted: 4,
            cut: 0
        }
    );
}

#[tokio::test]
async fn a_client_that_is_slow_with_a_later_head_is_cut_as_well() {
    let server = start(
        hello(),
        Limits {
            header_timeout: SOON,
            ..limits()
        },
    )
    .await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut client, "hello").await;
    send(&mut client, "GET / HTTP/1.1\r\n").await;
    read_to_close(&mut client).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_keep_alive_time() {
    let server = start(
        hello(),
        Limits {
            keep_alive: SOON,
            ..limits()
        },
    )
    .await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(read_to_close(&mut client).await.ends_with("hello"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_an_error_that_the_handler_can_tell() {
    let handler = |request: Request| async {
        match request.into_body().collect().await {
            Ok(_) => StatusCode::OK,
            Err(error) if is_body_timeout(&error) => StatusCode::REQUEST_TIMEOUT,
            Err(_) => StatusCode::BAD_REQUEST,
        }
    };
    let router = Router::new().route("/", post(handler));
    let server = start(
        router,
        Limits {
            body_timeout: SOON,
            ..limits()
        },
    )
    .await;
    let mut client = server.connect().await;
    send(
        &mut client,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
    )
    .await;
    assert!(
        read_until(&mut client, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 408")
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    struct Held(mpsc::UnboundedSender<()>);
    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (dropped, mut answer_dropped) = mpsc::unbounded_channel();
    let handler = move || async move {
        Body::from_stream(stream::unfold(Held(dropped), |held| async {
            Some((Ok::<_, Infallible>(Bytes::from(vec![b'x'; 65536])), held))
        }))
    };
    let router = Router::new().route("/", get(handler));
    let server = start(
        router,
        Limits {
            write_timeout: SOON,
            ..limits()
        },
    )
    .await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    timeout(PATIENCE, answer_dropped.recv())
        .await
        .expect("the answer goes on")
        .unwrap();
}

#[tokio::test]
async fn a_soft_stop_lets_an_open_answer_finish_and_closes_idle_connections() {
    let (router, parts) = streaming();
    let server = start(router, limits()).await;
    let mut silent = server.connect().await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    parts.send("before").unwrap();
    read_until(&mut client, "before").await;

    server.shutdown.stop_soft();
    assert_eq!(
        read_to_close(&mut silent).await,
        "",
        "it had asked for nothing"
    );
    parts.send("after").unwrap();
    drop(parts);
    let rest = read_to_close(&mut client).await;
    assert!(
        rest.contains("after") && rest.ends_with("0\r\n\r\n"),
        "{rest:?}"
    );

    let address = server.address;
    assert_eq!(
        server.ended().await,
        ServeReport {
            accepted: 2,
            cut: 0
        }
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut_when_the_drain_ends() {
    let (router, parts) = streaming();
    let server = start(
        router,
        Limits {
            drain: SOON,
            ..limits()
        },
    )
    .await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    parts.send("before").unwrap();
    read_until(&mut client, "before").await;
    server.shutdown.stop_soft();
    assert!(
        !read_to_close(&mut client).await.ends_with("0\r\n\r\n"),
        "it is not made to look whole"
    );
    assert_eq!(server.ended().await.cut, 1);
}

#[tokio::test]
async fn the_hard_stop_does_not_wait_for_the_drain() {
    let (router, parts) = streaming();
    let server = start(router, limits()).await;
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    parts.send("before").unwrap();
    read_until(&mut client, "before").await;
    server.shutdown.stop_soft();
    server.shutdown.stop_hard();
    assert_eq!(server.ended().await.cut, 1);
}

#[tokio::test]
async fn new_connections_are_served_while_load_balancers_notice_the_stop() {
    let server = start(
        hello(),
        Limits {
            lame_duck: NEVER,
            ..limits()
        },
    )
    .await;
    server.shutdown.stop_soft();
    let mut client = server.connect().await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut client, "hello").await;
    server.shutdown.stop_hard();
    server.ended().await;
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
async fn a_head_that_is_too_large_is_refused() {
    let server = start(hello(), limits()).await;
    let mut client = server.connect().await;
    let filler = "x".repeat(70_000);
    // The server may refuse and close before all is written.
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nfiller: {filler}\r\n\r\n");
    let _ = client.write_all(head.as_bytes()).await;
    assert!(
        read_until(&mut client, "\r\n")
            .await
            .starts_with("HTTP/1.1 431")
    );

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

#[tokio::test]
async fn http2_is_served_on_the_same_port_with_the_peers_address_and_drained_too() {
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let server = start(Router::new().route("/", get(peer)), limits()).await;
    let stream = server.connect().await;
    let local = stream.local_addr().unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = TaskTracker::new().spawn(connection);
    let request = http::Request::get("http://x/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, local.to_string());

    server.shutdown.stop_soft();
    timeout(PATIENCE, connection)
        .await
        .expect("not closed")
        .unwrap()
        .unwrap();
    assert_eq!(
        server.ended().await,
        ServeReport {
            accepted: 1,
            cut: 0
        }
    );
}

/// An HTTP/2 frame on stream `id`.
fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// `GET http /`, each from the static table.
const GET: [u8; 3] = [0x82, 0x86, 0x84];
const END_OF_STREAM_AND_HEADERS: u8 = 0x5;

/// The next frame: its kind and its payload; none at the end of the connection.
async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let reading = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    };
    timeout(PATIENCE, reading).await.expect("no frame")
}

async fn open_http2(server: &Server) -> TcpStream {
    let mut client = server.connect().await;
    send(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    client
}

/// Guards `max_concurrent_streams`: hyper's own default is 200, and h2's none.
#[tokio::test]
async fn an_http2_client_is_told_how_many_requests_it_may_have_open() {
    let server = start(hello(), limits()).await;
    let mut client = open_http2(&server).await;
    let (kind, settings) = read_frame(&mut client).await.unwrap();
    assert_eq!(kind, SETTINGS);
    let most = settings
        .chunks_exact(6)
        .find(|setting| setting[..2] == [0, 3])
        .map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()));
    assert_eq!(most, Some(256));
}

/// Guards `max_header_list_size`: a head that is compressed can be far larger than what is sent.
#[tokio::test]
async fn an_http2_head_that_is_too_large_is_refused() {
    let server = start(hello(), limits()).await;
    let io = TokioIo::new(server.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    TaskTracker::new().spawn(connection);
    for (fields, status) in [(10, 200), (18, 431)] {
        let mut request = http::Request::get("http://x/");
        for n in 0..fields {
            request = request.header(format!("filler-{n}"), "x".repeat(1_000));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = timeout(PATIENCE, sender.send_request(request)).await;
        assert_eq!(answer.unwrap().unwrap().status(), status, "{fields} KB");
    }
}

/// Guards the limit of resets ("rapid reset"): opening and resetting streams costs a client nothing,
/// and must not cost the server more than a connection.
#[tokio::test]
async fn an_http2_client_that_opens_and_resets_without_end_is_sent_away() {
    let server = start(hello(), limits()).await;
    let (mut reader, mut writer) = open_http2(&server).await.into_split();
    let flood = async move {
        for id in (1..200_000).step_by(2) {
            let mut both = frame(HEADERS, END_OF_STREAM_AND_HEADERS, id, &GET);
            both.extend(frame(RESET, 0, id, &8_u32.to_be_bytes()));
            if writer.write_all(&both).await.is_err() {
                return;
            }
        }
        // Not dropped before the answer was read.
        std::future::pending::<()>().await;
    };
    let answer = async {
        while let Some((kind, payload)) = read_frame(&mut reader).await {
            if kind == GOAWAY {
                return u32::from_be_bytes(payload[4..8].try_into().unwrap());
            }
        }
        panic!("closed without a word");
    };
    let code = tokio::select! {
        code = answer => code,
        () = async { flood.await; std::future::pending().await } => unreachable!(),
    };
    assert_eq!(code, 11, "ENHANCE_YOUR_CALM");
}
