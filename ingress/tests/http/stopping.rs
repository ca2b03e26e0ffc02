//! Stopping: streams end cleanly, and no run is cancelled for it.

use std::time::Duration;

use baton_protocol::RunStatus;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, run_of, soon};

#[tokio::test]
async fn native_streams_are_closed_between_events_and_resume_elsewhere() {
    let mut f = Fixture::start().await;
    let (other, _shutdown) = f.another_ingress().await;
    let created = f
        .post("/v1/runs", &json!({"model": "m", "input": "x"}))
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    let run = run_of(&created);
    let mut sse = Sse::of(created);
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
async fn a_hard_stop_cancels_nothing() {
    let mut f = Fixture::start().await;
    let (response, worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("x").await;
        worker
    });
    let response = response.unwrap();
    f.shutdown.stop_hard();
    f.stopped().await;
    drop(response);
    let record = soon(async { f.record(worker.run()).await }).await;
    assert_eq!(record.status, RunStatus::Running);
    assert!(!record.cancel_requested);
}
