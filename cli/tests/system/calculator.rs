//! Expensive calls of the calculator, and their effect on other tenants.

use std::num::NonZero;
use std::time::Duration;

use baton_harness::scripted_model::{Piece, Reply};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::fixture::{calling, chat, has_tool_result, model, run, stack};

/// Makes eight calls at once, each of them longer than any tool may take.
fn dear_calls() -> Reply {
    let arguments = json!({"expression": "9^9^9"}).to_string();
    let calls = (0..8).map(|index| Piece::ToolCall {
        index,
        id: format!("call_{index}"),
        name: "calculator".to_owned(),
        fragments: vec![arguments.clone()],
    });
    Reply::pieces(calls).ended("tool_calls")
}

/// Guards the processors of a worker: one tenant's computations take a few threads, no matter how
/// many it requests, and another tenant's computation is done meanwhile.
#[tokio::test]
async fn computations_of_one_tenant_leave_the_processors_to_another() {
    let model = model(|request| {
        let dear = request.last_text("user").unwrap_or_default() == "dear";
        match (has_tool_result(request), dear) {
            (true, _) => Reply::text("done"),
            (false, true) => dear_calls(),
            (false, false) => {
                let cheap = json!({"expression": "6*7"});
                Reply::pieces(calling("", "calculator", &cheap)).ended("tool_calls")
            }
        }
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let create = ["keys", "create", "--tenant", "other", "--name", "other"];
    let other = stack.run(&create).await.unwrap();
    let (hostile, other) = (stack.client(&ingress), ingress.client(other.trim()));

    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    // A thread returns its permit just before it ends, so that each may already have a successor.
    let most = 2 * ((cores / 2).max(1) + 1);
    let mut seen = 0;
    let watch = async {
        loop {
            seen = seen.max(worker.threads("calculator"));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let asked = async {
        let dear = json!({"model": "script", "input": "dear"});
        let runs = try_join_all((0..12).map(|_| hostile.submit(&dear)));
        let runs = runs.await.unwrap();
        // All calls are running or waiting now.
        model
            .wait_until(|counts| counts.finished >= runs.len())
            .await;
        for _ in 0..3 {
            let mut answer = other.chat(&chat()).await.unwrap();
            answer.finish().await.unwrap();
            assert!(answer.done, "{:?}", answer.error);
        }
        runs
    };
    let runs = tokio::select! {
        () = watch => unreachable!("it watches for ever"),
        runs = asked => runs,
    };
    assert!((1..=most).contains(&seen), "{seen} threads, {most} at most");
    let id = other.submit(&run()).await.unwrap();
    assert_eq!(other.ended(&id).await.unwrap()["status"], "completed");
    for id in &runs {
        hostile.cancel(id).await.unwrap();
    }
}
