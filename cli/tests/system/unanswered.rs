//! Submissions that were accepted and never answered, because their ingress died in between.

use baton_harness::chaos::proxy::{Mode, Proxy};
use baton_harness::client::Client;
use baton_harness::scripted_model::{Reply, ScriptedModel};
use baton_harness::stack::Stack;
use uuid::Uuid;

use crate::fixture::{assert_whole, model, options, run};

/// Starts a stack, and a proxy between its first ingress and the broker.
async fn stack_and_way(model: &ScriptedModel) -> (Stack, Proxy) {
    let stack = Stack::start(options(model).short_lease()).await.unwrap();
    let broker = ([127, 0, 0, 1], stack.nats.port()).into();
    let way = Proxy::start(broker).await.unwrap();
    (stack, way)
}

async fn runs(client: &Client) -> Vec<String> {
    let listed = client.get("/v1/runs").await.unwrap().json().unwrap();
    let runs = listed["data"].as_array().unwrap();
    let id = |run: &serde_json::Value| run["id"].as_str().unwrap().to_owned();
    runs.iter().map(id).collect()
}

/// Guards the run's id, which is committed with the run and serves as its key; and the job, which
/// another process publishes.
#[tokio::test]
async fn a_submission_over_the_bus_that_died_between_commit_and_answer_is_one_run() {
    let model = model(|_| Reply::text("once")).await;
    let (stack, way) = stack_and_way(&model).await;
    let first = stack.ingress_behind(way.address()).await.unwrap();
    let id = Uuid::now_v7().to_string();
    let program = stack.asker(&id).await.unwrap();
    // The broker's messages arrive; those of the ingress are lost.
    way.set(Mode::DropToServer);
    program.submit_unheard(&run()).await.unwrap();
    let client = stack.client(&first);
    let is_it = |found: &serde_json::Value| found["id"] == *id;
    client.run_when(&id, is_it).await.unwrap();
    first.kill().await;

    let (second, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let answer = program.submit(&run()).await.unwrap();

    assert_eq!(
        (&answer["ok"], &answer["replayed"]),
        (&true.into(), &true.into())
    );
    let client = stack.client(&second);
    let (recorded, _) = assert_whole(&client, &id, "once").await;
    assert_eq!(recorded["attempt"], 1);
    assert_eq!(runs(&client).await, [id]);
    assert_eq!(model.counts().requests, 1);
}

/// Guards the same for an `Idempotency-Key`.
#[tokio::test]
async fn a_request_whose_ingress_died_between_commit_and_answer_is_one_run() {
    let model = model(|_| Reply::text("once")).await;
    let (stack, way) = stack_and_way(&model).await;
    let first = stack.ingress_behind(way.address()).await.unwrap();
    let client = stack.client(&first);
    way.set(Mode::DropToServer);
    let key = [("idempotency-key", "key-1")];
    let body = run();
    // Its job is not confirmed, and until then the request is not answered.
    let asking = client.post_with("/v1/runs", &key, &body);
    let dying = async {
        while runs(&client).await.is_empty() {}
        first.kill().await;
    };
    let (unanswered, ()) = tokio::join!(asking, dying);
    unanswered.unwrap_err();

    let (second, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&second);
    let answer = client.post_with("/v1/runs", &key, &body).await.unwrap();

    assert_eq!(answer.status, 202, "{}", answer.text().unwrap());
    let id = answer.json().unwrap()["id"].as_str().unwrap().to_owned();
    let (recorded, _) = assert_whole(&client, &id, "once").await;
    assert_eq!(recorded["attempt"], 1);
    assert_eq!(runs(&client).await, [id]);
    assert_eq!(model.counts().requests, 1);
}
