//! Settling deliveries.

use baton_nats::KEPT_OF_A_LETTER;

use super::*;

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

/// Guards DEAD against long letters: it keeps the beginning and the length of each, and does not
/// resubmit a cut one. Before, it kept the whole message.
#[tokio::test]
async fn a_long_letter_keeps_its_beginning_and_its_length() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let subject = format!("jobs.{}.nowhere", tenant());
    let context = jetstream::new(client);
    // JOBS as an older version configured it.
    let mut jobs = context.get_stream("JOBS").await.unwrap();
    let mut config = jobs.info().await.unwrap().config.clone();
    config.max_message_size = -1;
    context.update_stream(&config).await.unwrap();
    let body: Vec<u8> = (0..100_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let stored = context.publish(subject, body.clone().into());
    stored.await.unwrap().await.unwrap();

    let found = broker.bus.stranded_jobs(1).await.unwrap().jobs;
    broker.bus.quarantine_stranded(&found[0]).await.unwrap();
    let letter = broker.bus.dead_letter(1).await.unwrap().unwrap();
    assert_eq!(letter.payload, body[..KEPT_OF_A_LETTER]);
    assert_eq!((letter.length, letter.is_whole()), (100_000, false));
    let refused = broker.bus.replay(&letter).await.unwrap_err().to_string();
    assert!(refused.contains("65536 of its 100000 bytes"), "{refused}");
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
