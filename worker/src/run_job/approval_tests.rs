//! Calls that a person must approve before the tool is called.

use baton_harness::scripted_model::{Piece, Reply, Script, ScriptedModel};
use baton_protocol::agent::{ArgumentsSchema, ToolApproval};
use baton_protocol::{ApprovalReason, ApprovalScope, Decision, EventData, OfferedTool, RunStatus};
use baton_service::Config;
use baton_service::config::{LlmConfig, ToolsConfig};
use baton_store::ApprovalRecord;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::tests::{PATIENCE, log, runner};
use super::*;
use crate::fixture::Ground;
use crate::settings::Settings;

const LEASE: Duration = Duration::from_mins(10);

/// Works on the run's next job, and returns the run's state afterwards.
async fn work(ground: &mut Ground, runner: &JobRunner, run: RunId) -> RunStatus {
    let job = ground.job(run).await;
    let end = async {
        tokio::select! {
            end = runner.run_job(job) => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end)).await;
    assert_eq!(end.expect("it takes too long"), JobEnd::Settled);
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    tx.run(run).await.unwrap().unwrap().status
}

/// Returns a worker with an operator who requires approval for these tools.
fn worker(ground: &Ground, model: &ScriptedModel, required: &[&str]) -> JobRunner {
    let config = Config {
        llm: LlmConfig {
            base_url: Some(model.base_url()),
            ..LlmConfig::default()
        },
        tools: ToolsConfig {
            approval_required: required.iter().map(|&name| name.into()).collect(),
            ..ToolsConfig::default()
        },
        ..Config::default()
    };
    let runner = runner(ground, ground.store.clone(), model, LEASE);
    let settings = Settings::of(&config, None).unwrap();
    runner.settings.store(std::sync::Arc::new(settings));
    runner
}

fn call(index: u32, name: &str, arguments: &Value) -> Piece {
    Piece::ToolCall {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
        fragments: vec![arguments.to_string()],
    }
}

/// A model that calls these tools once, and then answers.
async fn calling(calls: Vec<Piece>) -> ScriptedModel {
    let replies = [
        Reply::pieces(calls).ended("tool_calls"),
        Reply::text("done"),
    ];
    ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap()
}

async fn asked(ground: &Ground, run: RunId) -> Vec<ApprovalRecord> {
    let system = ground.store.system();
    system.run_approvals(ground.tenant, run).await.unwrap()
}

async fn decide(ground: &Ground, question: &ApprovalRecord, decision: Decision) {
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    let decided = tx.decide(question.run, question.id, &decision, None);
    decided.await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns the results that the model read with its second request, by the call.
fn results(model: &ScriptedModel) -> Vec<String> {
    let requests = model.requests();
    let [_, second] = &requests[..] else {
        panic!("{} requests", requests.len());
    };
    let messages = second.body["messages"].as_array().unwrap();
    messages
        .iter()
        .filter(|message| message["role"] == "tool")
        .map(|message| message["content"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns the calls that began, as the log shows them: the tool, its arguments, whether a person
/// edited them.
async fn begun(ground: &Ground, run: RunId) -> Vec<(String, String, bool)> {
    let log = log(ground, run).await.into_iter();
    log.filter_map(|event| match event.data {
        EventData::ToolStarted(started) => Some((started.name, started.arguments, started.edited)),
        _ => None,
    })
    .collect()
}

fn guarded(name: &str) -> OfferedTool {
    OfferedTool {
        name: name.into(),
        approval: ToolApproval::Always,
        approved: Vec::new(),
    }
}

/// Guards the rule in the run: a worker without such a rule asks all the same. Calls
/// that need no approval run first, and once; a call that reaches no tool is no question.
#[tokio::test]
async fn a_run_keeps_its_rule_and_its_other_calls_run_once() {
    let mut ground = Ground::new().await;
    let sum = json!({"expression": "6*7"});
    let model = calling(vec![
        call(0, "calculator", &sum),
        call(1, "current_time", &json!({})),
        call(2, "calculator", &json!({"expr": "1"})),
    ])
    .await;
    let worker = worker(&ground, &model, &[]);
    let run = ground
        .accept_with(None, |spec| {
            spec.server_tools = vec![guarded("calculator"), "current_time".into()];
        })
        .await;

    assert_eq!(
        work(&mut ground, &worker, run).await,
        RunStatus::AwaitingApproval
    );
    let questions = asked(&ground, run).await;
    let [question] = &questions[..] else {
        panic!("{questions:?}");
    };
    assert_eq!(question.reason, ApprovalReason::ApprovalRequired);
    assert_eq!(
        (question.step, &*question.arguments),
        (2, &*sum.to_string())
    );
    let schema: Value = serde_json::from_str(question.parameters.as_deref().unwrap()).unwrap();
    assert_eq!(schema["required"], json!(["expression"]));
    let shown = log(&ground, run).await.pop().unwrap();
    let EventData::ApprovalRequested(shown) = shown.data else {
        panic!("{shown:?}");
    };
    assert_eq!(
        (shown.approval_id, &*shown.reason),
        (question.id, "approval required")
    );
    assert_eq!(shown.expires_at, Some(question.expires_at));
    assert_eq!(begun(&ground, run).await.len(), 2);

    let arguments = Map::from_iter([("expression".to_owned(), json!("6*8"))]);
    let arguments = Some(arguments);
    decide(
        &ground,
        question,
        Decision::Approve {
            arguments,
            scope: ApprovalScope::Once,
        },
    )
    .await;
    assert_eq!(work(&mut ground, &worker, run).await, RunStatus::Completed);
    let begun = begun(&ground, run).await;
    let edited = r#"{"expression":"6*8"}"#;
    assert_eq!(begun.len(), 3, "{begun:?}");
    assert_eq!(begun[2], ("calculator".into(), edited.into(), true));
    let results = results(&model);
    assert_eq!(
        results[0],
        format!(
            "A person changed the arguments of this call to {edited} before it was made. The \
             result:\n48"
        )
    );
    assert!(results[2].contains("\"expression\" is a required property"));
    let requests = model.requests();
    let said = &requests[1].body["messages"];
    assert!(
        said.to_string().contains("6*7"),
        "the model's own call stays: {said}"
    );
}

/// Guards the condition of an agent's rule: it decides by each call's arguments, and for a worker that takes
/// the run over as well.
#[tokio::test]
async fn a_condition_asks_about_the_calls_with_matching_arguments_alone() {
    let mut ground = Ground::new().await;
    let expressions = ["6+7", "6*7", "2+2"];
    let calls = expressions.iter().zip(0..);
    let calls = calls.map(|(it, index)| call(index, "calculator", &json!({"expression": it})));
    let model = calling(calls.collect()).await;
    let condition = json!({"properties": {"expression": {"pattern": "[*]"}}});
    let condition = condition.as_object().unwrap().clone();
    let run = ground
        .accept_with(None, |spec| {
            spec.server_tools = vec![OfferedTool {
                name: "calculator".into(),
                approval: ToolApproval::When(ArgumentsSchema(condition)),
                approved: Vec::new(),
            }];
        })
        .await;
    let first = worker(&ground, &model, &[]);
    assert_eq!(
        work(&mut ground, &first, run).await,
        RunStatus::AwaitingApproval
    );
    let questions = asked(&ground, run).await;
    let [question] = &questions[..] else {
        panic!("{questions:?}");
    };
    assert_eq!(&*question.arguments, r#"{"expression":"6*7"}"#);
    let begun_before: Vec<_> = begun(&ground, run).await;
    assert_eq!(begun_before.len(), 2, "{begun_before:?}");

    let approve = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Once,
    };
    decide(&ground, question, approve).await;
    let second = worker(&ground, &model, &[]);
    assert_eq!(work(&mut ground, &second, run).await, RunStatus::Completed);
    assert_eq!(results(&model), ["13", "42", "4"]);
}

/// Guards the operator's list at the call, and a decision's hold: the worker that takes the run on has
/// no such rule.
#[tokio::test]
async fn an_operator_rule_holds_for_accepted_runs_and_a_rejection_for_any_worker() {
    let mut ground = Ground::new().await;
    let model = calling(vec![call(0, "calculator", &json!({"expression": "1"}))]).await;
    let strict = worker(&ground, &model, &["calc*"]);
    let run = ground
        .accept_with(None, |spec| spec.server_tools = vec!["calculator".into()])
        .await;
    assert_eq!(
        work(&mut ground, &strict, run).await,
        RunStatus::AwaitingApproval
    );
    let questions = asked(&ground, run).await;
    let reason = "ask me tomorrow".to_owned();
    decide(&ground, &questions[0], Decision::Reject { reason }).await;

    let loose = worker(&ground, &model, &[]);
    assert_eq!(work(&mut ground, &loose, run).await, RunStatus::Completed);
    assert_eq!(
        results(&model),
        ["this call was not approved, and it was not made. The reason: ask me tomorrow"]
    );
    let finished = log(&ground, run).await.into_iter();
    let finished: Vec<_> = finished
        .filter_map(|event| match event.data {
            EventData::ToolFinished(finished) => Some(finished.ok),
            _ => None,
        })
        .collect();
    assert_eq!(finished, [false]);
}

/// Guards the lists of keys and clients: a tool of the client's own is the client's to guard.
#[tokio::test]
async fn a_tool_of_the_client_that_has_a_guarded_name_is_asked_about_by_nobody() {
    let mut ground = Ground::new().await;
    let model = calling(vec![call(0, "calculator", &json!({"expression": "1"}))]).await;
    let strict = worker(&ground, &model, &["calculator"]);
    let run = ground
        .accept_with(None, |spec| {
            let own = r#"[{"type":"function","function":{"name":"calculator"}}]"#;
            spec.tools = Some(serde_json::value::RawValue::from_string(own.into()).unwrap());
            spec.server_tools = vec![guarded("calculator")];
        })
        .await;
    assert_eq!(work(&mut ground, &strict, run).await, RunStatus::Completed);
    assert_eq!(asked(&ground, run).await, []);
}

/// Guards the grant of a run: a later call is made unasked, also by a worker that did not ask about the first.
#[tokio::test]
async fn an_approval_for_the_run_holds_for_later_calls_of_its_tool_alone() {
    let mut ground = Ground::new().await;
    let replies = [
        Reply::pieces([call(0, "calculator", &json!({"expression": "1"}))]).ended("tool_calls"),
        Reply::pieces([call(0, "calculator", &json!({"expression": "2"}))]).ended("tool_calls"),
        Reply::pieces([call(0, "current_time", &json!({}))]).ended("tool_calls"),
        Reply::text("done"),
    ];
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    let asks = worker(&ground, &model, &["*"]);
    let run = ground
        .accept_with(None, |spec| {
            spec.server_tools = vec!["calculator".into(), "current_time".into()];
        })
        .await;
    let parked = RunStatus::AwaitingApproval;
    assert_eq!(work(&mut ground, &asks, run).await, parked);
    let questions = asked(&ground, run).await;
    let approve = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Run,
    };
    decide(&ground, &questions[0], approve).await;

    let takes_over = worker(&ground, &model, &["*"]);
    assert_eq!(work(&mut ground, &takes_over, run).await, parked);
    let questions = asked(&ground, run).await;
    let names: Vec<_> = questions.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["calculator", "current_time"]);
    let begun = begun(&ground, run).await;
    let begun: Vec<_> = begun.iter().map(|(_, arguments, _)| &**arguments).collect();
    assert_eq!(begun, [r#"{"expression":"1"}"#, r#"{"expression":"2"}"#]);
}
