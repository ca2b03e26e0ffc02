//! Runs with limits of their own.

use baton_harness::scripted_model::{Gate, Piece, Recorded, Reply, Script, ScriptedModel};
use baton_protocol::{FinishReason, OnLimit, RunLimits, UseLimits};
use baton_service::config::{LlmConfig, ModelPrice};
use baton_store::RunRecord;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::tests::{PATIENCE, runner_with, text};
use super::*;
use crate::fixture::Ground;

const LEASE: Duration = Duration::from_mins(10);

pub(super) fn most(change: impl FnOnce(&mut UseLimits)) -> UseLimits {
    let mut most = UseLimits::default();
    change(&mut most);
    most
}

pub(super) fn tokens(limit: u64) -> UseLimits {
    most(|most| most.max_tokens = Some(limit))
}

/// Runs one run with the calculator under these limits; returns the ended run and the requests.
async fn run(script: Script, most: UseLimits, on_limit: OnLimit) -> (RunRecord, Vec<Recorded>) {
    let mut ground = Ground::new().await;
    let run = accept(&ground, most, on_limit).await;
    let model = ScriptedModel::start(script).await.unwrap();
    let end = attempt(&mut ground, &model, run, false).await;
    assert_eq!(end, JobEnd::Settled);
    (record(&ground, run).await, model.requests())
}

pub(super) async fn accept(ground: &Ground, most: UseLimits, on_limit: OnLimit) -> RunId {
    let limits = RunLimits {
        most,
        on_limit,
        ..RunLimits::of_turns(8)
    };
    let with = |spec: &mut RunSpec| {
        spec.limits = limits;
        spec.server_tools = vec!["calculator".into()];
    };
    ground.accept_with(None, with).await
}

/// Works on the run once, as a worker that drains from its first request on if `drains`.
pub(super) async fn attempt(
    ground: &mut Ground,
    model: &ScriptedModel,
    run: RunId,
    drains: bool,
) -> JobEnd {
    let llm = LlmConfig {
        turn_retries: 0,
        prices: vec![ModelPrice {
            model: "m".to_owned(),
            input_per_million: "1.00".parse().unwrap(),
            cached_input_per_million: None,
            output_per_million: "1.00".parse().unwrap(),
        }],
        ..LlmConfig::default()
    };
    let runner = runner_with(ground, ground.store.clone(), model, LEASE, llm);
    let job = ground.job(run).await;
    let before = model.counts().requests;
    let drain = async {
        model.wait_until(|counts| counts.requests > before).await;
        runner.shutdown.soft.cancel();
        std::future::pending::<()>().await;
    };
    let end = async {
        tokio::select! {
            end = runner.run_job(job) => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
            () = drain, if drains => unreachable!("it waits for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end)).await;
    end.expect("it takes too long")
}

pub(super) async fn record(ground: &Ground, run: RunId) -> RunRecord {
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    tx.run(run).await.unwrap().unwrap()
}

pub(super) fn completed(run: &RunRecord) -> FinishReason {
    match &run.outcome {
        Some(Outcome::Completed(reason)) => *reason,
        other => panic!("{other:?}"),
    }
}

/// Calls the calculator in every turn that has tools.
pub(super) fn calls_while_it_may() -> Script {
    Script::new(|request| {
        if request.body.get("tools").is_none() {
            return Reply::text("all that I have");
        }
        call(&["6*7"])
    })
}

pub(super) fn call(expressions: &[&str]) -> Reply {
    let calls = (0..)
        .zip(expressions)
        .map(|(index, expression)| Piece::ToolCall {
            index,
            id: format!("call_{index}"),
            name: "calculator".to_owned(),
            fragments: vec![json!({ "expression": expression }).to_string()],
        });
    Reply::pieces(calls).ended("tool_calls")
}

pub(super) fn bytes(request: &Recorded) -> u64 {
    u64::try_from(request.body.to_string().len()).unwrap()
}

/// Guards the limit of tokens: an answer is cut to what is left, and with too little left the model is
/// not asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_never_uses_more_tokens_than_its_limit() {
    let (whole, requests) = run(
        Script::always(Reply::text("hi")),
        tokens(90_000),
        OnLimit::Stop,
    )
    .await;
    assert_eq!(completed(&whole), FinishReason::Stop);
    let prompt = bytes(&requests[0]);

    let short = Script::always(Reply::pieces([text("one")]).ended("length"));
    let (run_, requests) = run(short, tokens(prompt + 200), OnLimit::Stop).await;
    let limit = requests[0].body["max_tokens"].as_u64().unwrap();
    assert!((16..=300).contains(&limit), "{limit}");
    assert_eq!(completed(&run_), FinishReason::MaxTokens);

    let (none, requests) = run(calls_while_it_may(), tokens(50), OnLimit::Stop).await;
    assert_eq!(completed(&none), FinishReason::MaxTokens);
    assert!(requests.is_empty());
}

/// Guards the remainder: a second turn with tools does not fit, and the kept part pays for one without.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_hands_back_from_the_part_that_is_kept() {
    let (_, requests) = run(
        Script::always(Reply::text("hi")),
        tokens(90_000),
        OnLimit::Stop,
    )
    .await;
    let first = bytes(&requests[0]) + 128;
    let limit = first * 4 / 3;
    let (stopped, requests) = run(calls_while_it_may(), tokens(first + 40), OnLimit::Stop).await;
    assert_eq!(completed(&stopped), FinishReason::MaxTokens);
    assert_eq!(requests.len(), 1);

    let (handed, requests) = run(calls_while_it_may(), tokens(limit), OnLimit::HandBack).await;
    assert_eq!(completed(&handed), FinishReason::MaxTokens);
    assert_eq!(requests.len(), 2);
    let last = &requests[1].body;
    assert_eq!(last.get("tools"), None);
    let messages = last["messages"].as_array().unwrap();
    let roles: Vec<_> = messages
        .iter()
        .map(|it| it["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "tool", "user"]);
    assert!(handed.usage.total_tokens <= limit);
}

/// Guards the limit of calls, from the machine to the transcript.
#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_refused_and_the_model_answers_without_tools() {
    let script = || {
        Script::new(|request| match request.body.get("tools") {
            Some(_) => call(&["1+1", "2+2", "3+3"]),
            None => Reply::text("all that I have"),
        })
    };
    let two = most(|most| most.max_tool_calls = Some(2));
    let (stopped, requests) = run(script(), two, OnLimit::Stop).await;
    assert_eq!(completed(&stopped), FinishReason::MaxToolCalls);
    assert_eq!(requests.len(), 1);

    let (handed, requests) = run(script(), two, OnLimit::HandBack).await;
    assert_eq!(completed(&handed), FinishReason::MaxToolCalls);
    let messages = requests[1].body["messages"].as_array().unwrap();
    let results: Vec<&Value> = messages.iter().filter(|it| it["role"] == "tool").collect();
    assert_eq!(
        (&results[0]["content"], &results[1]["content"]),
        (&json!("2"), &json!("4"))
    );
    assert!(results[2]["content"].as_str().unwrap().contains("not made"));
}

/// Guards the time of a run: what has arrived is kept, and the upstream is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_at_its_limit_of_time_with_what_it_has_shown() {
    let gate = Gate::closed();
    let script = Script::always(Reply::pieces([text("so far"), Piece::Wait(gate.clone())]));
    let limit = most(|most| most.max_wall_ms = Some(1_500));
    let (ended, _) = run(script, limit, OnLimit::Stop).await;
    assert_eq!(completed(&ended), FinishReason::MaxWallTime);
    assert!(ended.usage.total_tokens > 0, "{:?}", ended.usage);
}

/// Guards the sum over attempts: the second one counts what the first has spent.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_goes_on_with_what_is_used_up() {
    let mut ground = Ground::new().await;
    // 700 tokens at a millionth each, as the upstream counts them.
    let dear = || {
        let call = json!({"index": 0, "id": "c", "type": "function",
            "function": {"name": "calculator", "arguments": "{\"expression\":\"1+1\"}"}});
        let chunk = json!({
            "model": "m",
            "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 600, "completion_tokens": 100, "total_tokens": 700},
        });
        Reply::pieces([Piece::Raw(format!("data: {chunk}\n\n").into()), Piece::Done])
    };
    let model = ScriptedModel::start(Script::new(move |_| dear()))
        .await
        .unwrap();
    let cost = most(|most| most.max_cost_nanos = Some(2_100_000));
    let run = accept(&ground, cost, OnLimit::Stop).await;
    // Each worker gives the run back after one turn.
    let mut attempts = 0;
    while record(&ground, run).await.outcome.is_none() {
        attempts += 1;
        assert!(attempts < 20, "it never ends");
        attempt(&mut ground, &model, run, true).await;
    }
    let ended = record(&ground, run).await;
    assert_eq!(completed(&ended), FinishReason::MaxCost);
    assert!(ended.attempt > 1, "{ended:?}");
    let asked = u64::try_from(model.requests().len()).unwrap();
    assert!(asked >= 1 && asked * 700_000 <= 2_100_000, "{asked} turns");
}
