//! Responses that are not kept, and clients that prefer an early answer.

use std::time::Duration;

use baton_responses::checker::check_response;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer, run_of, soon};

const RESPONSES: &str = "/v1/responses";

fn request(f: &Fixture, fields: &Value) -> RequestBuilder {
    let mut body = json!({"model": "m", "input": "hello"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    f.post(RESPONSES, &body)
}

/// Sends a request; meanwhile its run ends with an answer.
async fn answered(f: &Fixture, request: RequestBuilder) -> Response {
    let (response, ()) = tokio::join!(soon(request.send()), async {
        let mut worker = f.take_job().await;
        worker.say("Hello").await;
        worker.complete().await;
    });
    response.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|it| it.to_str().unwrap())
}

#[tokio::test]
async fn a_response_that_is_not_kept_is_answered_and_then_no_response_any_longer() {
    let f = Fixture::start().await;
    let response = answered(&f, request(&f, &json!({"store": false}))).await;
    let run = run_of(&response);
    let (status, whole) = answer(response).await;
    assert_eq!((status, &whole["store"]), (200, &json!(false)), "{whole}");
    check_response(&whole).unwrap();
    let path = format!("{RESPONSES}/{}", whole["id"].as_str().unwrap());
    for path in [
        path.clone(),
        format!("{path}?stream=true"),
        format!("{path}/input_items"),
    ] {
        let (status, error) = f.ask(&f.key, "GET", &path, Value::Null).await;
        let code = &error["error"]["code"];
        assert_eq!(
            (status, code),
            (404, &json!("response_not_found")),
            "{path}"
        );
    }
    let next = request(&f, &json!({"previous_response_id": whole["id"]}));
    let (status, error) = answer(soon(next.send()).await.unwrap()).await;
    let param = &error["error"]["param"];
    assert_eq!((status, param), (404, &json!("previous_response_id")));

    let kept = answered(&f, request(&f, &json!({"store": true}))).await;
    let kept = run_of(&kept);
    let system = f.store.system();
    let doomed = system.unstored_runs(Duration::ZERO, 10).await.unwrap();
    assert_eq!(doomed, [(f.tenant, run)], "and not {kept}");
}

#[tokio::test]
async fn a_background_response_is_kept() {
    let f = Fixture::start().await;
    let wish = request(&f, &json!({"store": false, "background": true}));
    let (status, error) = answer(wish.send().await.unwrap()).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("store")));
}

#[tokio::test]
async fn a_client_that_prefers_it_gets_202_and_its_response_goes_on() {
    let f = Fixture::start().await;
    let wish = request(&f, &json!({})).header("prefer", "respond-async, wait=0");
    let response = soon(wish.send()).await.unwrap();
    let run = run_of(&response);
    let path = format!("{RESPONSES}/resp_{run}");
    assert_eq!(header(&response, "location"), Some(&*path));
    let applied = header(&response, "preference-applied");
    assert_eq!(applied, Some("respond-async, wait=0"));
    let (status, early) = answer(response).await;
    assert_eq!((status, &early["status"]), (202, &json!("in_progress")));
    check_response(&early).unwrap();
    let mut worker = f.take_job().await;
    assert!(!f.record(run).await.cancel_on_disconnect);
    worker.say("Hello").await;
    worker.complete().await;
    let (_, whole) = f.ask(&f.key, "GET", &path, Value::Null).await;
    assert_eq!(whole["status"], "completed");
}

#[tokio::test]
async fn an_answer_in_time_is_whole() {
    let f = Fixture::start().await;
    for fields in [json!({}), json!({"background": true})] {
        let wish = request(&f, &fields).header("prefer", "respond-async, wait=60");
        let response = answered(&f, wish).await;
        let applied = header(&response, "preference-applied");
        assert_eq!(applied, Some("respond-async, wait=60"));
        let (status, whole) = answer(response).await;
        assert_eq!((status, &whole["status"]), (200, &json!("completed")));
    }
    // A response that cannot be read later is answered whole.
    let wish = request(&f, &json!({"store": false})).header("prefer", "respond-async");
    let response = answered(&f, wish).await;
    assert_eq!(header(&response, "preference-applied"), None);
    assert_eq!(response.status(), 200);
    let wish = request(&f, &json!({})).header("prefer", "respond-async, wait=60");
    let (response, ()) = tokio::join!(soon(wish.send()), async {
        f.take_job().await.fail("upstream_timeout").await;
    });
    assert_eq!(response.unwrap().status(), 504, "a failure is a status");
}

#[tokio::test]
async fn a_native_run_is_waited_for_as_its_client_prefers() {
    let f = Fixture::start().await;
    let run = json!({"model": "m", "input": "hello"});
    let wish = f.post("/v1/runs", &run).header("prefer", "wait=60");
    let response = answered(&f, wish).await;
    assert_eq!(header(&response, "preference-applied"), Some("wait=60"));
    let (status, ended) = answer(response).await;
    assert_eq!((status, &ended["status"]), (200, &json!("completed")));
    let wish = f.post("/v1/runs", &run).header("prefer", "respond-async");
    let response = soon(wish.send()).await.unwrap();
    let applied = header(&response, "preference-applied");
    assert_eq!(
        (response.status().as_u16(), applied),
        (202, Some("respond-async"))
    );
    let wish = f.post("/v1/runs?wait=0s", &run).header("prefer", "wait=60");
    let response = soon(wish.send()).await.unwrap();
    let applied = header(&response, "preference-applied");
    assert_eq!((response.status().as_u16(), applied), (202, None));
}
