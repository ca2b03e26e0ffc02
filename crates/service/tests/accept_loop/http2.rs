//! HTTP/2, with well-behaved and with hostile clients.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::routing::get;
use baton_service::ServeReport;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{PATIENCE, Server, hello, limits, read_until, send, start};

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

/// Encodes an HTTP/2 frame on stream `id`.
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
/// Reads the next frame: its kind and its payload; `None` at the end of the connection.
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

#[tokio::test]
async fn both_versions_are_known_wherever_their_first_bytes_are_cut() {
    let server = start(hello(), limits()).await;
    for cut in [1, 2, 5, 17] {
        for (request, answer) in [("GET", "HTTP/1.1 200"), ("PRIVATE", "HTTP/1.1 405")] {
            let mut client = server.connect().await;
            let head = format!("{request} / HTTP/1.1\r\nhost: x\r\n\r\n");
            send_in_two(&mut client, &head, cut).await;
            read_until(&mut client, answer).await;
        }
        let mut client = server.connect().await;
        send_in_two(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", cut).await;
        client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        let (kind, _) = read_frame(&mut client).await.unwrap();
        assert_eq!(kind, SETTINGS);
    }
}

/// Sends two pieces, and lets the server run between them.
async fn send_in_two(client: &mut TcpStream, text: &str, cut: usize) {
    send(client, &text[..cut]).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    send(client, &text[cut..]).await;
}

/// Guards `max_concurrent_streams`: hyper's own default is 200, and h2 has no limit.
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

/// Guards `max_header_list_size`: a compressed head can be far larger than the bytes sent.
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

/// Guards the limit of resets ("rapid reset"): opening and resetting streams costs a client
/// nothing, and must not cost the server more than a connection.
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
        // Keeps the connection until the answer was read.
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
