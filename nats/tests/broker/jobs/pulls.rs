//! Pulling jobs by demand, through outages of the broker.

use super::*;

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
    // Far below any time-out or poll interval, and far above the time needed on a busy machine.
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
        // Dropped at arbitrary points: jobs that arrive are kept for the next call.
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
