//! `POST /v1/responses/input_tokens`: the upstream's count, from a run of one token.

use std::time::Duration;

use baton_protocol::RunSpec;
use reqwest::Response;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Worker, answer, run_of, soon};

const PATH: &str = "/v1/responses/input_tokens";

/// Asks for a count; meanwhile the worker does as `work` says.
async fn count(f: &Fixture, body: &Value, work: impl AsyncFnOnce(Worker)) -> Response {
    let (response, ()) = tokio::join!(soon(f.post(PATH, body).send()), async {
        work(f.take_job().await).await;
    });
    response.unwrap()
}

async fn spec_of(f: &Fixture, response: &Response) -> RunSpec {
    let record = f.record(run_of(response)).await;
    serde_json::from_str(&record.spec_json).unwrap()
}

fn roles(spec: &RunSpec) -> Vec<String> {
    let messages: Vec<Value> = serde_json::from_str(spec.messages.get()).unwrap();
    let role = |message: &Value| message["role"].as_str().unwrap().to_owned();
    messages.iter().map(role).collect()
}

#[tokio::test]
async fn a_count_is_the_upstreams_and_its_run_is_not_kept() {
    let f = Fixture::start().await;
    let body = json!({"model": "m", "input": "hello", "instructions": "Be brief.", "seed": 7});
    let response = count(&f, &body, async |mut worker| worker.complete().await).await;
    let (run, spec) = (run_of(&response), spec_of(&f, &response).await);
    let params: Value = serde_json::from_str(spec.params.as_raw().get()).unwrap();
    assert_eq!(params, json!({"seed": 7, "max_completion_tokens": 1}));
    assert_eq!((spec.limits.max_turns, spec.shown_for_good), (1, true));
    assert_eq!(roles(&spec), ["system", "user"]);
    let (status, counted) = answer(response).await;
    let expected = json!({"object": "response.input_tokens", "input_tokens": 10});
    assert_eq!((status, counted), (200, expected));

    let path = format!("/v1/responses/resp_{run}");
    assert_eq!(f.ask(&f.key, "GET", &path, Value::Null).await.0, 404);
    let doomed = f.store.system().unstored_runs(Duration::ZERO, 10).await;
    assert_eq!(doomed.unwrap(), [(f.tenant, run)]);
}

#[tokio::test]
async fn a_count_has_what_comes_before_the_input_and_leaves_a_conversation_as_it_is() {
    let f = Fixture::start().await;
    let items = json!({"items": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]});
    let (_, made) = f.ask(&f.key, "POST", "/v1/conversations", items).await;
    let body = json!({"model": "m", "input": "three", "conversation": made["id"]});
    let response = count(&f, &body, async |mut worker| worker.complete().await).await;
    assert_eq!(response.status(), 200);
    let spec = spec_of(&f, &response).await;
    assert_eq!(roles(&spec), ["user", "assistant", "user"]);
    assert_eq!(f.record(run_of(&response)).await.thread_id, None);
    let path = format!("/v1/conversations/{}/items", made["id"].as_str().unwrap());
    let (_, items) = f.ask(&f.key, "GET", &path, Value::Null).await;
    assert_eq!(items["data"].as_array().unwrap().len(), 2);

    let body = json!({"model": "m", "input": "hello", "background": true});
    let (_, first) = f.ask(&f.key, "POST", "/v1/responses", body).await;
    let body = json!({"model": "m", "previous_response_id": first["id"]});
    let mut worker = f.take_job().await;
    let (status, error) = f.ask(&f.key, "POST", PATH, body.clone()).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (409, &json!("response_in_progress"))
    );
    worker.say("Hello").await;
    worker.complete().await;
    let response = count(&f, &body, async |mut worker| worker.complete().await).await;
    assert_eq!(roles(&spec_of(&f, &response).await), ["user", "assistant"]);
}

#[tokio::test]
async fn a_run_without_a_count_is_an_error_and_no_number() {
    let f = Fixture::start().await;
    let body = json!({"model": "m", "input": "hello"});
    let failed = count(&f, &body, async |mut worker| {
        worker.fail("upstream_timeout").await;
    });
    let (status, error) = answer(failed.await).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (504, &json!("upstream_timeout"))
    );
    let estimated = count(&f, &body, async |mut worker| {
        worker.usage.estimated = true;
        worker.complete().await;
    });
    let estimated = estimated.await;
    assert_eq!(estimated.headers()["x-should-retry"], "false");
    let (status, error) = answer(estimated).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (502, &json!("usage_not_reported"))
    );
    let cancelled = count(&f, &body, async |mut worker| {
        worker.cancelled("api_request").await;
    });
    assert_eq!(answer(cancelled.await).await.0, 409);
    let nothing = count(&f, &body, async |mut worker| {
        worker.end_without_a_turn().await;
    });
    let (status, error) = answer(nothing.await).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (429, &json!("limit_reached"))
    );
}

#[tokio::test]
async fn a_field_that_changes_no_count_is_refused_by_its_name() {
    let f = Fixture::start().await;
    for (body, param) in [
        (json!({"model": "m"}), "input"),
        (json!({"input": "x"}), "model"),
        (
            json!({"model": "m", "input": "x", "personality": "friendly"}),
            "personality",
        ),
        (
            json!({"model": "m", "input": "x", "stream": true}),
            "stream",
        ),
        (
            json!({"model": "m", "input": "x", "max_output_tokens": 9}),
            "max_output_tokens",
        ),
        (
            json!({"model": "m", "input": "x", "truncation": "auto"}),
            "truncation",
        ),
        (
            json!({"model": "m", "input": "x", "messages": []}),
            "messages",
        ),
    ] {
        let (status, error) = f.ask(&f.key, "POST", PATH, body).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)));
    }
    let id = "conv_01890a5d-ac96-774b-bcce-b302099a8057";
    let body = json!({"model": "m", "conversation": id});
    let (status, error) = f.ask(&f.key, "POST", PATH, body).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (404, &json!("conversation"))
    );
}
