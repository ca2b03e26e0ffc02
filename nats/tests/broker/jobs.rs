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
async fn a_waiting_pull_gets_a_job_at_once() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let tenant = tenant();
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        assert!(
            soon(source.pull(1, Duration::from_millis(50)))
                .now_or_nothing()
                .await
                .is_none()
        );
        let start = Instant::now();
        let run_id = publish(&broker.bus, tenant, Lane::Interactive).await;
        let job = pull_one(&mut source).await;
        fastest = fastest.min(start.elapsed());
        assert_eq!(run_of(&job), run_id);
        job.ack().await.unwrap();
    }
    // Far below any time-out or poll there is, and far above what it takes on a busy machine.
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[tokio::test]
async fn jobs_are_pulled_only_by_demand() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let tenant = tenant();
    for _ in 0..5 {
        publish(&broker.bus, tenant, Lane::Interactive).await;
    }
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(pull(&mut source, 2 - held.len()).await);
    }
    assert_eq!(held.len(), 2);
    assert_eq!(
        backlog(&broker.bus).await,
        (3, 2),
        "the others wait at the broker"
    );

    assert!(source.pull(0, EXPIRES).now_or_nothing().await.is_none());
    assert_eq!(backlog(&broker.bus).await, (3, 2), "no slot, no job");
}

#[tokio::test]
async fn each_job_reaches_one_worker_and_none_is_lost_when_a_pull_is_given_up() {
    let broker = Broker::start().await;
    let other = broker.another_bus().await;
    let mut one = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let mut two = JobSource::open(&other, Lane::Interactive).await.unwrap();
    let tenant = tenant();
    let mut published = Vec::new();
    let mut taken = Vec::new();
    for round in 0..50 {
        published.push(publish(&broker.bus, tenant, Lane::Interactive).await);
        // Given up at arbitrary points: what arrives is kept for the next call.
        let patience = Duration::from_micros(round * 20);
        for source in [&mut one, &mut two] {
            if let Ok(jobs) = tokio::time::timeout(patience, source.pull(4, EXPIRES)).await {
                taken.extend(jobs.unwrap());
            }
        }
    }
    soon(async {
        while taken.len() < published.len() {
            tokio::select! {
                jobs = one.pull(4, EXPIRES) => taken.extend(jobs.unwrap()),
                jobs = two.pull(4, EXPIRES) => taken.extend(jobs.unwrap()),
            }
        }
    })
    .await;
    let mut runs: Vec<_> = taken.iter().map(run_of).collect();
    runs.sort_unstable();
    published.sort_unstable();
    assert_eq!(runs, published);
    assert!(taken.iter().all(|job| job.delivered == 1));
}

#[tokio::test]
async fn a_job_given_back_is_delivered_again_at_once_or_after_its_delay() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let run_id = publish(&broker.bus, tenant(), Lane::Interactive).await;

    let first = pull_one(&mut source).await;
    first.nak_confirmed(None).await.unwrap();
    let second = pull_one(&mut source).await;
    assert_eq!((run_of(&second), second.delivered), (run_id, 2));
    assert_eq!(second.stream_seq, first.stream_seq);

    let delay = Duration::from_millis(600);
    second.nak(Some(delay)).await.unwrap();
    let start = Instant::now();
    let third = pull_one(&mut source).await;
    assert!(
        start.elapsed() + Duration::from_millis(50) >= delay,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(third.delivered, 3);
    third.ack_confirmed().await.unwrap();
}

#[tokio::test]
async fn a_job_without_a_sign_of_life_goes_to_another_and_one_in_progress_does_not() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let tenant = tenant();
    publish(&broker.bus, tenant, Lane::Interactive).await;
    let kept = pull_one(&mut source).await;
    publish(&broker.bus, tenant, Lane::Interactive).await;
    let forgotten = pull_one(&mut source).await;

    let handle = kept.in_progress_handle();
    let ticker = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            handle.in_progress_confirmed().await.unwrap();
        }
    };
    let again = tokio::select! {
        again = pull_one(&mut source) => again,
        () = ticker => unreachable!("the ticker never ends"),
    };
    assert_eq!(again.stream_seq, forgotten.stream_seq);
    kept.ack_confirmed().await.unwrap();
}

#[tokio::test]
async fn what_is_no_job_is_reported_and_quarantined() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let context = jetstream::new(client);
    let tenant = tenant();
    let subjects = [
        (
            format!("jobs.{tenant}.interactive"),
            "not json",
            "not a job",
        ),
        (
            format!("jobs.{tenant}.interactive"),
            r#"{"v":9}"#,
            "version 9",
        ),
        (
            "jobs.acme.interactive".to_owned(),
            "{}",
            "`acme` is not a tenant id",
        ),
    ];
    for (subject, body, _) in &subjects {
        context
            .publish(subject.clone(), (*body).into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let dead = context.get_stream("DEAD").await.unwrap();
    for (n, (subject, body, reason)) in (1..).zip(&subjects) {
        let delivery = pull_one(&mut source).await;
        let bad = delivery.job.as_ref().unwrap_err();
        assert!(bad.reason.contains(reason), "{}", bad.reason);
        let first = broker.bus.quarantine(&delivery, &bad.reason).await.unwrap();
        let repeated = broker.bus.quarantine(&delivery, &bad.reason).await.unwrap();
        assert_eq!((first, repeated), (n, n), "one copy");
        delivery.ack_confirmed().await.unwrap();

        let copy = dead.get_raw_message(n).await.unwrap();
        assert_eq!(copy.subject.as_str(), format!("dead.{subject}"));
        assert_eq!(copy.payload, body.as_bytes());
        let noted = copy.headers.get("Baton-Reason").unwrap().as_str();
        assert!(noted.contains(reason), "{noted}");
    }
    assert_eq!(backlog(&broker.bus).await, (0, 0));
}

#[tokio::test]
async fn a_job_that_is_terminated_never_comes_again() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    publish(&broker.bus, tenant(), Lane::Interactive).await;
    pull_one(&mut source)
        .await
        .term("for the test")
        .await
        .unwrap();
    until(async || {
        broker
            .bus
            .job_backlog(Lane::Interactive)
            .await
            .unwrap()
            .stream_messages
            == 0
    })
    .await;
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
async fn a_pull_outlives_a_restart_of_the_server() {
    let mut broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let publisher = broker.another_bus().await;
    assert!(source.pull(1, EXPIRES).now_or_nothing().await.is_none());
    broker.server.kill().await;
    broker.server.restart().await.unwrap();
    until(async || publisher.is_connected()).await;
    let publishing = async {
        soon(async {
            loop {
                let job = Job::Run { run_id: run() };
                let headers = JobHeaders::default();
                if publisher
                    .publish_job(tenant(), Lane::Interactive, &job, &headers)
                    .await
                    .is_ok()
                {
                    break Instant::now();
                }
            }
        })
        .await
    };
    let (published, job) = tokio::join!(publishing, pull_one(&mut source));
    assert!(
        published.elapsed() < Duration::from_secs(3),
        "not only after the pull's end"
    );
    job.ack_confirmed().await.unwrap();
}

#[tokio::test]
async fn a_missing_consumer_is_waited_for() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    assert!(source.pull(1, EXPIRES).now_or_nothing().await.is_none());
    let context = jetstream::new(broker.client().await);
    context
        .delete_consumer_from_stream("worker-interactive", "JOBS")
        .await
        .unwrap();
    soon(async {
        while source.supply() != Supply::NoConsumer {
            assert!(source.pull(1, EXPIRES).now_or_nothing().await.is_none());
        }
    })
    .await;

    restore_missing(&broker.bus, &options()).await.unwrap();
    let run_id = publish(&broker.bus, tenant(), Lane::Interactive).await;
    assert_eq!(run_of(&pull_one(&mut source).await), run_id);
    assert_eq!(source.supply(), Supply::Flowing);
}

#[tokio::test]
async fn a_stopped_source_gives_back_what_it_had_asked_for() {
    let broker = Broker::start().await;
    let mut stopping = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let mut other = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    assert!(stopping.pull(1, EXPIRES).now_or_nothing().await.is_none());
    until(async || {
        assert!(stopping.pull(1, EXPIRES).now_or_nothing().await.is_none());
        stopping.outstanding() == 1
    })
    .await;
    let stopped = stopping.stop(EXPIRES * 2);
    let run_id = publish(&broker.bus, tenant(), Lane::Interactive).await;
    let ((), job) = tokio::join!(soon(stopped), pull_one(&mut other));
    assert_eq!((run_of(&job), job.delivered), (run_id, 2));
}

/// Guards the search: what waits and what is worked on is not stranded, what no consumer will deliver
/// any more is, and it is found by the subject or by the consumer's position.
#[tokio::test]
async fn messages_that_no_consumer_will_deliver_are_found() {
    let broker = Broker::start().await;
    let stream = jetstream::new(broker.client().await);
    let stream = stream.get_stream(baton_nats::streams::JOBS).await.unwrap();
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let tenant = tenant();
    publish(&broker.bus, tenant, Lane::Interactive).await;
    publish(&broker.bus, tenant, Lane::Background).await;
    let held = pull_one(&mut source).await;
    let none = Stranded::default();
    assert_eq!(broker.bus.stranded_jobs(9).await.unwrap(), none);

    // Somebody has given the consumer a limit, and the job has reached it.
    let name = baton_nats::streams::consumer_name(Lane::Interactive);
    let mut consumer = stream.consumer_info(name).await.unwrap().config;
    consumer.max_deliver = 1;
    let limited = jetstream::consumer::pull::Config::try_from_consumer_config(consumer).unwrap();
    stream.update_consumer(limited).await.unwrap();
    held.nak_confirmed(None).await.unwrap();
    let client = broker.client().await;
    client
        .publish(format!("jobs.{tenant}.nowhere"), "x".into())
        .await
        .unwrap();
    crate::round_trip(&client).await;

    let mut found = Stranded::default();
    until(async || {
        // The broker notices the limit when it is asked for jobs.
        let pulled = source.pull(1, EXPIRES);
        assert!(pulled.now_or_never().is_none());
        found = broker.bus.stranded_jobs(9).await.unwrap();
        found.jobs.len() == 2
    })
    .await;
    assert_eq!(found.passed_by, 1);
    let mut found = found.jobs;
    found.sort_by_key(|job| job.seq);
    let what: Vec<_> = found.iter().map(|job| (job.seq, job.why)).collect();
    assert_eq!(
        what,
        [
            (held.stream_seq, Stranding::PassedBy),
            (held.stream_seq + 2, Stranding::NoConsumer)
        ]
    );
    broker.bus.quarantine_stranded(&found[1]).await.unwrap();
    let letter = broker.bus.dead_letter(1).await.unwrap().unwrap();
    assert_eq!(letter.subject, format!("jobs.{tenant}.nowhere"));
    assert_eq!(&letter.payload[..], b"x");
    assert_eq!(broker.bus.dead_letters().await.unwrap(), 1);
    let left = broker.bus.stranded_jobs(9).await.unwrap();
    assert_eq!((left.jobs.len(), left.passed_by), (1, 1));
}

#[tokio::test]
async fn the_backlog_tells_since_when_the_next_job_waits() {
    let broker = Broker::start().await;
    let mut source = JobSource::open(&broker.bus, Lane::Interactive)
        .await
        .unwrap();
    let tenant = tenant();
    let empty = broker.bus.job_backlog(Lane::Interactive).await.unwrap();
    assert_eq!(empty.next_undelivered_stored_at, None);

    publish(&broker.bus, tenant, Lane::Background).await;
    publish(&broker.bus, tenant, Lane::Interactive).await;
    publish(&broker.bus, tenant, Lane::Interactive).await;
    let first = pull_one(&mut source).await;
    let waiting = broker.bus.job_backlog(Lane::Interactive).await.unwrap();
    assert_eq!(
        (
            waiting.pending,
            waiting.ack_pending,
            waiting.stream_messages
        ),
        (1, 1, 3)
    );
    let second = pull_one(&mut source).await;
    assert_eq!(waiting.next_undelivered_stored_at, Some(second.stored_at));
    assert!(first.stored_at < second.stored_at);

    first.nak(None).await.unwrap();
    let again = pull_one(&mut source).await;
    assert_eq!(again.stream_seq, first.stream_seq);
    let delivered = broker.bus.job_backlog(Lane::Interactive).await.unwrap();
    assert_eq!((delivered.pending, delivered.redelivered), (0, 1));
    assert_eq!(delivered.next_undelivered_stored_at, None);
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

/// Polls long enough for what can be sent to be sent, and gives up.
trait NowOrNothing: Future + Sized {
    async fn now_or_nothing(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_millis(30), self)
            .await
            .ok()
    }
}

impl<F: Future> NowOrNothing for F {}
