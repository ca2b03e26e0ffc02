//! A message becomes exactly one run.

use baton_admission::resolve::resolve;
use baton_admission::{BuiltInAgent, Grant, SubmitRequest};
use baton_protocol::{Lane, RunId, RunStatus};
use baton_routing::{Knows, Routes};
use baton_store::{IdempotencyKey, NewRun, QueueLimits, TenantTx};
use serde_json::{Value, json};

use super::{Program, fresh, question, refusal, submission};
use crate::fixture::{Fixture, run_of};

/// Guards the order of commit and answer, and both subjects of the answer.
#[tokio::test]
async fn a_submission_is_answered_once_its_run_is_committed_and_then_works_like_any_other() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let mut replies = program.replies(run).await;

    let answer = program.submit(run, question()).await;
    let record = f.record(run).await;
    assert_eq!(
        (record.status, record.lane),
        (RunStatus::Queued, Lane::Interactive)
    );
    assert_eq!(record.api_key_id.unwrap().to_string(), program.key);
    let id = answer["request_id"].clone();
    assert_eq!(
        answer,
        json!({"v": 1, "verb": "submit", "run_id": run, "request_id": id, "ok": true,
               "status": "queued"})
    );
    assert_eq!(replies.next().await, answer, "on the run's own subject");

    let mut worker = f.take_job().await;
    assert_eq!(worker.run(), run);
    worker.say("hi").await;
    worker.complete().await;
    f.until_status(run, RunStatus::Completed).await;
    let again = program.submit(run, question()).await;
    assert_eq!(
        (&again["ok"], &again["status"], &again["replayed"]),
        (&json!(true), &json!("completed"), &json!(true))
    );
    let metered = f.get("/v1/runs").send().await.unwrap();
    let runs: Value = serde_json::from_slice(&metered.bytes().await.unwrap()).unwrap();
    assert_eq!(runs["data"].as_array().unwrap().len(), 1);
}

/// Guards the idempotency key that is derived from a run's id: however often and to however many
/// ingresses it is published, there is one run.
#[tokio::test]
async fn many_at_once_under_one_id_make_one_run() {
    let f = Fixture::start().await;
    let (_other, _shutdown) = f.another_ingress().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let answers = (0..16).map(|_| program.submit(run, question()));
    let answers = futures_util::future::join_all(answers).await;
    assert!(
        answers.iter().all(|answer| answer["ok"] == true),
        "{answers:?}"
    );
    let new = |answer: &&Value| answer["replayed"].is_null();
    assert_eq!(answers.iter().filter(new).count(), 1, "{answers:?}");
    assert_eq!(f.take_job().await.run(), run);
}

/// Guards I3 against badly chosen ids: they never lead to somebody else's run.
#[tokio::test]
async fn an_id_that_stands_for_another_run_is_taken_whoever_has_it() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let mine = fresh();
    assert_eq!(program.submit(mine, question()).await["ok"], true);
    let other = json!({"model": "m", "input": "something else"});
    let taken = "run_id_taken";
    assert_eq!(refusal(&program.submit(mine, other.clone()).await), taken);
    let other_lane = program
        .publish("background", submission(mine, question()))
        .await;
    assert_eq!(refusal(&other_lane), taken);

    let over_http = f.post("/v1/runs", &question()).send().await.unwrap();
    let over_http = run_of(&over_http);
    assert_eq!(refusal(&program.submit(over_http, question()).await), taken);

    let stranger = f.register("anna@example.com").await;
    let token = stranger["access_token"].as_str().unwrap();
    let (_, made) = f.ask(token, "POST", "/v1/runs", question()).await;
    let theirs = made["id"].as_str().unwrap().parse().unwrap();
    let answer = program.submit(theirs, question()).await;
    assert_eq!(refusal(&answer), taken);
    assert_eq!(
        answer["error"]["message"],
        program.submit(mine, other).await["error"]["message"]
    );
}

/// Guards that both doors lead through the same checks. None of these is garbage: no copy is kept.
#[tokio::test]
async fn what_http_refuses_is_refused_with_the_same_words() {
    let f = Fixture::start_with(|config| config.limits.queued_per_tenant = 3).await;
    let program = Program::new(&f, json!({})).await;
    let reader = Program::new(&f, json!({"scopes": ["runs:read"]})).await;
    let confined = Program::new(&f, json!({"models": ["other"]})).await;
    let slow = Program::new(&f, json!({"limits": {"per_minute": 1}})).await;
    let one = Program::new(&f, json!({"limits": {"concurrent_runs": 1}})).await;
    let poor = Program::new(&f, json!({"limits": {"monthly_tokens": 10}})).await;
    let revoked = Program::new(&f, json!({})).await;
    let path = format!("/v1/api-keys/{}", revoked.key);
    assert_eq!(f.ask(&f.key, "DELETE", &path, Value::Null).await.0, 204);

    let nobody = json!({"agent": "nobody", "input": "x"});
    let turns = json!({"model": "m", "input": "x", "max_turns": 1_000_000});
    assert_eq!(slow.submit(fresh(), question()).await["ok"], true);
    assert_eq!(one.submit(fresh(), question()).await["ok"], true);
    assert_eq!(program.submit(fresh(), question()).await["ok"], true);
    for (by, request, expected) in [
        (&reader, question(), ("scope_missing", 403)),
        (&confined, question(), ("model_not_allowed", 403)),
        (&revoked, question(), ("invalid_api_key", 401)),
        (&program, nobody, ("agent_not_found", 404)),
        (&program, turns, ("invalid_limit", 400)),
        (&slow, question(), ("rate_limited", 429)),
        (&one, question(), ("concurrency_limit", 429)),
        (&poor, question(), ("budget_exceeded", 429)),
        (&program, question(), ("queue_full", 429)),
    ] {
        let run = fresh();
        let answer = by.submit(run, request.clone()).await;
        assert_eq!(refusal(&answer), expected.0, "{request}");
        assert_eq!(answer["run_id"], json!(run));
        assert_eq!(answer["error"]["retry_after"].is_u64(), expected.1 == 429);
    }
    assert_eq!(f.bus.dead_letters().await.unwrap(), 0);
}

/// Begins to accept a run with this id, so that all other submissions of the id have to wait.
async fn somebody_with(f: &Fixture, run: RunId) -> TenantTx {
    let body = question().to_string();
    let request = SubmitRequest::parse_native(body.as_bytes()).unwrap();
    let agents = BuiltInAgent {
        max_turns: 1,
        ..BuiltInAgent::default()
    };
    let routes = Routes::to_one("only", Knows::default());
    let spec = resolve(request, &agents, &Grant::default(), &routes).unwrap();
    let key = IdempotencyKey {
        key: format!("run {run}"),
        fingerprint: [0; 32],
    };
    let wanted = NewRun {
        id: run,
        lane: Lane::Interactive,
        spec: &spec,
        thread_id: None,
        on_busy: baton_store::OnBusy::Reject,
        titles: None,
        api_key_id: None,
        created_by: None,
        metered: None,
        metadata: None,
        cancel_on_disconnect: false,
        traceparent: None,
        idempotency: Some(&key),
    };
    // Far from the limit, as in the ingress: near it, submissions of a tenant wait for each other.
    let limits = QueueLimits {
        tenant: 10_000,
        system: 100_000,
    };
    let mut tx = f.store.tenant(f.tenant).await.unwrap();
    tx.accept_run(&wanted, &limits).await.unwrap();
    tx
}

/// Guards the ingress's room for submissions: one without room is refused with a request to retry,
/// and neither held in memory without limit nor dropped silently.
#[tokio::test]
async fn what_there_is_no_room_for_is_told_to_come_again() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let somebody = somebody_with(&f, run).await;
    let mut replies = program.replies(run).await;
    for _ in 0..600 {
        program
            .send("interactive", submission(run, question()))
            .await;
    }
    let refused = replies.next().await;
    assert_eq!(refusal(&refused), "busy");
    assert_eq!(refused["error"]["retry_after"], 1);
    drop(somebody);
    loop {
        let answer = program.submit(run, question()).await;
        if answer["ok"] == true {
            break;
        }
        assert_eq!(refusal(&answer), "busy");
    }
}

/// Guards the end of an ingress: it answers the submissions that it has begun.
#[tokio::test]
async fn a_submission_that_is_under_way_when_the_ingress_stops_is_answered() {
    let mut f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let somebody = somebody_with(&f, run).await;
    let mut replies = program.replies(run).await;
    program
        .send("interactive", submission(run, question()))
        .await;
    // This one was published and taken later, so the first one has been taken as well.
    assert_eq!(program.submit(fresh(), question()).await["ok"], true);
    f.shutdown.stop_soft();
    drop(somebody);
    let answer = replies.next().await;
    assert_eq!(answer["ok"], true, "{answer}");
    f.stopped().await;
    assert_eq!(f.record(run).await.status, RunStatus::Queued);
}
