//! Runs of a key with a monthly budget: the limits that they send to the model, and their charges.

use baton_harness::scripted_model::{Gate, Piece, Recorded, Reply, Script, ScriptedModel};
use baton_protocol::{ApiKeyId, Event, EventData, FinishReason};
use baton_service::config::{LlmConfig, ModelPrice};
use baton_service::{Clock as _, SystemClock};
use baton_store::{
    AuditFilter, KeyLimits, KeyUsage, NewApiKey, RunRecord, UsageFilter, UsageGroups, UsageSum,
};
use serde_json::json;
use tokio::time::timeout;

use super::tests::{PATIENCE, runner, runner_with, text, until_logged};
use super::*;
use crate::fixture::Ground;

const LEASE: Duration = Duration::from_mins(10);
/// The bytes of the request that [`Ground::accept_of`] leads to, rounded up.
const PROMPT: u64 = 400;

/// A fixture with one key and its configuration.
struct Story {
    ground: Ground,
    key: ApiKeyId,
    llm: LlmConfig,
}

impl Story {
    async fn new(limits: KeyLimits) -> Self {
        let ground = Ground::new().await;
        let key = NewApiKey {
            id: ApiKeyId::new(SystemClock.now()),
            hash: [1; 32],
            name: "k".into(),
            prefix: "bt_".into(),
            scopes: vec!["*".into()],
            allowed_models: None,
            allowed_tools: None,
            expires_at: None,
            limits,
            created_by: None,
        };
        let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
        tx.create_api_key(&key).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            ground,
            key: key.id,
            llm: LlmConfig {
                turn_retries: 0,
                ..LlmConfig::default()
            },
        }
    }

    async fn of_tokens(limit: u64) -> Self {
        Self::new(KeyLimits {
            monthly_tokens: Some(limit),
            ..KeyLimits::default()
        })
        .await
    }

    /// Runs one run with this answer of the model; returns the ended run, and the requests.
    async fn run(&mut self, reply: Reply) -> (RunRecord, Vec<Recorded>) {
        self.run_script(Script::always(reply)).await
    }

    async fn run_script(&mut self, script: Script) -> (RunRecord, Vec<Recorded>) {
        let model = ScriptedModel::start(script).await.unwrap();
        let store = self.ground.store.clone();
        let runner = runner_with(&self.ground, store, &model, LEASE, self.llm.clone());
        let run = self.ground.accept_of(Some(self.key)).await;
        let job = self.ground.job(run).await;
        let end = async {
            tokio::select! {
                end = runner.run_job(job) => end,
                () = runner.leases.keep() => unreachable!("it keeps for ever"),
            }
        };
        let end = timeout(PATIENCE, Box::pin(end)).await;
        assert_eq!(end.expect("it takes too long"), JobEnd::Settled);
        (self.record(run).await, model.requests())
    }

    async fn record(&self, run: RunId) -> RunRecord {
        let mut tx = self.ground.store.tenant(self.ground.tenant).await.unwrap();
        tx.run(run).await.unwrap().unwrap()
    }

    async fn month(&self) -> KeyUsage {
        let mut tx = self.ground.store.tenant(self.ground.tenant).await.unwrap();
        tx.key_usage().await.unwrap().remove(0)
    }

    async fn entered(&self) -> UsageSum {
        let filter = UsageFilter {
            from: "2000-01-01".parse().unwrap(),
            to: "2999-12-31".parse().unwrap(),
            by: UsageGroups::default(),
        };
        let mut tx = self.ground.store.tenant(self.ground.tenant).await.unwrap();
        tx.usage(&filter, None, 1).await.unwrap().data.remove(0)
    }
}

fn completed(run: &RunRecord) -> FinishReason {
    match &run.outcome {
        Some(Outcome::Completed(reason)) => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budgeted_answer_is_limited_by_what_is_left_and_charged_by_what_was_used() {
    let mut story = Story::of_tokens(2_000).await;
    let (run, requests) = story.run(Reply::text("one two three")).await;
    assert_eq!(completed(&run), FinishReason::Stop);
    // The configured limit, as long as that much is left.
    assert_eq!(requests[0].body["max_tokens"], 1_000);
    let month = story.month().await;
    assert_eq!((month.reserved_tokens, month.running), (0, 0));
    assert_eq!(month.spent_tokens, run.usage.total_tokens);
    assert!(month.spent_tokens < 20, "{month:?}");

    let mut story = Story::of_tokens(PROMPT).await;
    let (run, requests) = story
        .run(Reply::pieces([text("one")]).ended("length"))
        .await;
    let limit = requests[0].body["max_tokens"].as_u64().unwrap();
    assert!((16..PROMPT).contains(&limit), "{limit}");
    assert_eq!(
        completed(&run),
        FinishReason::Budget,
        "it is why the answer is short"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_little_left_the_model_is_not_asked() {
    let mut story = Story::of_tokens(60).await;
    let (run, requests) = story.run(Reply::text("never")).await;
    assert_eq!(completed(&run), FinishReason::Budget);
    assert!(requests.is_empty());
    assert_eq!(story.month().await.spent_tokens, 0);

    // A missing price is not a price of zero.
    let mut story = Story::new(KeyLimits {
        monthly_cost_micros: Some(1_000_000),
        ..KeyLimits::default()
    })
    .await;
    let (run, requests) = story.run(Reply::text("never")).await;
    let Some(Outcome::Failed(error)) = run.outcome else {
        panic!("{:?}", run.outcome)
    };
    assert_eq!(error.code, "price_unknown");
    assert!(requests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_counted_is_charged_by_its_bytes() {
    let mut story = Story::of_tokens(5_000).await;
    let uncounted = [
        text("twelve bytes"),
        Piece::Finish("stop".into()),
        Piece::Done,
    ];
    let (run, _) = story.run(Reply::pieces(uncounted)).await;
    assert_eq!(run.usage.completion_tokens, 12);
    assert!(run.usage.estimated);
    let sum = story.entered().await;
    assert_eq!((sum.output_tokens, sum.estimated_turns), (12, 1));
    assert!((100..PROMPT).contains(&sum.input_tokens), "{sum:?}");
    let month = story.month().await;
    assert_eq!(month.spent_tokens, sum.input_tokens + sum.output_tokens);

    // Without a budget they are estimated as for an interrupted answer, and marked.
    let mut free = Story::new(KeyLimits::default()).await;
    let (run, requests) = free
        .run(Reply::pieces([
            text("twelve bytes"),
            Piece::Finish("stop".into()),
            Piece::Done,
        ]))
        .await;
    assert_eq!(run.usage.completion_tokens, 3);
    assert!(
        run.usage.prompt_tokens > 0 && run.usage.estimated,
        "{run:?}"
    );
    assert_eq!(requests[0].body.get("max_tokens"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_fails_is_charged_by_what_the_upstream_may_have_done() {
    // The upstream refused.
    let mut story = Story::of_tokens(5_000).await;
    let (run, _) = story.run(Reply::status(400)).await;
    assert!(matches!(run.outcome, Some(Outcome::Failed(_))), "{run:?}");
    assert_eq!(story.month().await.spent_tokens, 0);
    // The upstream worked and broke off before it had shown anything: a retry would cost twice.
    let (run, requests) = story.run(Reply::pieces([]).cut()).await;
    assert!(matches!(run.outcome, Some(Outcome::Failed(_))), "{run:?}");
    assert_eq!(requests.len(), 1);
    let month = story.month().await;
    assert!(
        (1_100..1_000 + PROMPT).contains(&month.spent_tokens),
        "{month:?}"
    );
    // The upstream broke off after some text.
    let before = month.spent_tokens;
    let (run, _) = story.run(Reply::pieces([text("1234567890")]).cut()).await;
    assert!(matches!(run.outcome, Some(Outcome::Failed(_))), "{run:?}");
    let month = story.month().await;
    assert!(
        (100..PROMPT).contains(&(month.spent_tokens - before)),
        "{month:?}"
    );
    assert_eq!(month.reserved_tokens, 0);
}

/// Runs a whole cancel: the keeper hears of it, the work is dropped, the end is settled.
async fn cancelled(story: &mut Story, reply: Reply, shows: bool) -> u64 {
    let model = ScriptedModel::start(Script::always(reply)).await.unwrap();
    let lease = Duration::from_secs(3);
    let runner = runner(&story.ground, story.ground.store.clone(), &model, lease);
    let run = story.ground.accept_of(Some(story.key)).await;
    let job = story.ground.job(run).await;
    let cancelling = async {
        if shows {
            let text = |event: &Event| matches!(event.data, EventData::TextDelta(_));
            until_logged(&story.ground, run, text).await;
        } else {
            model.wait_until(|counts| counts.requests > 0).await;
        }
        let mut tx = story
            .ground
            .store
            .tenant(story.ground.tenant)
            .await
            .unwrap();
        tx.request_cancel(run, "enough").await.unwrap();
        tx.commit().await.unwrap();
        runner.leases.nudge(run);
    };
    let before = story.month().await.spent_tokens;
    let end = async {
        tokio::select! {
            (end, ()) = async { tokio::join!(runner.run_job(job), cancelling) } => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
        }
    };
    timeout(PATIENCE, Box::pin(end))
        .await
        .expect("it takes too long");
    let record = story.record(run).await;
    assert!(
        matches!(record.outcome, Some(Outcome::Cancelled(_))),
        "{record:?}"
    );
    let month = story.month().await;
    assert_eq!(month.reserved_tokens, 0);
    month.spent_tokens - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_turn_is_charged_its_prompt_and_what_it_had_shown() {
    let mut story = Story::of_tokens(5_000).await;
    let hidden = cancelled(&mut story, Reply::hang_before_headers(), false).await;
    assert!((100..PROMPT).contains(&hidden), "{hidden}");
    let gate = Gate::closed();
    let shown = Reply::pieces([text("1234567890"), Piece::Wait(gate), text("never")]);
    let shown = cancelled(&mut story, shown, true).await;
    assert_eq!(shown, hidden + 10);
}

/// Guards the budget of a repeated turn: each try is charged, and none exceeds the budget.
#[tokio::test(flavor = "multi_thread")]
async fn broken_tries_are_charged_and_end_with_the_budget() {
    let broken = || Reply::pieces([text("1234567890")]).cut();
    let mut story = Story::of_tokens(5_000).await;
    story.llm.turn_retries = 2;
    let (run, requests) = story
        .run_script(Script::sequence([broken(), broken(), Reply::text("done")]))
        .await;
    assert_eq!(completed(&run), FinishReason::Stop);
    assert_eq!(requests.len(), 3);
    let month = story.month().await;
    assert_eq!(month.spent_tokens, run.usage.total_tokens);
    assert!(
        run.usage.estimated && run.usage.completion_tokens >= 20,
        "{run:?}"
    );
    assert!(month.spent_tokens > 2 * 100, "{month:?}");
    assert_eq!(month.reserved_tokens, 0);

    // Too little is left for all permitted tries.
    let mut story = Story::of_tokens(PROMPT).await;
    story.llm.turn_retries = 2;
    let (run, requests) = story.run(broken()).await;
    let Some(Outcome::Failed(error)) = &run.outcome else {
        panic!("{run:?}")
    };
    assert_eq!(error.code, "upstream_cut");
    assert!(requests.len() < 3, "{} tries", requests.len());
    let month = story.month().await;
    assert_eq!(month.spent_tokens, run.usage.total_tokens);
    assert!(month.spent_tokens <= PROMPT, "{month:?}");
    assert_eq!(month.reserved_tokens, 0);
}

/// Guards the budget against the estimate: an answer has more bytes than tokens, and its limit was
/// in tokens.
#[tokio::test(flavor = "multi_thread")]
async fn an_uncounted_answer_is_charged_for_no_more_than_it_was_allowed() {
    for reply in [
        Reply::pieces([text(&"x".repeat(2_000))]).cut(),
        Reply::pieces([
            text(&"x".repeat(2_000)),
            Piece::Finish("stop".into()),
            Piece::Done,
        ]),
    ] {
        let mut story = Story::of_tokens(PROMPT + 100).await;
        let (run, _) = story.run(reply).await;
        let month = story.month().await;
        assert_eq!(month.spent_tokens, run.usage.total_tokens);
        assert_eq!(month.spent_tokens, PROMPT + 100, "all that was taken");
        assert_eq!(month.reserved_tokens, 0);
    }
}

/// Guards a key's budget in money when a gateway falls back to other models.
#[tokio::test(flavor = "multi_thread")]
async fn the_price_is_that_of_the_model_that_answered_and_another_one_is_audited() {
    let price = |model: &str, each: &str| ModelPrice {
        model: model.to_owned(),
        input_per_million: each.parse().unwrap(),
        cached_input_per_million: None,
        output_per_million: each.parse().unwrap(),
    };
    let answer = |model: &str| {
        let chunk = json!({
            "model": model,
            "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        });
        Reply::pieces([Piece::Raw(format!("data: {chunk}\n\n").into()), Piece::Done])
    };
    // 10 tokens at a millionth each, or at a thousand times that.
    for (answered, spent, charged, audited) in [
        ("m", 10, "m", 0),
        ("m-2026-01-01", 10, "m", 0),
        ("dear", 10_000, "dear", 1),
        ("unknown", 10, "unknown", 1),
    ] {
        let mut story = Story::new(KeyLimits {
            monthly_cost_micros: Some(10_000_000),
            ..KeyLimits::default()
        })
        .await;
        story.llm.prices = vec![price("m", "1.00"), price("dear", "1000.00")];
        let (run, _) = story.run(answer(answered)).await;
        assert_eq!(completed(&run), FinishReason::Stop, "{answered}");
        let month = story.month().await;
        assert_eq!(month.spent.0, spent * 1_000, "{answered}: {month:?}");
        let system = story.ground.store.system();
        let filter = AuditFilter {
            action: Some("run.other_model".into()),
            limit: 10,
            ..AuditFilter::default()
        };
        let entries = system.audit_log(&filter).await.unwrap();
        assert_eq!(entries.len(), audited, "{answered}: {entries:?}");
        if let Some(entry) = entries.first() {
            let detail = entry.detail.as_deref().unwrap();
            assert!(
                detail.contains("`m`") && detail.contains(answered),
                "{detail}"
            );
            assert_eq!(entry.target.as_deref(), Some(&*run.id.to_string()));
        }
        let filter = UsageFilter {
            from: "2000-01-01".parse().unwrap(),
            to: "2999-12-31".parse().unwrap(),
            by: UsageGroups {
                model: true,
                ..UsageGroups::default()
            },
        };
        let mut tx = story
            .ground
            .store
            .tenant(story.ground.tenant)
            .await
            .unwrap();
        let sums = tx.usage(&filter, None, 10).await.unwrap().data;
        assert_eq!(sums[0].model.as_deref(), Some(charged), "{sums:?}");
    }
}
