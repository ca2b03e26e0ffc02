//! Stopping: streams end cleanly, and no run is cancelled by it.

use std::time::Duration;

use baton_protocol::RunStatus;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::fixture::{Fixture, Sse, soon};

#[tokio::test]
async fn native_streams_are_closed_between_events_and_resume_elsewhere() {
    let mut f = Fixture::start().await;
    let (other, _shutdown) = f.another_ingress().await;
    let (run, mut sse) = f.followed_run().await;
    let mut worker = f.take_job().await;
    worker.say("a").await;
    let started = sse.next().await.unwrap();
    let a = sse.next().await.unwrap();
    assert_eq!(started.event.as_deref(), Some("run.started"));

    f.shutdown.stop_soft();
    assert_eq!(sse.next().await, None, "a clean end");
    worker.say("b").await;
    let cursor = a.id.unwrap();
    let path = format!("/v1/runs/{run}/events");
    let resumed = f
        .get_from(&other, &path)
        .header("last-event-id", cursor)
        .send()
        .await
        .unwrap();
    let mut resumed = Sse::of(resumed);
    let b: Value = resumed.json().await;
    assert_eq!(b["data"]["text"], "b");
    worker.complete().await;
    assert_eq!(resumed.rest().await.len(), 1);
    f.stopped().await;
    assert!(!f.record(run).await.cancel_requested);
}

#[tokio::test]
async fn a_chat_that_ends_within_the_grace_is_whole() {
    let mut f = Fixture::start().await;
    let (response, mut worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker
    });
    let mut sse = Sse::of(response.unwrap());
    sse.json().await;
    f.shutdown.stop_soft();
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.say("lo").await;
    worker.complete().await;
    assert_eq!(sse.rest().await.last().unwrap().data, "[DONE]");
    f.stopped().await;
}

#[tokio::test]
async fn a_chat_beyond_the_grace_is_told_so_and_its_run_goes_on() {
    let mut f = Fixture::start().await;
    let (response, worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker
    });
    let mut sse = Sse::of(response.unwrap());
    f.shutdown.stop_soft();
    let last: Value = serde_json::from_str(&sse.rest().await.last().unwrap().data).unwrap();
    assert_eq!(last["error"]["code"], "server_stopping");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&worker.run().to_string())
    );
    f.stopped().await;
    let record = f.record(worker.run()).await;
    assert_eq!(record.status, RunStatus::Running);
    assert!(!record.cancel_requested);
}

#[tokio::test]
async fn a_hard_stop_cancels_nothing_not_even_for_a_client_that_does_not_read() {
    let mut f = Fixture::start().await;
    // A client with a small window that reads nothing.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let address = f.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut client = socket.connect(address).await.unwrap();
    let body = json!({
        "model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true,
    })
    .to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        f.key,
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut worker = f.take_job().await;
    // More than the sockets hold: the stream waits for its client, and is dropped there.
    let much = "x".repeat(500_000);
    for _ in 0..32 {
        worker.say(&much).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    f.shutdown.stop_hard();
    f.stopped().await;
    drop(client);
    let record = soon(async { f.record(worker.run()).await }).await;
    assert_eq!(record.status, RunStatus::Running);
    assert!(!record.cancel_requested);
}
