//! Waiting and stranded jobs.

use super::*;

/// Guards the search: waiting jobs and jobs in progress are not stranded. Jobs that no consumer
/// will deliver are found by subject or by the consumer's position.
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

    // An operator has set a delivery limit, and the job has reached it.
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
        // The broker applies the limit when jobs are requested.
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
