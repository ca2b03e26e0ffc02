//! A broker that crashes, loses its newest writes, or loses its disk.

use std::time::Duration;

use baton_harness::scripted_model::{Gate, Reply};
use baton_nats::JobSource;
use baton_protocol::Lane;

use crate::fixture::{assert_whole, chat, gated, model, run, stack};

/// Guards the frozen append: the same bytes are repeated until their fate is known, so that text is
/// neither lost nor doubled. Guards the follower too, which fetches the events that it missed.
#[tokio::test]
async fn a_broker_crash_in_the_middle_of_an_answer_costs_nothing_but_time() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |_| gated(&["before ", "the crash, "], &held, &["behind ", "it"])).await;
    let mut stack = stack(&model).await;
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut native = client.events(&id, None).await.unwrap();
    native.until("text.delta").await.unwrap();
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("the crash, ").await.unwrap();

    stack.nats.kill().await;
    // Text arrives while there is no broker.
    gate.open();
    model.wait_until(|counts| counts.finished == 2).await;
    stack.nats.restart().await.unwrap();
    answer.finish().await.unwrap();

    let text = "before the crash, behind it";
    assert_eq!((answer.error, &*answer.text), (None, text));
    let (_, events) = assert_whole(&client, &id, text).await;
    assert_eq!(native.rest().await.unwrap(), events);
    let (recorded, _) = assert_whole(&client, &answer.run, text).await;
    assert_eq!(recorded["attempt"], 1, "nobody lost its lease");
    assert_eq!(worker.metric("baton_leases_lost_total").await.unwrap(), 0);
    // The next run works too.
    let next = client.submit(&run()).await.unwrap();
    assert_whole(&client, &next, text).await;
}

/// Guards acceptance: the row is the run, so its job can be published again when the broker has
/// lost its disk. Before that, the scheduler makes the streams and consumers again.
#[tokio::test]
async fn accepted_runs_still_end_when_the_broker_has_lost_everything() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated(&["caught ", "in it, "], &held, &["out ", "again"]),
        _ => Reply::text("waited"),
    })
    .await;
    let options = crate::fixture::options(&model)
        .short_lease()
        .set("BATON_WORKER__SLOTS", "1")
        .set("BATON_WORKER__INTERACTIVE_SLOTS", "0");
    let mut stack = baton_harness::stack::Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let running = client.submit(&run()).await.unwrap();
    model.wait_until(|counts| counts.requests == 1).await;
    let mut queued = Vec::new();
    for _ in 0..5 {
        queued.push(client.submit(&run()).await.unwrap());
    }

    stack.wipe_broker().await.unwrap();
    let _scheduler = stack.scheduler().await.unwrap();
    gate.open();

    let run = client.ended(&running).await.unwrap();
    assert_eq!(run["status"], "completed", "{run:#}");
    for id in queued {
        assert_whole(&client, &id, "waited").await;
    }
}

/// Guards the outbox: a queued run with a job that is provably gone gets a new one.
#[tokio::test]
async fn a_queued_run_whose_job_was_lost_is_published_again() {
    let model = model(|_| Reply::text("found")).await;
    let options = crate::fixture::options(&model).short_lease();
    let stack = baton_harness::stack::Stack::start(options).await.unwrap();
    let ingress = stack.ingress().await.unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let bus = stack.bus().await.unwrap();
    let mut jobs = JobSource::open(&bus, Lane::Interactive).await.unwrap();
    for delivery in jobs.pull(1, Duration::from_secs(5)).await.unwrap() {
        // A consumer takes the job and does nothing.
        delivery.ack_confirmed().await.unwrap();
    }
    drop(jobs);
    let _worker = stack.worker().await.unwrap();

    let scheduler = stack.scheduler().await.unwrap();

    assert_whole(&client, &id, "found").await;
    assert_eq!(
        scheduler
            .metric("baton_jobs_republished_total")
            .await
            .unwrap(),
        1
    );
}

/// Guards the commit before the publish: a run that was accepted while its job could not be stored
/// is executed all the same.
#[tokio::test]
async fn a_run_that_waits_through_a_broker_crash_is_worked_on() {
    let model = model(|_| Reply::text("patient")).await;
    let mut stack = stack(&model).await;
    let ingress = stack.ingress().await.unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();

    stack.crash_broker().await.unwrap();
    let _worker = stack.worker().await.unwrap();

    let (run, _) = assert_whole(&client, &id, "patient").await;
    assert_eq!(run["attempt"], 1);
}

/// Guards the count of failures: an outage that lasts longer than a lease is no failure of the run.
#[tokio::test]
async fn a_run_survives_outages_of_the_broker_that_outlast_its_lease() {
    let model = model(|request| match request.index {
        0..2 => Reply::of_tokens(["cut ", "off"]).hang(),
        _ => Reply::of_tokens(["through"]),
    })
    .await;
    let options = crate::fixture::options(&model)
        .short_lease()
        .set("BATON_WORKER__MAX_FAILURES", "1");
    let mut stack = baton_harness::stack::Stack::start(options).await.unwrap();
    let (ingress, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    for outage in 1..=2 {
        model.wait_until(|counts| counts.requests == outage).await;
        stack.nats.kill().await;
        // The worker gives up its attempt by itself.
        model
            .wait_until(|counts| counts.disconnected == outage)
            .await;
        stack.nats.restart().await.unwrap();
    }

    let (run, _) = assert_whole(&client, &id, "through").await;
    assert_eq!(run["attempt"], 3);
}

/// Guards the same against a broker that lost its newest writes: the ledger answers the old
/// messages that the broker delivers again, and lost jobs are published again.
#[tokio::test]
async fn accepted_runs_still_end_when_the_broker_comes_back_with_an_older_disk() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => Reply::text("long ago"),
        1 => gated(&["in the ", "middle "], &held, &["of it"]),
        _ => Reply::text("accepted later"),
    })
    .await;
    let options = crate::fixture::options(&model)
        .short_lease()
        .set("BATON_WORKER__SLOTS", "1")
        .set("BATON_WORKER__INTERACTIVE_SLOTS", "0");
    let mut stack = baton_harness::stack::Stack::start(options).await.unwrap();
    let (ingress, _scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let old = client.submit(&run()).await.unwrap();
    // Its job is on the older disk, not delivered yet.
    let backup = stack.back_up_broker().await.unwrap();
    let _worker = stack.worker().await.unwrap();
    client.ended(&old).await.unwrap();
    let middle = client.submit(&run()).await.unwrap();
    model.wait_until(|counts| counts.requests == 2).await;
    let mut later = Vec::new();
    for _ in 0..3 {
        later.push(client.submit(&run()).await.unwrap());
    }

    stack.restore_broker(&backup).await.unwrap();
    gate.open();

    let middle = client.ended(&middle).await.unwrap();
    assert_eq!(middle["status"], "completed", "{middle:#}");
    for id in later {
        assert_whole(&client, &id, "accepted later").await;
    }
    // Its job was delivered again and not executed again.
    let old = client.run(&old).await.unwrap();
    assert_eq!(
        (&old["status"], &old["attempt"]),
        (&"completed".into(), &1.into())
    );
    assert_eq!(model.counts().requests, 5);
}

/// Guards the sweep of ended runs: the broker lost its disk, and with it the run's terminal event
/// and the job with which a worker might have repeated it.
#[tokio::test]
async fn the_end_of_a_run_that_the_broker_lost_is_told_again() {
    let model = model(|_| Reply::text("well said")).await;
    let mut stack = crate::fixture::stack(&model).await;
    let (ingress, scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    assert_whole(&client, &id, "well said").await;

    stack.wipe_broker().await.unwrap();

    scheduler
        .until_metric("baton_ends_told_total", 1)
        .await
        .unwrap();
    let bus = stack.bus().await.unwrap();
    let stored = bus.events_state().await.unwrap();
    assert_eq!(stored.last_seq, 1, "its end, once");
    // The events before it are gone, and are rebuilt from the ledger.
    assert_whole(&client, &id, "well said").await;
}
