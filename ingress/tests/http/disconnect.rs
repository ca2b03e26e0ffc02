//! The effects of a client's leaving.

use std::time::Duration;

use baton_nats::Nudge;
use baton_protocol::RunStatus;
use serde_json::json;

use crate::fixture::{Fixture, Sse, soon};

#[tokio::test]
async fn closing_a_stream_cancels_its_run_and_nudges_its_worker() {
    let f = Fixture::start().await;
    let (response, mut worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("x").await;
        worker
    });
    let mut nudges = f.bus.worker_nudges(worker.id).await.unwrap();
    f.bus.ping().await.unwrap();
    let mut sse = Sse::of(response.unwrap());
    sse.json().await;
    drop(sse);
    let nudge = soon(nudges.next()).await.unwrap();
    assert_eq!(
        nudge,
        Nudge::Cancel {
            tenant: f.tenant,
            run: worker.run()
        }
    );
    assert!(f.record(worker.run()).await.cancel_requested);
    worker.cancelled("client_closed").await;
}

#[tokio::test]
async fn closing_a_request_for_a_whole_answer_cancels_its_run() {
    let f = Fixture::start().await;
    let mut request = Box::pin(f.chat(false).send());
    let worker = tokio::select! {
        answer = &mut request => panic!("answered: {answer:?}"),
        worker = f.take_job() => worker,
    };
    assert!(!f.record(worker.run()).await.cancel_requested);
    drop(request);
    soon(async {
        while !f.record(worker.run()).await.cancel_requested {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_still_queued_is_cancelled_at_once_and_its_end_is_told() {
    let f = Fixture::start().await;
    let (run, mut sse) = f.followed_run().await;
    let cancelled = f
        .post(&format!("/v1/runs/{run}/cancel"), &json!(null))
        .send()
        .await
        .unwrap();
    assert_eq!(cancelled.status(), 200);
    let events = sse.rest().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].event.as_deref(), Some("run.cancelled"));
    f.until_status(run, RunStatus::Cancelled).await;
    assert_eq!(f.all_events(run).await.len(), 1);
}

#[tokio::test]
async fn a_native_run_goes_on_without_its_client() {
    let f = Fixture::start().await;
    let response = f
        .post("/v1/runs", &json!({"model": "m", "input": "x"}))
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    let mut worker = f.take_job().await;
    let mut sse = Sse::of(response);
    assert_eq!(
        sse.next().await.unwrap().event.as_deref(),
        Some("run.started")
    );
    drop(sse);
    worker.say("still here").await;
    worker.complete().await;
    assert_eq!(f.record(worker.run()).await.status, RunStatus::Completed);
    assert!(!f.record(worker.run()).await.cancel_requested);
}

#[tokio::test]
async fn a_finished_stream_cancels_nothing() {
    let f = Fixture::start().await;
    let (response, worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("x").await;
        worker.complete().await;
        worker
    });
    Sse::of(response.unwrap()).rest().await;
    assert!(!f.record(worker.run()).await.cancel_requested);
}
