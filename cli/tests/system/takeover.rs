//! Workers that die, or seem to die.

use std::net::Ipv4Addr;

use baton_harness::chaos::proxy::{Mode, Proxy};
use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::stack::Stack;
use serde_json::json;

use crate::fixture::{
    CountingTool, assert_ended, assert_whole, call, chat, count, gated, has_tool_result, model,
    options, run, until_dead,
};

/// Guards the step ledger: a recorded result is replayed and its tool is not called again. Guards
/// the takeover too: the lease expires, and the job is redelivered or published again by the
/// scheduler.
#[tokio::test]
async fn a_run_whose_worker_is_killed_is_finished_by_another_and_no_recorded_call_is_repeated() {
    let tool = CountingTool::start().await;
    // The first worker dies before the second turn has shown anything.
    let model = model(|request| match request.index {
        0 => call("Let me count. ", "count", &json!({})),
        1 => Reply::tokens(0).hang(),
        _ => Reply::text(request.last_text("tool").unwrap_or("nothing")),
    })
    .await;
    let mut options = options(&model).short_lease();
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);

    let mut answer = client.chat(&chat()).await.unwrap();
    model.wait_until(|counts| counts.requests == 2).await;
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    answer.finish().await.unwrap();

    assert_eq!(
        answer.error, None,
        "what was shown stands: the client notices a pause"
    );
    assert_eq!(answer.text, "Let me count. counted 1");
    assert!(answer.done);
    assert_eq!(tool.calls(), 1);
    let (run, events) = assert_whole(&client, &answer.run, &answer.text).await;
    assert_eq!(run["attempt"], 2);
    assert_eq!(count(&events, "attempt.reset"), 1);
    assert_eq!(count(&events, "tool.finished"), 1, "nor is it shown twice");
}

/// Guards the watch over the workers: with a lease of half an hour, nothing else would find the
/// runs in time. No recorded call is repeated either.
#[tokio::test]
async fn runs_of_a_killed_worker_are_taken_long_before_their_leases_run_out() {
    let tool = CountingTool::start().await;
    let model = model(|request| match (has_tool_result(request), request.index) {
        (false, _) => call("Let me count. ", "count", &json!({})),
        (true, ..6) => Reply::tokens(0).hang(),
        (true, _) => Reply::text("Counted."),
    })
    .await;
    let mut options = options(&model).long_lease();
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    scheduler
        .until_metric("baton_workers_seen", 1)
        .await
        .unwrap();
    let client = stack.client(&ingress);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(client.submit(&run()).await.unwrap());
    }
    model.wait_until(|counts| counts.requests == 6).await;

    first.kill().await;
    let _second = stack.worker().await.unwrap();

    for id in ids {
        let (run, _) = assert_whole(&client, &id, "Let me count. Counted.").await;
        assert_eq!(run["attempt"], 2);
    }
    assert_eq!(tool.calls(), 3);
    let early = scheduler.metric("baton_runs_taken_early_total").await;
    assert_eq!(early.unwrap(), 3);
}

/// Guards the sign of life: a worker that lost its broker, and that no scheduler sees, keeps its
/// runs as long as it reaches the ledger, and resumes when the broker is back.
#[tokio::test]
async fn nothing_is_taken_early_from_a_worker_that_lives_without_its_broker() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |_| gated(&["One ", "run, "], &held, &["one ", "attempt."])).await;
    let stack = Stack::start(options(&model).long_lease()).await.unwrap();
    let broker = (Ipv4Addr::LOCALHOST, stack.nats.port()).into();
    let proxy = Proxy::start(broker).await.unwrap();
    let (ingress, scheduler, worker) = tokio::try_join!(
        stack.ingress(),
        stack.scheduler(),
        stack.worker_behind(proxy.address())
    )
    .unwrap();
    scheduler
        .until_metric("baton_workers_seen", 1)
        .await
        .unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("One run, ").await.unwrap();

    proxy.set(Mode::Cut);
    // The run was due for a requeue more than once.
    scheduler
        .until_metric("baton_runs_spared_total", 2)
        .await
        .unwrap();
    gate.open();
    proxy.set(Mode::Pass);
    answer.finish().await.unwrap();

    assert_eq!(answer.text, "One run, one attempt.");
    let (run, _) = assert_whole(&client, &answer.run, &answer.text).await;
    assert_eq!(run["attempt"], 1);
    let early = scheduler.metric("baton_runs_taken_early_total").await;
    assert_eq!(early.unwrap(), 0);
    assert_eq!(worker.metric("baton_leases_lost_total").await.unwrap(), 0);
}

/// Guards the reset: text that no commit names is withdrawn for good, and a client that cannot
/// withdraw it gets an error.
#[tokio::test]
async fn a_chat_that_was_shown_text_of_a_lost_turn_ends_with_an_error_that_names_the_run() {
    let model = model(|request| match request.index {
        0 => Reply::of_tokens(["Half ", "an"]).hang(),
        _ => Reply::of_tokens(["A whole ", "answer."]),
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);

    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("Half an").await.unwrap();
    let mut native = client.events(&answer.run, None).await.unwrap();
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    answer.finish().await.unwrap();

    let error = answer.error.unwrap();
    assert_eq!(error["code"], "answer_withdrawn", "{error}");
    assert!(error["message"].as_str().unwrap().contains(&answer.run));
    assert_eq!(answer.text, "Half an");
    assert!(!answer.done);
    // The server ended its stream: the run goes on, and a native client sees it whole.
    let (_, events) = assert_whole(&client, &answer.run, "A whole answer.").await;
    native.until("run.completed").await.unwrap();
    assert_eq!(native.seen, events, "live and later are the same");
}

/// Guards the fence: a worker that slept through its lease appends and commits nothing, although it
/// still believes in its attempts when it wakes, and its models have answered.
#[tokio::test]
async fn a_worker_frozen_past_its_lease_is_refused_and_leaves_no_trace() {
    // Several runs, so that some write before the keeper of their lease has asked the ledger.
    const RUNS: usize = 20;

    let (first_gate, second_gate) = (Gate::closed(), Gate::closed());
    let gates = (first_gate.clone(), second_gate.clone());
    let model = model(move |request| {
        if request.index < RUNS {
            gated(&["zombie "], &gates.0, &["speaks"])
        } else {
            gated(&["the rightful "], &gates.1, &["answer"])
        }
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, zombie) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut followed = Vec::new();
    for _ in 0..RUNS {
        let id = client.submit(&run()).await.unwrap();
        let mut events = client.events(&id, None).await.unwrap();
        events.until("text.delta").await.unwrap();
        followed.push((id, events));
    }

    zombie.freeze();
    let second = stack.worker().await.unwrap();
    for (_, events) in &mut followed {
        events.until("attempt.reset").await.unwrap();
        events.until("text.delta").await.unwrap();
    }
    // Its models finish the old answers before it wakes.
    first_gate.open();
    model.wait_until(|counts| counts.finished == RUNS).await;
    zombie.thaw();
    let lost = "baton_leases_lost_total";
    zombie.until_metric(lost, RUNS as u64).await.unwrap();
    second_gate.open();

    for (id, events) in followed {
        let (run, all) = assert_whole(&client, &id, "the rightful answer").await;
        assert_eq!(run["attempt"], 2);
        let after_reset = all.iter().skip_while(|event| event.kind != "attempt.reset");
        assert!(
            after_reset.into_iter().all(|event| event.attempt() == 2),
            "nothing of the first attempt follows the reset: {all:#?}"
        );
        assert_eq!(events.rest().await.unwrap(), all);
    }
    assert_eq!(second.metric(lost).await.unwrap(), 0);
}

/// Guards the compare of the claim: any number of workers may race for the expired lease and the
/// copies of its job, but one attempt follows the other, and each run completes once.
#[tokio::test]
async fn many_runs_of_a_killed_worker_are_each_finished_once() {
    let model = model(|request| {
        if request.index < 10 {
            Reply::of_tokens(["lost"]).hang()
        } else {
            Reply::of_tokens(["kept ", "text"])
        }
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.submit(&run()).await.unwrap());
    }
    model.wait_until(|counts| counts.requests == 10).await;

    first.kill().await;
    let _others = tokio::try_join!(stack.worker(), stack.worker()).unwrap();

    for id in ids {
        let (run, _) = assert_whole(&client, &id, "kept text").await;
        assert_eq!(run["attempt"], 2);
    }
    assert_eq!(
        model.counts().requests,
        20,
        "no run was worked on by two at once"
    );
}

/// Guards the failure count: a run that crashes its worker each time ends, with a reason.
#[tokio::test]
async fn a_run_that_loses_every_worker_fails_after_its_allowed_failures() {
    let model = model(|_| Reply::tokens(1).hang()).await;
    let options = options(&model)
        .short_lease()
        .set("BATON_WORKER__MAX_FAILURES", "2");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler) = tokio::try_join!(stack.ingress(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    for asked in 1..=2 {
        let worker = stack.worker().await.unwrap();
        model.wait_until(|counts| counts.requests == asked).await;
        worker.kill().await;
    }

    let _last = stack.worker().await.unwrap();

    let (run, events) = assert_ended(&client, &id, "failed").await;
    assert_eq!(run["error"]["code"], "max_failures");
    let listed = until_dead(&stack, &id).await;
    assert!(listed.contains("max_failures: 2 workers"), "{listed}");
    assert_eq!(
        baton_harness::client::shown_text(&events),
        "",
        "what was shown is withdrawn"
    );
    assert_eq!(model.counts().requests, 2);
}
