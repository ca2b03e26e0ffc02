//! Workers that are asked to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::stack::Stack;
use serde_json::json;

use crate::fixture::{
    CountingTool, assert_whole, call, chat, count, gated, gated_call, has_tool_result, model,
    options, run, stack,
};

/// Guards the hand-over: checkpoint and release in one commit, then the confirmed NAK. The worker
/// ends while the run's second step still waits, because a stop takes as long as a step, not as a
/// run.
#[tokio::test]
async fn a_terminated_worker_hands_its_run_over_between_steps_and_its_client_sees_it_whole() {
    let tool = CountingTool::start().await;
    let (turn_gate, end_gate) = (Gate::closed(), Gate::closed());
    let gates = (turn_gate.clone(), end_gate.clone());
    let model = model(move |request| {
        if has_tool_result(request) {
            gated(&["Then ", "this"], &gates.1, &[" end."])
        } else {
            gated_call("First this. ", "count", &json!({}), &gates.0)
        }
    })
    .await;
    let mut options = options(&model);
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, mut first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("First this. ").await.unwrap();

    first.terminate();
    let _second = stack.worker().await.unwrap();
    turn_gate.open();
    assert_eq!(
        first.exit_code().await.unwrap(),
        0,
        "nothing was lost, and it says so"
    );
    answer.until_text("Then this").await.unwrap();
    end_gate.open();
    answer.finish().await.unwrap();

    assert_eq!(answer.error, None);
    assert!(answer.done);
    let (run, events) = assert_whole(&client, &answer.run, "First this. Then this end.").await;
    assert_eq!(answer.text, "First this. Then this end.");
    assert_eq!(run["attempt"], 2);
    assert_eq!(count(&events, "attempt.reset"), 1);
    assert_eq!(tool.calls(), 1);
    assert_eq!(model.counts().requests, 2, "no turn was asked for twice");
}

/// Guards the drain's deadline: a turn that outlasts it is cut, its text is withdrawn, the run is
/// handed over all the same, and no failure is counted.
#[tokio::test]
async fn a_turn_that_outlasts_the_drain_is_cut_and_the_run_handed_over() {
    let model = model(|request| match request.index {
        0..3 => Reply::of_tokens(["never ", "ending"]).hang(),
        _ => Reply::of_tokens(["an ", "end"]),
    })
    .await;
    let options = options(&model)
        .set("BATON_WORKER__DRAIN", "300ms")
        .set("BATON_WORKER__MAX_FAILURES", "2");
    let stack = Stack::start(options).await.unwrap();
    let ingress = stack.ingress().await.unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    for deploy in 1..=3 {
        let mut worker = stack.worker().await.unwrap();
        model.wait_until(|counts| counts.requests == deploy).await;
        worker.terminate();
        assert_eq!(worker.exit_code().await.unwrap(), 0);
    }

    let _last = stack.worker().await.unwrap();

    let (run, events) = assert_whole(&client, &id, "an end").await;
    assert_eq!(run["attempt"], 4, "one attempt for each worker");
    assert_eq!(count(&events, "attempt.reset"), 3);
    assert_eq!(
        model.counts().disconnected,
        3,
        "each cut turn stopped its upstream call"
    );
}

/// Guards the beginning of the drain: the worker takes no new job, and new jobs go to other
/// workers.
#[tokio::test]
async fn a_draining_worker_takes_nothing_new() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated(&["old"], &held, &[]),
        _ => Reply::text("new"),
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, mut first) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let old = client.submit(&run()).await.unwrap();
    model.wait_until(|counts| counts.requests == 1).await;

    first.terminate();
    first.until_unready().await.unwrap();
    let new = client.submit(&run()).await.unwrap();
    let _second = stack.worker().await.unwrap();
    assert_whole(&client, &new, "new").await;
    assert_eq!(
        client.run(&old).await.unwrap()["status"],
        "running",
        "its turn may end"
    );
    gate.open();

    // The run has ended with its only step, so that there is nothing to hand over.
    let (run, _) = assert_whole(&client, &old, "old").await;
    assert_eq!(run["attempt"], 1);
    assert_eq!(first.exit_code().await.unwrap(), 0);
}

/// Guards the exit code: a process that was forced does not report an orderly stop, and its runs
/// are not lost.
#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once_and_its_run_is_taken_over() {
    let model = model(|request| match request.index {
        0 => Reply::of_tokens(["stuck"]).hang(),
        _ => Reply::text("free"),
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, mut first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    model.wait_until(|counts| counts.requests == 1).await;

    first.terminate();
    first.until_unready().await.unwrap();
    first.terminate();
    assert_eq!(first.exit_code().await.unwrap(), 128 + 15);

    let _second = stack.worker().await.unwrap();
    assert_whole(&client, &id, "free").await;
}

/// Guards the product's main promise: a deploy of all workers under load. Every client sees exactly
/// its whole answer, each tool call is made once, and every worker reports that it lost nothing.
#[tokio::test]
async fn a_deploy_of_all_workers_under_load_is_a_pause_and_nothing_more() {
    const CLIENTS: usize = 6;

    let tool = CountingTool::start().await;
    let model = model(|request| {
        let pause = Duration::from_millis(15);
        if has_tool_result(request) {
            Reply::of_tokens(["Then ", "the ", "second ", "part."]).each_after(pause)
        } else {
            call("First the first part. ", "count", &json!({})).each_after(pause)
        }
    })
    .await;
    let mut options = options(&model);
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, mut one, mut two) = tokio::try_join!(
        stack.ingress(),
        stack.scheduler(),
        stack.worker(),
        stack.worker()
    )
    .unwrap();
    let client = stack.client(&ingress);
    let deployed = AtomicBool::new(false);
    let asking = futures_util::future::join_all((0..CLIENTS).map(async |_| {
        let mut runs = Vec::new();
        while !deployed.load(Ordering::SeqCst) {
            let mut answer = client.chat(&chat()).await.unwrap();
            answer.finish().await.unwrap();
            assert_eq!(answer.error, None);
            assert!(answer.done);
            assert_eq!(answer.text, "First the first part. Then the second part.");
            runs.push(answer.run);
        }
        runs
    }));
    let deploying = async {
        for worker in [&mut one, &mut two] {
            let before = model.counts().requests;
            model
                .wait_until(|counts| counts.requests > before + CLIENTS)
                .await;
            worker.terminate();
            assert_eq!(worker.exit_code().await.unwrap(), 0);
            *worker = stack.worker().await.unwrap();
        }
        deployed.store(true, Ordering::SeqCst);
    };
    let (runs, ()) = tokio::join!(asking, deploying);

    let runs: Vec<_> = runs.into_iter().flatten().collect();
    let mut attempts = 0;
    for id in &runs {
        let text = "First the first part. Then the second part.";
        let (run, _) = assert_whole(&client, id, text).await;
        attempts += run["attempt"].as_u64().unwrap();
    }
    assert_eq!(tool.calls(), runs.len(), "one call for each run");
    assert!(attempts > runs.len() as u64, "some run was handed over");
}
