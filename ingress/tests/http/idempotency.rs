//! One idempotency key, one run, one answer.

use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, run_of, soon};

#[tokio::test]
async fn the_same_chat_again_is_attached_to_the_same_run_from_its_first_event() {
    let f = Fixture::start().await;
    let keyed = || f.chat(true).header("idempotency-key", "order-1");
    let (first, mut worker) = tokio::join!(keyed().send(), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker
    });
    // The first connection dies; the second receives everything nevertheless.
    drop(first.unwrap());
    let second = soon(keyed().send()).await.unwrap();
    assert_eq!(run_of(&second), worker.run());
    let mut sse = Sse::of(second);
    assert_eq!(sse.json().await["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(sse.json().await["choices"][0]["delta"]["content"], "Hel");
    worker.say("lo").await;
    assert_eq!(sse.json().await["choices"][0]["delta"]["content"], "lo");
    worker.complete().await;
    assert_eq!(sse.rest().await.last().unwrap().data, "[DONE]");
    assert!(!f.record(worker.run()).await.cancel_requested);

    // After the end as well: from the ledger, also on another server.
    let (other, _shutdown) = f.another_ingress().await;
    for base in [&f.base, &other] {
        let third = f
            .chat_at(base, true)
            .header("idempotency-key", "order-1")
            .send();
        let third = soon(third).await.unwrap();
        assert_eq!(run_of(&third), worker.run());
        let text: String = Sse::of(third)
            .rest()
            .await
            .iter()
            .filter_map(|event| serde_json::from_str::<Value>(&event.data).ok())
            .filter_map(|chunk| {
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(text, "Hello");
    }
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let f = Fixture::start().await;
    let create = |input: &str| {
        f.post("/v1/runs", &json!({"model": "m", "input": input}))
            .header("idempotency-key", "k")
    };
    let first = create("one").send().await.unwrap();
    assert_eq!(first.status(), 202);
    let again = create("one").send().await.unwrap();
    assert_eq!(again.status(), 202);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(run_of(&again), run_of(&first));
    let other = create("two").send().await.unwrap();
    assert_eq!(other.status(), 422);
    let problem: Value = serde_json::from_slice(&other.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "idempotency_key_reused");
}

#[tokio::test]
async fn many_at_once_make_one_run() {
    let f = Fixture::start().await;
    let create = || async {
        let response = f
            .post("/v1/runs", &json!({"model": "m", "input": "x"}))
            .header("idempotency-key", "race")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 202);
        run_of(&response)
    };
    let runs = futures_util::future::join_all((0..8).map(|_| create())).await;
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:?}");
    let (_, page) = f.ask(&f.key, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
}
