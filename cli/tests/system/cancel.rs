//! Runs that a client cancels.

use std::time::Duration;

use baton_harness::client::check_log;
use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::stack::Stack;
use baton_nats::StreamSeq;
use baton_protocol::{Event, RunId};
use baton_store::CancelRequest;
use serde_json::json;

use crate::fixture::{
    CountingTool, assert_cut, assert_ended, assert_whole, call, chat, count, gated, model, options,
    run, stack,
};

/// Guards the ending from outside: it takes an attempt of its own. The process that ends the run
/// appends the event, because there is no worker to do it.
#[tokio::test]
async fn a_queued_run_is_cancelled_although_no_worker_runs() {
    let model = model(|_| Reply::text("too late")).await;
    let stack = stack(&model).await;
    let ingress = stack.ingress().await.unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let follower = client.events(&id, None).await.unwrap();

    let cancelled = client.cancel(&id).await.unwrap();
    assert_eq!(cancelled.status, 200);
    assert_eq!(cancelled.json().unwrap()["status"], "cancelled");
    assert_eq!(
        client.cancel(&id).await.unwrap().status,
        200,
        "once more changes nothing"
    );

    let seen = follower.rest().await.unwrap();
    assert_eq!(count(&seen, "run.cancelled"), 1);
    let _worker = stack.worker().await.unwrap();
    let next = client.submit(&run()).await.unwrap();
    assert_whole(&client, &next, "too late").await;
    assert_ended(&client, &id, "cancelled").await;
    assert_eq!(
        model.counts().requests,
        1,
        "its job was still there and did nothing"
    );
}

/// Guards the mark of the commit: no job leads to a run that was cancelled while it waited, and the process that
/// cancelled it may die before it appends the last event.
#[tokio::test]
async fn the_end_of_a_cancelled_run_is_appended_although_its_canceller_died() {
    let model = model(|_| Reply::text("too late")).await;
    let stack = stack(&model).await;
    let (ingress, scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let (tenant, store, bus) =
        tokio::try_join!(stack.tenant(), stack.store(), stack.bus()).unwrap();
    // The scheduler's first look takes all recent ends, so the second run shows the mark's work.
    for told in [1, 2] {
        let id: RunId = client.submit(&run()).await.unwrap().parse().unwrap();

        let mut tx = store.tenant(tenant).await.unwrap();
        let cancelled = tx.request_cancel(id, "api_request").await.unwrap();
        tx.commit().await.unwrap();

        scheduler
            .until_metric("baton_ends_told_total", told)
            .await
            .unwrap();
        let CancelRequest::Ended(ended) = cancelled else {
            panic!("{cancelled:?}");
        };
        let log = bus
            .read_events(tenant, id, StreamSeq::NONE, 10)
            .await
            .unwrap();
        let last = Event::decode(&log.last().unwrap().payload).unwrap();
        assert_eq!(last.id, ended.last_event_id);
        assert!(last.data.is_terminal());
    }
    let system = store.system();
    // The marks are taken back behind the count.
    while !system
        .unlogged_ends(Duration::ZERO, 10)
        .await
        .unwrap()
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
}

/// Guards the nudge, and the renewal in case it is lost: the turn's future is dropped, and with it
/// the upstream's connection.
#[tokio::test]
async fn cancelling_a_running_run_stops_its_upstream_call() {
    let model = model(|_| Reply::of_tokens(["on and on"]).hang()).await;
    let stack = stack(&model).await;
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("on and on").await.unwrap();

    assert_eq!(client.cancel(&answer.run).await.unwrap().status, 202);

    model.wait_until(|counts| counts.disconnected == 1).await;
    answer.finish().await.unwrap();
    assert_eq!(answer.error.unwrap()["code"], "run_cancelled");
    let (run, events) = assert_ended(&client, &answer.run, "cancelled").await;
    assert_eq!(run["attempt"], 1, "its holder ended it");
    assert_cut(&run, &events, "on and on");
    let told = &events.last().unwrap().event["data"];
    assert_eq!(told["reason"], "api_request");
    assert!(told["cancel_latency_ms"].is_u64(), "{told}");
    assert_eq!(run["cancel_latency_ms"], told["cancel_latency_ms"]);
    let measured = worker.metric("baton_cancel_latency_seconds_count").await;
    assert_eq!(measured.unwrap(), 1);
    assert_eq!(worker.metric("baton_worker_active_runs").await.unwrap(), 0);
    assert_eq!(client.cancel(&answer.run).await.unwrap().status, 200);
}

/// Guards the same for tools: an active call is given up, and is not recorded as if it had ended.
#[tokio::test]
async fn cancelling_a_run_gives_up_the_tool_call_that_is_at_work() {
    let tool = CountingTool::start_behind(Gate::closed()).await;
    let model = model(|_| call("Counting. ", "count", &json!({}))).await;
    let mut options = options(&model);
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    tool.until_called().await;

    assert_eq!(client.cancel(&id).await.unwrap().status, 202);

    tool.until_abandoned().await;
    let (run, events) = assert_ended(&client, &id, "cancelled").await;
    let steps = run["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "the turn and its call");
    assert_eq!(
        (&steps[1]["kind"], &steps[1]["state"]),
        (&json!("call"), &json!("started"))
    );
    assert_eq!(
        (
            count(&events, "tool.started"),
            count(&events, "tool.finished")
        ),
        (1, 0)
    );
    assert!(run["usage"]["estimated"].is_null(), "the turn was whole");
    assert_eq!(worker.metric("baton_worker_active_runs").await.unwrap(), 0);
    assert_eq!(tool.calls(), 1);
}

/// Guards the flag in the row: a worker that died cannot answer, so the next claim ends the run.
#[tokio::test]
async fn a_run_is_cancelled_after_its_worker_died() {
    let model = model(|_| Reply::of_tokens(["orphaned"]).hang()).await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut follower = client.events(&id, None).await.unwrap();
    follower.until("text.delta").await.unwrap();
    first.kill().await;
    assert_eq!(
        client.cancel(&id).await.unwrap().status,
        202,
        "its lease has not run out"
    );

    let _second = stack.worker().await.unwrap();

    let (_, events) = assert_ended(&client, &id, "cancelled").await;
    assert_eq!(follower.rest().await.unwrap(), events);
    assert_eq!(model.counts().requests, 1, "nobody worked on it again");
}

/// Guards the ending from outside of a run that had a holder before: its followers get the event
/// without a worker.
#[tokio::test]
async fn a_run_that_was_handed_over_is_cancelled_although_no_worker_runs() {
    let model = model(|_| Reply::of_tokens(["withdrawn"]).hang()).await;
    let stack = Stack::start(options(&model).set("BATON_WORKER__DRAIN", "200ms"))
        .await
        .unwrap();
    let (ingress, _scheduler, mut worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let mut follower = client.events(&id, None).await.unwrap();
    follower.until("text.delta").await.unwrap();
    worker.terminate();
    assert_eq!(worker.exit_code().await.unwrap(), 0);

    assert_eq!(client.cancel(&id).await.unwrap().status, 200);

    let seen = follower.rest().await.unwrap();
    assert_eq!(seen.last().unwrap().kind, "run.cancelled");
    let (_, events) = assert_ended(&client, &id, "cancelled").await;
    assert_eq!(seen, events);
    assert_eq!(baton_harness::client::shown_text(&events), "");
}

/// Guards the attachment: a chat belongs to its connection, a native run does not.
#[tokio::test]
async fn a_chat_client_that_leaves_cancels_its_run_and_a_native_one_does_not() {
    let model = model(|_| Reply::of_tokens(["for whom"]).hang()).await;
    let stack = stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let native = client.submit(&run()).await.unwrap();
    let mut follower = client.events(&native, None).await.unwrap();
    follower.until("text.delta").await.unwrap();
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("for whom").await.unwrap();

    let left = answer.run.clone();
    drop(follower);
    drop(answer);

    model.wait_until(|counts| counts.disconnected == 1).await;
    let (run, _) = assert_ended(&client, &left, "cancelled").await;
    assert_eq!(run["error"]["message"], "client_closed");
    assert_eq!(client.run(&native).await.unwrap()["status"], "running");
    assert_eq!(model.counts().open, 1);
}

/// Guards the single winner: at any moment of a cancel, the run ends once. Its followers learn it
/// at once, and not only when a lease expires or the broker redelivers.
#[tokio::test]
async fn a_cancel_that_races_the_end_has_one_winner_and_holds_up_nobody() {
    const ROUNDS: u32 = 40;
    const LAST: u64 = ROUNDS as u64 - 1;

    let gates: Vec<_> = (0..ROUNDS).map(|_| Gate::closed()).collect();
    let held = gates.clone();
    let model = model(move |request| gated(&["quick"], &held[request.index], &[])).await;
    let options = options(&model)
        .set("BATON_WORKER__LEASE", "5m")
        .set("BATON_WORKER__RENEW_EVERY", "1m");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut completed = 0;
    for (round, gate) in (0..).zip(&gates) {
        let id = client.submit(&run()).await.unwrap();
        let mut follower = client.events(&id, None).await.unwrap();
        follower.until("text.delta").await.unwrap();
        // The first turn ends after its cancel, and the last cancel comes after the turn's end. The
        // delays between them range from long before the end to long after it.
        let ending = async {
            match round {
                0 => drop(client.ended(&id).await.unwrap()),
                _ => tokio::time::sleep(Duration::from_millis(ROUNDS.into()) / 2).await,
            }
            gate.open();
        };
        let cancelling = async {
            match round {
                LAST => drop(client.ended(&id).await.unwrap()),
                _ => tokio::time::sleep(Duration::from_millis(round)).await,
            }
            client.cancel(&id).await.unwrap()
        };
        let (_, (), seen) = tokio::join!(cancelling, ending, follower.rest());
        let seen = seen.unwrap();
        check_log(&seen).unwrap();
        let run = client.ended(&id).await.unwrap();
        let end = format!("run.{}", run["status"].as_str().unwrap());
        assert_eq!(
            seen.last().unwrap().kind,
            end,
            "the ledger and the events agree"
        );
        completed += u32::from(run["status"] == "completed");
    }
    assert!(
        0 < completed && completed < ROUNDS,
        "{completed} of {ROUNDS} completed: there was no race"
    );
}
