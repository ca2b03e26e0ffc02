//! Stopping, while clients are connected.

use baton_service::{Limits, ServeReport};
use tokio::net::TcpStream;

use super::{NEVER, SOON, hello, limits, read_to_close, read_until, start, streaming};

#[tokio::test]
async fn a_soft_stop_lets_an_open_answer_finish_and_closes_idle_connections() {
    let (router, parts) = streaming();
    let server = start(router, limits()).await;
    let mut silent = server.connect().await;
    let mut client = server.hear(&parts, "before").await;

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
    let mut client = server.hear(&parts, "before").await;
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
    let _client = server.hear(&parts, "before").await;
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
    let mut client = server.ask().await;
    read_until(&mut client, "hello").await;
    server.shutdown.stop_hard();
    server.ended().await;
}
