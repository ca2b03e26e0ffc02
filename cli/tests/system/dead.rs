//! Messages that nobody can work on.

use baton_harness::scripted_model::Reply;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use crate::fixture::{assert_whole, model, run, stack, until_dead};

/// Publishes as any program on the bus may, without a client library.
async fn publish(port: u16, subject: &str, payload: &str) {
    publish_as(port, "{}", subject, payload).await;
}

/// As [`publish`], with the options of `CONNECT`, a JSON object.
pub(crate) async fn publish_as(port: u16, login: &str, subject: &str, payload: &str) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = BufStream::new(stream);
    let length = payload.len();
    let frames = format!("CONNECT {login}\r\nPUB {subject} {length}\r\n{payload}\r\nPING\r\n");
    stream.write_all(frames.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

/// Guards the search for stranded messages, and the quarantine: what no worker will ever be given,
/// and what no worker can read, are set aside with the reason, and hold up nobody.
#[tokio::test]
async fn messages_that_nobody_can_work_on_are_set_aside_with_their_reason() {
    let model = model(|_| Reply::text("as always")).await;
    let stack = stack(&model).await;
    let (ingress, scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let tenant = "01890a5d-ac96-774b-bcce-b302099a8057";
    let nowhere = format!("jobs.{tenant}.nowhere");
    publish(stack.nats.port(), &nowhere, r#"{"lost":true}"#).await;
    let readable_by_nobody = format!("jobs.{tenant}.interactive");
    publish(stack.nats.port(), &readable_by_nobody, "garbage").await;

    let quarantined = "baton_jobs_quarantined_total";
    scheduler.until_metric(quarantined, 1).await.unwrap();
    worker.until_metric(quarantined, 1).await.unwrap();
    let stranded = until_dead(&stack, &nowhere).await;
    assert!(
        stranded.contains("no consumer takes this subject"),
        "{stranded}"
    );
    until_dead(&stack, &readable_by_nobody).await;
    let left = stack.bus().await.unwrap().stranded_jobs(10).await.unwrap();
    assert_eq!(left.jobs, [], "moved, and not only copied");

    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    assert_whole(&client, &id, "as always").await;
}
