//! Clients that are slow or silent.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use baton_service::accept::is_body_timeout;
use baton_service::{Limits, ServeReport};
use futures_util::stream;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{PATIENCE, SOON, hello, limits, read_to_close, read_until, send, start};

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
    // The last ones look like the beginning of HTTP/2, which the server must distinguish first.
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
    let mut client = server.ask().await;
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
    let mut client = server.ask().await;
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
    let _client = server.ask().await;
    timeout(PATIENCE, answer_dropped.recv())
        .await
        .expect("the answer goes on")
        .unwrap();
}
