//! Tools over HTTP: their descriptions, and calls that a request makes itself. The test plays the worker.

use baton_protocol::{
    ApprovalId, ApprovalReason, CallFailure, Effect, EventId, FinishReason, Outcome, RunId,
    RunSpec, ToolDescription, ToolSource, ToolsAnswer, Usage,
};
use baton_protocol::{EventData, event::RunCompleted};
use baton_service::{Clock as _, SystemClock};
use baton_store::{CallCommit, FinishCommit, GivenCallsCommit, NewApproval, NewCall, ParkCommit};
use reqwest::Response;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Worker, answer, run_of, soon};

async fn key_with_tools(f: &Fixture, tools: &[&str]) -> String {
    let scopes = ["runs:write", "runs:read", "models:read"];
    let body = json!({"name": "confined", "scopes": scopes, "tools": tools});
    let (status, made) = f.ask(&f.key, "POST", "/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    made["key"].as_str().unwrap().to_owned()
}

fn described(name: &str) -> ToolDescription {
    ToolDescription {
        name: name.to_owned(),
        description: "Does something".to_owned(),
        parameters: RawValue::from_string(r#"{"type":"object"}"#.to_owned()).unwrap(),
        source: ToolSource::BuiltIn,
        effect: Effect::Pure,
        timeout_ms: 30_000,
        approval_required: false,
        annotations: None,
        unavailable: None,
    }
}

/// Answers questions for tools, each with the first of the named ones, while `work` goes on.
async fn describing<T>(f: &Fixture, work: impl Future<Output = T>) -> T {
    let mut questions = f.bus.tool_questions().await.unwrap();
    f.bus.ping().await.unwrap();
    let answering = async {
        loop {
            let question = questions.next().await.unwrap();
            let mut names = question.asked.names.clone();
            let first = described(&names.remove(0));
            let answer = ToolsAnswer {
                tools: vec![first],
                left_out: names,
            };
            question.answer(&answer).await.unwrap();
        }
    };
    tokio::select! {
        done = soon(work) => done,
        () = answering => unreachable!("it answers for ever"),
    }
}

/// Guards the key's list of tools, and the questions that are asked until every tool is described.
#[tokio::test]
async fn a_caller_sees_the_tools_that_it_may_use() {
    let f = Fixture::start().await;
    let (status, error) = f.ask(&f.key, "GET", "/v1/tools", Value::Null).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_worker")));

    let confined = key_with_tools(&f, &["calculator"]).await;
    describing(&f, async {
        let (status, all) = f.ask(&f.key, "GET", "/v1/tools", Value::Null).await;
        assert_eq!(status, 200, "{all}");
        let names: Vec<_> = all["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["name"])
            .collect();
        assert_eq!(names, ["calculator", "current_time"]);
        assert_eq!(
            all["data"][0],
            json!({"name": "calculator", "description": "Does something", "source": "built_in",
                   "parameters": {"type": "object"}, "effect": "pure", "timeout_ms": 30_000, "approval_required": false})
        );
        let (_, few) = f.ask(&confined, "GET", "/v1/tools", Value::Null).await;
        assert_eq!(few["data"].as_array().unwrap().len(), 1, "{few}");
        for (key, name, expected) in [
            (&f.key, "current_time", 200),
            (&confined, "calculator", 200),
            (&confined, "current_time", 404),
            (&f.key, "nothing", 404),
        ] {
            let path = format!("/v1/tools/{name}");
            let (status, tool) = f.ask(key, "GET", &path, Value::Null).await;
            assert_eq!(status, expected, "{name}: {tool}");
        }
    })
    .await;
}

/// Guards that nothing is executed unless all named tools exist and are allowed.
#[tokio::test]
async fn a_call_that_may_not_be_made_is_refused_before_there_is_a_run() {
    let f = Fixture::start().await;
    let confined = key_with_tools(&f, &["calculator"]).await;
    let reader = f.make_key(9, &["runs:read", "models:read"], None).await;
    let (one, several) = ("/v1/tools/current_time/execute", "/v1/tools/execute");
    let both = json!({"calls": [{"name": "calculator"}, {"name": "current_time"}]});
    let other = json!({"calls": [{"name": "calculator"}, {"name": "nothing"}]});
    for (key, path, body, status, code) in [
        (&confined, one, json!({}), 403, "tool_not_allowed"),
        (&confined, several, both, 403, "tool_not_allowed"),
        (&reader, one, json!({}), 403, "scope_missing"),
        (
            &f.key,
            "/v1/tools/nothing/execute",
            json!({}),
            404,
            "tool_not_found",
        ),
        (&f.key, several, other, 404, "tool_not_found"),
        (
            &f.key,
            one,
            json!({"arguments": "x"}),
            400,
            "invalid_arguments",
        ),
        (&f.key, one, json!({"argument": {}}), 400, "invalid_json"),
        (&f.key, several, json!({"calls": []}), 400, "invalid_calls"),
    ] {
        let (answered, error) = f.ask(key, "POST", path, body).await;
        assert_eq!(
            (answered, &error["code"]),
            (status, &json!(code)),
            "{path}: {error}"
        );
    }
    let (_, runs) = f.ask(&f.key, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(runs["data"], json!([]), "no run is left behind");
}

/// Records the run's given calls, as a worker does.
async fn begin(f: &Fixture, worker: &Worker) -> RunSpec {
    let record = f.record(worker.run()).await;
    let spec: RunSpec = serde_json::from_str(&record.spec_json).unwrap();
    let calls: Vec<_> = (1..)
        .zip(&spec.calls)
        .map(|(step, call)| NewCall {
            step,
            call_id: format!("call_{step}"),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
            effect: Effect::AtMostOnce,
        })
        .collect();
    let commit = GivenCallsCommit {
        calls: &calls,
        last_event_id: worker.last,
    };
    let system = f.store.system();
    // Twice: an answer may have been lost.
    for _ in 0..2 {
        system
            .begin_given_calls(&worker.fence, &commit)
            .await
            .unwrap();
    }
    spec
}

async fn record(f: &Fixture, worker: &Worker, step: u32, failure: Option<CallFailure>, text: &str) {
    let message = json!({"role": "tool", "tool_call_id": "c", "content": text}).to_string();
    let commit = CallCommit {
        inputs_step: None,
        step,
        ok: failure.is_none(),
        failure,
        message: &message,
        duration_ms: 3,
        last_event_id: worker.last,
        started_event_id: worker.last,
    };
    let system = f.store.system();
    system.commit_call(&worker.fence, &commit).await.unwrap();
}

async fn end(f: &Fixture, worker: &mut Worker) {
    let finish = FinishCommit {
        unless_inputs_wait: false,
        outcome: &Outcome::Completed(FinishReason::Stop),
        last_event_id: worker.last.next(),
        usage_total: Usage::default(),
        turn: None,
        cut: None,
    };
    let system = f.store.system();
    system.finish_run(&worker.fence, &finish).await.unwrap();
    let end = RunCompleted {
        finish_reason: FinishReason::Stop,
        usage: Usage::default(),
    };
    worker.append(EventData::RunCompleted(end)).await;
}

async fn read(response: Response) -> (u16, RunId, Value) {
    let run = run_of(&response);
    let (status, body) = answer(response).await;
    (status, run, body)
}

#[tokio::test]
async fn calls_are_one_run_and_are_answered_in_their_order() {
    let f = Fixture::start().await;
    let body = json!({
        "calls": [
            {"name": "calculator", "arguments": {"expression": "1"}},
            {"name": "current_time"},
        ],
        "metadata": {"order": 17},
    });
    let request = || {
        f.post("/v1/tools/execute", &body)
            .header("idempotency-key", "k")
    };
    let (response, ()) = tokio::join!(request().send(), async {
        let mut worker = f.take_job().await;
        let spec = begin(&f, &worker).await;
        assert_eq!(spec.calls[0].arguments, r#"{"expression":"1"}"#);
        record(&f, &worker, 2, Some(CallFailure::TimedOut), "too slow").await;
        record(&f, &worker, 1, None, "1").await;
        end(&f, &mut worker).await;
    });
    let (status, run, done) = read(response.unwrap()).await;
    assert_eq!(status, 200, "{done}");
    let expected = json!({
        "run_id": run.to_string(),
        "data": [
            {"name": "calculator", "ok": true, "failure": null, "result": "1", "duration_ms": 3},
            {"name": "current_time", "ok": false, "failure": "timed_out", "result": "too slow", "duration_ms": 3},
        ],
    });
    assert_eq!(done, expected);

    let (status, same, again) = read(request().send().await.unwrap()).await;
    assert_eq!((status, same, again), (200, run, expected));
    let (_, shown) = f
        .ask(&f.key, "GET", &format!("/v1/runs/{run}"), Value::Null)
        .await;
    assert_eq!(
        (&shown["agent"], &shown["model"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(shown["metadata"], json!({"order": 17}));
    assert_eq!(shown["steps"][1]["failure"], "timed_out");
    assert_eq!(shown["steps"].as_array().unwrap().len(), 2);
    let (_, usage) = f.ask(&f.key, "GET", "/v1/usage", Value::Null).await;
    assert_eq!(usage["data"], json!([]), "no model was asked");
}

#[tokio::test]
async fn a_call_is_answered_by_its_end() {
    let f = Fixture::start().await;
    let path = "/v1/tools/calculator/execute";
    let body = json!({"arguments": {"expression": "2*3"}});
    for (failure, text, status) in [
        (None, "6", 200),
        (Some(CallFailure::Panicked), "it crashed", 200),
        (
            Some(CallFailure::InvalidArguments),
            "`expression` is missing",
            400,
        ),
    ] {
        let (response, ()) = tokio::join!(f.post(path, &body).send(), async {
            let mut worker = f.take_job().await;
            begin(&f, &worker).await;
            record(&f, &worker, 1, failure, text).await;
            end(&f, &mut worker).await;
        });
        let (answered, run, done) = read(response.unwrap()).await;
        assert_eq!(answered, status, "{done}");
        if status == 200 {
            assert_eq!(done["run_id"], run.to_string());
            assert_eq!(
                (&done["ok"], &done["result"]),
                (&json!(failure.is_none()), &json!(text))
            );
        } else {
            assert_eq!(
                (&done["code"], &done["detail"]),
                (&json!("invalid_arguments"), &json!(text))
            );
        }
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_person_names_its_run() {
    let f = Fixture::start().await;
    let request = f.post("/v1/tools/calculator/execute", &json!({}));
    let (response, asked) = tokio::join!(request.send(), async {
        let mut worker = f.take_job().await;
        begin(&f, &worker).await;
        let system = f.store.system();
        system.start_call(&worker.fence, 1).await.unwrap();
        let id = ApprovalId::new(SystemClock.now());
        let park = ParkCommit {
            approvals: &[NewApproval {
                id,
                step: 1,
                reason: ApprovalReason::OutcomeUnknown,
                parameters: None,
                reached: None,
                input: None,
            }],
            expire_after: std::time::Duration::from_hours(1),
            last_event_id: EventId::new(1, 2),
        };
        system.park_run(&worker.fence, &park).await.unwrap();
        worker
            .append(EventData::ApprovalRequested(
                baton_protocol::event::ApprovalRequested {
                    approval_id: id,
                    call_id: "call_1".into(),
                    name: "calculator".into(),
                    arguments: "{}".into(),
                    reason: "outcome unknown".into(),
                    expires_at: None,
                    input: None,
                },
            ))
            .await;
        worker.run()
    });
    let (status, run, error) = read(response.unwrap()).await;
    assert_eq!((status, &error["code"]), (409, &json!("approval_required")));
    assert_eq!(run, asked);
    assert!(error["detail"].as_str().unwrap().contains(&run.to_string()));
}
