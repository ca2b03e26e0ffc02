//! Conversations that are compacted between two turns.

use baton_harness::scripted_model::{Gate, Piece, Recorded, Reply, Script, ScriptedModel};
use baton_openai::Usage;
use baton_protocol::compaction::{SUMMARY, SUMMARY_PROMPT};
use baton_protocol::{CompactionRule, Event, EventData, RawFields, RunStatus};
use baton_service::config::LlmConfig;
use baton_store::{RunRecord, StepData, StepRecord};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::tests::{PATIENCE, log, runner_with, text};
use super::*;
use crate::fixture::Ground;

const LEASE: Duration = Duration::from_mins(10);
const RULE: CompactionRule = CompactionRule {
    threshold: 1_000,
    earlier_tokens: 0,
    earlier_messages: 0,
};

/// Ends an answer for which the upstream counts these tokens.
fn counted(pieces: impl IntoIterator<Item = Piece>, finish: &str, tokens: (u64, u64)) -> Reply {
    Reply::pieces(pieces)
        .then(Piece::Finish(finish.to_owned()))
        .then(Piece::Usage(Usage::new(tokens.0, tokens.1)))
        .then(Piece::Done)
}

fn says(answer: &str, tokens: (u64, u64)) -> Reply {
    counted([text(answer)], "stop", tokens)
}

fn calls(tokens: (u64, u64)) -> Reply {
    let call = Piece::ToolCall {
        index: 0,
        id: "call_0".to_owned(),
        name: "calculator".to_owned(),
        fragments: vec![json!({ "expression": "6*7" }).to_string()],
    };
    counted([call], "tool_calls", tokens)
}

async fn accept(ground: &Ground, rule: CompactionRule) -> RunId {
    let messages = r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"earlier"},
        {"role":"assistant","content":"answer"},{"role":"user","content":"Compute."}]"#;
    let params = r#"{"max_completion_tokens":9,"response_format":{"type":"json_object"},"seed":7}"#;
    let with = |spec: &mut RunSpec| {
        spec.messages = RawValue::from_string(messages.to_owned()).unwrap();
        spec.params =
            RawFields::from_object(RawValue::from_string(params.to_owned()).unwrap()).unwrap();
        spec.server_tools = vec!["calculator".into()];
        spec.compaction = Some(rule);
    };
    ground.accept_with(None, with).await
}

fn llm() -> LlmConfig {
    LlmConfig {
        turn_retries: 1,
        ..LlmConfig::default()
    }
}

/// Works on the run until this attempt has settled, or until `until` returns; then the worker is cut off.
async fn attempt(
    ground: &mut Ground,
    model: &ScriptedModel,
    run: RunId,
    until: impl Future<Output = ()>,
) -> JobEnd {
    let runner = runner_with(ground, ground.store.clone(), model, LEASE, llm());
    let job = ground.job(run).await;
    let cutting = async {
        until.await;
        runner.cut.cancel();
        std::future::pending::<()>().await;
    };
    let end = async {
        tokio::select! {
            end = runner.run_job(job) => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
            () = cutting => unreachable!("it waits for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end)).await;
    end.expect("it takes too long")
}

async fn to_its_end(ground: &mut Ground, model: &ScriptedModel, run: RunId) -> RunRecord {
    let end = attempt(ground, model, run, std::future::pending()).await;
    assert_eq!(end, JobEnd::Settled);
    record(ground, run).await
}

async fn record(ground: &Ground, run: RunId) -> RunRecord {
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    tx.run(run).await.unwrap().unwrap()
}

async fn steps(ground: &Ground, run: RunId) -> Vec<StepRecord> {
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    tx.run_steps(run).await.unwrap()
}

fn kinds(steps: &[StepRecord]) -> Vec<&'static str> {
    let kind = |step: &StepRecord| match step.data {
        StepData::Turn { .. } => "turn",
        StepData::CutTurn { .. } => "cut turn",
        StepData::Call { .. } => "call",
        StepData::Input { .. } => "input",
        StepData::Compaction { .. } => "compaction",
    };
    steps.iter().map(kind).collect()
}

/// Returns the roles and texts that a request has.
fn asked(request: &Recorded) -> Vec<(String, String)> {
    let messages = request.body["messages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let asked = messages.iter();
    asked
        .map(|message| (text(&message["role"]), text(&message["content"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(role, text): &(&str, &str)| ((*role).to_owned(), (*text).to_owned());
    expected.iter().map(owned).collect()
}

fn is_compacted(event: &Event) -> bool {
    matches!(event.data, EventData::ContextCompacted(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_reached_the_threshold_is_followed_by_a_summary_and_the_next_begins_with_it() {
    let mut ground = Ground::new().await;
    let run = accept(&ground, RULE).await;
    let replies = [
        calls((990, 10)),
        says("They want 6*7, which is 42.", (1_100, 20)),
        says("42", (60, 2)),
    ];
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    let ended = to_its_end(&mut ground, &model, run).await;
    assert_eq!(ended.status, RunStatus::Completed);
    let steps = steps(&ground, run).await;
    assert_eq!(kinds(&steps), ["turn", "call", "compaction", "turn"]);
    assert_eq!(
        ended.usage.total_tokens,
        1_000 + 1_120 + 62,
        "it is charged"
    );

    let requests = model.requests();
    let summary = asked(&requests[1]);
    assert_eq!(
        summary.last().unwrap(),
        &pairs(&[("user", SUMMARY_PROMPT)])[0]
    );
    assert_eq!(summary.len(), 7, "it reads all that was said: {summary:?}");
    let body = &requests[1].body;
    for field in ["tools", "response_format", "max_completion_tokens"] {
        assert!(body.get(field).is_none(), "{field} in {body}");
    }
    assert_eq!(body["seed"], 7);
    let summary = format!("{SUMMARY}They want 6*7, which is 42.");
    let all_own = [
        ("user", summary.as_str()),
        ("system", "Be brief."),
        ("user", "earlier"),
        ("assistant", "answer"),
        ("user", "Compute."),
    ];
    assert_eq!(asked(&requests[2]), pairs(&all_own));
    assert!(requests[2].body.get("tools").is_some());

    let log = log(&ground, run).await;
    let texts = log.iter().filter_map(|event| match &event.data {
        EventData::TextDelta(delta) => Some(&*delta.text),
        _ => None,
    });
    assert_eq!(
        texts.collect::<String>(),
        "42",
        "the summary is not shown as text"
    );
    let shown: Vec<_> = log.iter().filter(|event| is_compacted(event)).collect();
    assert_eq!((shown.len(), shown[0].step), (1, 3));
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    let said = tx.run_messages(run).await.unwrap();
    assert_eq!(said.len(), 3, "nor is it a part of what the run said");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_threshold_and_without_a_rule_nothing_is_compacted() {
    for (rule, tokens) in [(Some(RULE), (989, 10)), (None, (9_000, 10))] {
        let mut ground = Ground::new().await;
        let run = ground
            .accept_with(None, |spec| {
                spec.server_tools = vec!["calculator".into()];
                spec.compaction = rule;
            })
            .await;
        let replies = [calls(tokens), says("42", (60, 2))];
        let model = ScriptedModel::start(Script::sequence(replies))
            .await
            .unwrap();
        to_its_end(&mut ground, &model, run).await;
        assert_eq!(model.counts().requests, 2, "{rule:?}");
        assert_eq!(kinds(&steps(&ground, run).await), ["turn", "call", "turn"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_is_compacted_before_the_first_turn_and_the_request_stays_as_it_was() {
    let mut ground = Ground::new().await;
    let rule = CompactionRule {
        earlier_tokens: 1_000,
        earlier_messages: 3,
        ..RULE
    };
    let run = accept(&ground, rule).await;
    let replies = [says("They greeted.", (1_100, 20)), says("42", (60, 2))];
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    to_its_end(&mut ground, &model, run).await;
    assert_eq!(kinds(&steps(&ground, run).await), ["compaction", "turn"]);
    let summary = format!("{SUMMARY}They greeted.");
    let expected = [
        ("system", "Be brief."),
        ("user", summary.as_str()),
        ("user", "Compute."),
    ];
    assert_eq!(asked(&model.requests()[1]), pairs(&expected));
}

/// Guards the record of a summary: the next attempt makes none, and asks with the same bytes. An attempt
/// that was lost in the middle of one leaves nothing, and shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_asks_again_for_a_lost_summary_and_goes_on_from_a_recorded_one() {
    let mut ground = Ground::new().await;
    let run = accept(&ground, RULE).await;
    let replies = [
        calls((990, 10)),
        Reply::pieces([text("They wa"), Piece::Hang]),
        says("They want 6*7.", (1_100, 20)),
        Reply::pieces([text("4"), Piece::Hang]),
        says("42", (60, 2)),
    ];
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    for requests in [2, 4] {
        let until = async {
            model.wait_until(|counts| counts.requests >= requests).await;
        };
        attempt(&mut ground, &model, run, until).await;
        let recorded = kinds(&steps(&ground, run).await).len();
        assert_eq!(recorded, if requests == 2 { 2 } else { 3 });
    }
    let ended = to_its_end(&mut ground, &model, run).await;
    assert_eq!((ended.status, ended.attempt), (RunStatus::Completed, 3));
    assert_eq!(
        kinds(&steps(&ground, run).await),
        ["turn", "call", "compaction", "turn"]
    );
    let requests = model.requests();
    assert_eq!(requests.len(), 5);
    assert_eq!(
        requests[1].body, requests[2].body,
        "the same summary is asked for"
    );
    assert_eq!(requests[3].body, requests[4].body, "and the same turn");
    let log = log(&ground, run).await;
    assert_eq!(log.iter().filter(|event| is_compacted(event)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_that_breaks_off_is_asked_for_again_and_one_that_is_not_whole_fails_the_run() {
    let cut = Reply::pieces([text("They wa"), Piece::Cut]);
    for (replies, code, kinds_of_steps) in [
        (
            vec![
                cut,
                says("They want 6*7.", (1_100, 20)),
                says("42", (60, 2)),
            ],
            None,
            vec!["turn", "call", "compaction", "turn"],
        ),
        (
            vec![counted([text("They wa")], "length", (1_100, 20))],
            Some("no_summary"),
            vec!["turn", "call", "cut turn"],
        ),
        (
            vec![counted(
                [Piece::Reasoning("Hm.".to_owned())],
                "stop",
                (1_100, 20),
            )],
            Some("no_summary"),
            vec!["turn", "call", "cut turn"],
        ),
    ] {
        let mut ground = Ground::new().await;
        let run = accept(&ground, RULE).await;
        let replies = [calls((990, 10))].into_iter().chain(replies);
        let model = ScriptedModel::start(Script::sequence(replies))
            .await
            .unwrap();
        let ended = to_its_end(&mut ground, &model, run).await;
        let failed = match &ended.outcome {
            Some(Outcome::Failed(error)) => Some(&*error.code),
            _ => None,
        };
        assert_eq!(failed, code);
        let steps = steps(&ground, run).await;
        assert_eq!(kinds(&steps), kinds_of_steps);
        assert!(
            ended.usage.total_tokens >= 2_120,
            "{code:?}: {:?}",
            ended.usage
        );
        let shown = log(&ground, run).await;
        assert!(!format!("{shown:?}").contains("They wa"), "{code:?}");
        let cut = steps.last().and_then(|step| step.cut_message.as_ref());
        assert!(cut.is_none_or(|cut| !cut.get().contains("They wa")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_the_middle_of_a_summary_shows_none_of_it() {
    let mut ground = Ground::new().await;
    let run = accept(&ground, RULE).await;
    let gate = Gate::closed();
    let replies = [
        calls((990, 10)),
        Reply::pieces([text("They wa"), Piece::Wait(gate)]),
    ];
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    // Its next renewal finds the cancel.
    let lease = Duration::from_secs(8);
    let runner = runner_with(&ground, ground.store.clone(), &model, lease, llm());
    let job = ground.job(run).await;
    let cancelling = async {
        model.wait_until(|counts| counts.requests >= 2).await;
        let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
        tx.request_cancel(run, "enough").await.unwrap();
        tx.commit().await.unwrap();
        std::future::pending::<()>().await;
    };
    let end = async {
        tokio::select! {
            end = runner.run_job(job) => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
            () = cancelling => unreachable!("it waits for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end)).await;
    assert_eq!(end.expect("it takes too long"), JobEnd::Settled);
    assert_eq!(record(&ground, run).await.status, RunStatus::Cancelled);
    let steps = steps(&ground, run).await;
    assert!(!format!("{steps:?}").contains("They wa"), "{steps:?}");
    assert!(!format!("{:?}", log(&ground, run).await).contains("They wa"));
}
