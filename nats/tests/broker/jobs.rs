//! Jobs: published, pulled, settled.

mod backlog;
mod pulls;
mod settling;

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::FromConsumer as _;
use baton_nats::{
    Bus, Delivery, JobHeaders, JobSource, PublishError, Stranded, Stranding, Supply,
    restore_missing,
};
use baton_protocol::{Job, Lane, RunId, TenantId};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::{Broker, options, run, soon, tenant, until};

const EXPIRES: Duration = Duration::from_secs(5);

async fn publish(bus: &Bus, tenant: TenantId, lane: Lane) -> RunId {
    let run_id = run();
    bus.publish_job(tenant, lane, &Job::Run { run_id }, &JobHeaders::default())
        .await
        .unwrap();
    run_id
}

async fn pull(source: &mut JobSource, max: usize) -> Vec<Delivery> {
    soon(source.pull(max, EXPIRES)).await.unwrap()
}

async fn pull_one(source: &mut JobSource) -> Delivery {
    let mut deliveries = pull(source, 1).await;
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

fn run_of(delivery: &Delivery) -> RunId {
    delivery.job.as_ref().unwrap().run_id()
}

async fn backlog(bus: &Bus) -> (u64, u64) {
    let backlog = bus.job_backlog(Lane::Interactive).await.unwrap();
    (backlog.pending, backlog.ack_pending)
}

#[tokio::test]
async fn a_job_arrives_with_everything_it_was_published_with() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Background)
        .await
        .unwrap();
    let (tenant, run_id) = (tenant(), run());
    let headers = JobHeaders {
        request_id: Some("req-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let seq = broker
        .bus
        .publish_job(tenant, Lane::Background, &Job::Run { run_id }, &headers)
        .await
        .unwrap();

    let job = pull_one(&mut source).await;
    assert_eq!(
        (job.tenant, job.lane, run_of(&job)),
        (tenant, Lane::Background, run_id)
    );
    assert_eq!((job.stream_seq, job.delivered), (seq, 1));
    assert_eq!(job.headers, headers);
    assert!(job.stored_at.timestamp() > 1_700_000_000);
    job.ack_confirmed().await.unwrap();
    let backlog = broker.bus.job_backlog(Lane::Background).await.unwrap();
    assert_eq!(
        (
            backlog.pending,
            backlog.ack_pending,
            backlog.stream_messages
        ),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn the_same_job_can_be_published_again_after_it_was_settled() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let (tenant, run_id) = (tenant(), run());
    for _ in 0..3 {
        let job = Job::Run { run_id };
        let headers = JobHeaders::default();
        broker
            .bus
            .publish_job(tenant, Lane::Interactive, &job, &headers)
            .await
            .unwrap();
        let delivery = pull_one(&mut source).await;
        assert_eq!(run_of(&delivery), run_id);
        delivery.ack_confirmed().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_so() {
    let broker = Broker::start_with(&baton_nats::StreamOptions {
        jobs_max_bytes: 2_000,
        ..options()
    })
    .await;
    let tenant = tenant();
    let refusal = loop {
        let job = Job::Run { run_id: run() };
        let headers = JobHeaders::default();
        if let Err(error) = broker
            .bus
            .publish_job(tenant, Lane::Interactive, &job, &headers)
            .await
        {
            break error;
        }
    };
    assert!(matches!(refusal, PublishError::Full(_)), "{refusal}");
}

/// Guards each tenant's share of JOBS, in number and in bytes: a tenant that fills its own share
/// keeps no other from being served. Before, JOBS took the third job of the first tenant, and a job
/// of a mebibyte.
#[tokio::test]
async fn a_tenant_that_has_filled_its_share_of_the_queue_leaves_room_for_others() {
    let broker = Broker::start_with(&baton_nats::StreamOptions {
        jobs_per_tenant: 2,
        ..options()
    })
    .await;
    let (greedy, modest) = (tenant(), tenant());
    let headers = JobHeaders::default();
    let publish = async |tenant, lane| {
        let job = Job::Run { run_id: run() };
        let stored = broker.bus.publish_job(tenant, lane, &job, &headers);
        stored.await.map(drop)
    };
    for _ in 0..2 {
        publish(greedy, Lane::Background).await.unwrap();
    }
    let refusal = publish(greedy, Lane::Background).await.unwrap_err();
    assert!(matches!(refusal, PublishError::Full(_)), "{refusal}");
    publish(greedy, Lane::Interactive).await.unwrap();
    publish(modest, Lane::Background).await.unwrap();

    let client = broker.client().await;
    let large = vec![b'x'; 64 << 10].into();
    let subject = format!("jobs.{modest}.interactive");
    let answer = client.request(subject, large).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains("message size exceeds maximum"), "{answer}");
}

#[tokio::test]
async fn without_a_stream_or_a_server_a_job_is_refused_for_what_is_missing() {
    let mut broker = Broker::start().await;
    jetstream::new(broker.client().await)
        .delete_stream("JOBS")
        .await
        .unwrap();
    let publish = async |bus: &Bus| {
        let job = Job::Run { run_id: run() };
        bus.publish_job(tenant(), Lane::Interactive, &job, &JobHeaders::default())
            .await
    };
    assert!(matches!(
        publish(&broker.bus).await,
        Err(PublishError::NoStream)
    ));
    broker.server.kill().await;
    until(async || !broker.bus.is_connected()).await;
    assert!(matches!(
        publish(&broker.bus).await,
        Err(PublishError::Disconnected)
    ));
}

#[tokio::test]
async fn a_ping_is_a_round_trip_and_a_closed_connection_has_none() {
    let mut broker = Broker::start().await;
    assert!(broker.bus.ping().await.unwrap() > Duration::ZERO);
    let closing = broker.another_bus().await;
    let mut source = JobSource::open(&closing, Lane::Interactive).await.unwrap();
    closing.close().await;
    assert!(soon(source.pull(1, EXPIRES)).await.is_err());
    assert!(soon(closing.ping()).await.is_err());
    broker.server.kill().await;
    until(async || broker.bus.ping().await.is_err()).await;
}

/// Polls long enough for a request to be sent, then gives up.
trait NowOrNothing: Future + Sized {
    async fn now_or_nothing(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_millis(30), self)
            .await
            .ok()
    }
}

impl<F: Future> NowOrNothing for F {}
