//! Runs that wait at a limit of their own.

use baton_harness::scripted_model::{Recorded, Reply, Script, ScriptedModel};
use baton_protocol::{
    ApprovalReason, Decision, EventData, FinishReason, OnLimit, RequestLimits, RunStatus, UseLimits,
};
use baton_run_log::parked_events::question_event;
use baton_store::{ApprovalRecord, DecideOutcome};

use super::limit_tests::{
    accept, attempt, bytes, call, calls_while_it_may, completed, most, record, tokens,
};
use super::tests::{log, text};
use super::*;
use crate::fixture::Ground;

/// A run that waits at its limit after one attempt, with its model.
struct Waiting {
    ground: Ground,
    model: ScriptedModel,
    run: RunId,
}

impl Waiting {
    async fn at(limits: UseLimits, script: Script) -> Self {
        let mut ground = Ground::new().await;
        let run = accept(&ground, limits, OnLimit::Park).await;
        let model = ScriptedModel::start(script).await.unwrap();
        let end = attempt(&mut ground, &model, run, false).await;
        assert_eq!(end, JobEnd::Settled);
        let waiting = Self { ground, model, run };
        assert_eq!(waiting.status().await, RunStatus::AwaitingApproval);
        waiting
    }

    async fn status(&self) -> RunStatus {
        record(&self.ground, self.run).await.status
    }

    /// Returns the questions, the newest last.
    async fn questions(&self) -> Vec<ApprovalRecord> {
        let system = self.ground.store.system();
        let asked = system.run_approvals(self.ground.tenant, self.run).await;
        asked.unwrap()
    }

    /// Decides the newest question, and works on the run once more.
    async fn decide(&mut self, decision: Decision) {
        let question = self.questions().await.pop().unwrap();
        let mut tx = self.ground.store.tenant(self.ground.tenant).await.unwrap();
        let decided = tx.decide(self.run, question.id, &decision, None).await;
        let queued = match decided.unwrap() {
            DecideOutcome::Decided { queued, .. } => queued,
            other => panic!("{other:?}"),
        };
        assert!(queued.is_some());
        tx.commit().await.unwrap();
        let end = attempt(&mut self.ground, &self.model, self.run, false).await;
        assert_eq!(end, JobEnd::Settled);
    }

    fn requests(&self) -> Vec<Recorded> {
        self.model.requests()
    }

    /// Returns the number of calls that began.
    async fn begun(&self) -> usize {
        let log = log(&self.ground, self.run).await.into_iter();
        log.filter(|event| matches!(event.data, EventData::ToolStarted(_)))
            .count()
    }
}

fn raise(limits: UseLimits) -> Decision {
    Decision::Raise {
        limits: RequestLimits::from(limits),
    }
}

/// The limit that leaves room for the first turn with the calculator, and for no second one.
async fn first_turn() -> u64 {
    let mut ground = Ground::new().await;
    let run = accept(&ground, tokens(90_000), OnLimit::Stop).await;
    let script = Script::always(Reply::text("hi"));
    let model = ScriptedModel::start(script).await.unwrap();
    attempt(&mut ground, &model, run, false).await;
    bytes(&model.requests()[0]) + 168
}

/// Guards the whole way: nothing is used beyond the limit, nothing is repeated after it, and the question that
/// is rebuilt from the ledger is the one that the log has.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_at_its_limit_of_tokens_and_goes_on_with_a_higher_one() {
    let limit = first_turn().await;
    let script = Script::sequence([call(&["6*7"]), Reply::text("42")]);
    let mut waiting = Waiting::at(tokens(limit), script).await;
    let asked = waiting.questions().await;
    let [question] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(question.reason, ApprovalReason::Budget);
    let reached = question.reached.clone().unwrap();
    assert_eq!(reached.limit, FinishReason::MaxTokens);
    assert_eq!(reached.limits.max_tokens, Some(limit));
    let used = record(&waiting.ground, waiting.run).await.usage;
    assert_eq!(
        (reached.used.tokens, reached.used.tool_calls),
        (used.total_tokens, 1)
    );
    assert!(reached.used.tokens <= limit);
    let shown = log(&waiting.ground, waiting.run).await.pop().unwrap();
    assert_eq!(shown.data, question_event(question));
    assert!(matches!(shown.data, EventData::BudgetReached(_)));
    assert_eq!(waiting.requests().len(), 1);

    waiting.decide(raise(tokens(90_000))).await;
    let ended = record(&waiting.ground, waiting.run).await;
    assert_eq!(completed(&ended), FinishReason::Stop);
    assert_eq!(waiting.requests().len(), 2);
    assert_eq!(waiting.begun().await, 1);
}

/// Guards the limit after a raise: it is exact too, and the run asks again. A person who then stops it gets the
/// end that the limit would have been.
#[tokio::test(flavor = "multi_thread")]
async fn a_raise_that_is_too_low_for_another_turn_asks_again_and_a_stop_ends_the_run() {
    let limit = first_turn().await;
    let mut waiting = Waiting::at(tokens(limit), calls_while_it_may()).await;
    waiting.decide(raise(tokens(limit + 1))).await;
    assert_eq!(waiting.status().await, RunStatus::AwaitingApproval);
    let asked = waiting.questions().await;
    let newest = asked[1].reached.clone().unwrap();
    assert_eq!(
        (asked.len(), newest.limits.max_tokens),
        (2, Some(limit + 1))
    );
    assert_eq!(waiting.requests().len(), 1);

    waiting.decide(Decision::Stop {}).await;
    let ended = record(&waiting.ground, waiting.run).await;
    assert_eq!(completed(&ended), FinishReason::MaxTokens);
    assert_eq!(waiting.requests().len(), 1);
}

/// Guards an answer that the limit cuts off: it stays, the model is asked to continue it, and its second prompt
/// repeats the first.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_limit_cuts_off_is_continued() {
    let limit = first_turn().await;
    let script = Script::sequence([
        Reply::pieces([text("Once upon")]).ended("length"),
        Reply::text(" a time"),
    ]);
    let mut waiting = Waiting::at(tokens(limit), script).await;
    assert_eq!(waiting.requests().len(), 1);
    waiting.decide(raise(tokens(90_000))).await;
    let ended = record(&waiting.ground, waiting.run).await;
    assert_eq!(completed(&ended), FinishReason::Stop);
    let requests = waiting.requests();
    let messages = requests[1].body["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|it| &it["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(messages[1]["content"], "Once upon");
    assert_eq!(messages[0], requests[0].body["messages"][0]);
    let mut tx = waiting
        .ground
        .store
        .tenant(waiting.ground.tenant)
        .await
        .unwrap();
    let output = tx.run_messages(waiting.run).await.unwrap();
    assert_eq!(output.len(), 2, "{output:?}");
}

/// Guards the limit of calls: none of the turn's calls is made before, and each is made once afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_wait_until_it_is_raised() {
    let script = Script::sequence([call(&["1+1", "2+2", "3+3"]), Reply::text("12")]);
    let calls = |most_calls| most(|most| most.max_tool_calls = Some(most_calls));
    let mut waiting = Waiting::at(calls(2), script).await;
    let asked = waiting.questions().await;
    let reached = asked[0].reached.clone().unwrap();
    assert_eq!(
        (reached.limit, reached.used.tool_calls),
        (FinishReason::MaxToolCalls, 0)
    );
    assert_eq!(waiting.begun().await, 0);
    waiting.decide(raise(calls(3))).await;
    let ended = record(&waiting.ground, waiting.run).await;
    assert_eq!(completed(&ended), FinishReason::Stop);
    assert_eq!(waiting.begun().await, 3);
    let requests = waiting.requests();
    let messages = requests[1].body["messages"].as_array().unwrap();
    let results = messages.iter().filter(|it| it["role"] == "tool");
    let results: Vec<_> = results.map(|it| &it["content"]).collect();
    assert_eq!(results, ["2", "4", "6"]);
}
