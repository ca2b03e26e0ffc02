//! Turns that break off in the middle: withdrawn and repeated, as far as that is allowed.

use baton_harness::scripted_model::{Gate, Piece, Recorded, Reply, Script, ScriptedModel};
use baton_openai::ErrorObject;
use baton_protocol::event::AnswerPart;
use baton_protocol::{Event, EventData, EventId, Usage};
use baton_service::config::LlmConfig;
use baton_store::{RunRecord, StepRecord};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::tests::{PATIENCE, log, runner_with, text};
use super::*;
use crate::fixture::Ground;

const LEASE: Duration = Duration::from_mins(10);

/// The end of a run for which the model gave these answers.
struct Told {
    run: RunRecord,
    log: Vec<Event>,
    requests: Vec<Recorded>,
    said: Vec<String>,
    steps: Vec<StepRecord>,
}

/// Returns an answer that continues with `rest` once its text is in the log.
fn half(rest: impl IntoIterator<Item = Piece>) -> (Reply, Option<Gate>) {
    let gate = Gate::closed();
    let pieces = [text("half an "), Piece::Wait(gate.clone())];
    (Reply::pieces(pieces.into_iter().chain(rest)), Some(gate))
}

fn whole(answer: &str) -> (Reply, Option<Gate>) {
    (Reply::text(answer), None)
}

async fn run(replies: Vec<(Reply, Option<Gate>)>, turn_retries: u32, shown_for_good: bool) -> Told {
    let mut ground = Ground::new().await;
    let (replies, gates): (Vec<_>, Vec<_>) = replies.into_iter().unzip();
    let model = ScriptedModel::start(Script::sequence(replies))
        .await
        .unwrap();
    let llm = LlmConfig {
        turn_retries,
        idle_timeout: Duration::from_secs(1),
        ..LlmConfig::default()
    };
    let runner = runner_with(&ground, ground.store.clone(), &model, LEASE, llm);
    let run = ground
        .accept_with(None, |spec| spec.shown_for_good = shown_for_good)
        .await;
    let job = ground.job(run).await;
    let opening = async {
        for (tries, gate) in gates.into_iter().flatten().enumerate() {
            until(&ground, run, |log| {
                let texts = log.iter().filter(|event| is_text(event));
                texts.count() > tries
            })
            .await;
            gate.open();
        }
        std::future::pending::<()>().await;
    };
    let end = async {
        tokio::select! {
            end = runner.run_job(job) => end,
            () = opening => unreachable!("it waits for ever"),
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end)).await;
    assert_eq!(end.expect("it takes too long"), JobEnd::Settled);
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    let said = tx.run_messages(run).await.unwrap();
    Told {
        run: tx.run(run).await.unwrap().unwrap(),
        log: log(&ground, run).await,
        requests: model.requests(),
        steps: tx.run_steps(run).await.unwrap(),
        said: said
            .iter()
            .map(|message| message.get().to_owned())
            .collect(),
    }
}

fn is_text(event: &Event) -> bool {
    matches!(event.data, EventData::TextDelta(_))
}

async fn until(ground: &Ground, run: RunId, what: impl Fn(&[Event]) -> bool) {
    while !what(&log(ground, run).await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Told {
    fn code(&self) -> &str {
        match &self.run.outcome {
            Some(Outcome::Failed(error)) => &error.code,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the text that remains after all withdrawals.
    fn text(&self) -> String {
        let mut standing: Vec<(EventId, &str)> = Vec::new();
        for event in &self.log {
            match &event.data {
                EventData::TextDelta(delta) => standing.push((event.id, &delta.text)),
                EventData::AttemptReset(reset) => {
                    assert_eq!(reset.resume_after.attempt(), 1);
                    standing.retain(|(id, _)| *id <= reset.resume_after);
                }
                _ => {}
            }
        }
        standing.into_iter().map(|(_, text)| text).collect()
    }

    fn resets(&self) -> usize {
        let resets = self.log.iter();
        resets
            .filter(|event| matches!(event.data, EventData::AttemptReset(_)))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_breaks_off_is_withdrawn_and_asked_for_again() {
    let garbage = Piece::Raw("data: {\"choices\": oops}\n\n".into());
    let overloaded = ErrorObject::new("server_error", "server_error", "overloaded");
    for (what, rest) in [
        ("breaks off", vec![Piece::Cut]),
        ("stalls", vec![Piece::Hang]),
        ("sends garbage", vec![garbage]),
        ("reports an error", vec![Piece::Error(overloaded)]),
        ("aborts", vec![Piece::Finish("abort".into()), Piece::Done]),
    ] {
        let replies = vec![half(rest.clone()), half(rest), whole("a whole answer")];
        let told = run(replies, 2, false).await;
        assert!(
            matches!(told.run.outcome, Some(Outcome::Completed(_))),
            "{what}: {:?}",
            told.run
        );
        assert_eq!(told.requests.len(), 3, "{what}");
        assert_eq!(told.requests[0].body, told.requests[2].body, "{what}");
        assert_eq!(told.text(), "a whole answer", "{what}: {:#?}", told.log);
        assert_eq!(told.resets(), 2, "{what}: {:#?}", told.log);
        assert!(told.log.iter().all(|event| event.id.attempt() == 1));
        assert!(
            told.said.last().unwrap().contains("a whole answer"),
            "{what}"
        );
        assert!(told.run.usage.estimated, "{what}: the broken tries count");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_end_and_then_the_turn_is_recorded_as_it_broke_off() {
    let told = run(vec![half([Piece::Cut]), half([Piece::Cut])], 1, false).await;
    assert_eq!(told.code(), "upstream_cut");
    assert_eq!((told.requests.len(), told.resets()), (2, 1));
    assert_eq!(told.text(), "half an ");
    assert!(told.run.usage.estimated && told.run.usage != Usage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_better_is_not_asked_for_again() {
    let refused = ErrorObject::new("invalid_request_error", "bad", "no");
    let told = run(vec![half([Piece::Error(refused)])], 2, false).await;
    assert_eq!(told.code(), "upstream_error");
    assert_eq!((told.requests.len(), told.resets()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_take_back_what_it_saw_gets_the_error() {
    let told = run(vec![half([Piece::Cut]), whole("never asked")], 2, true).await;
    assert_eq!(told.code(), "upstream_cut");
    assert_eq!((told.requests.len(), told.resets()), (1, 0));

    // A call of a server-side tool is not shown.
    let call = Piece::ToolCall {
        index: 0,
        id: "call_1".into(),
        name: "theirs".into(),
        fragments: vec!["{".into()],
    };
    let unseen = (Reply::pieces([call]).cut(), None);
    let told = run(vec![unseen, whole("asked again")], 2, true).await;
    assert_eq!(told.text(), "asked again");
    assert_eq!((told.requests.len(), told.resets()), (2, 0));
}

/// Guards the whole way of the upstream's other fields: into the log, and into the ledger for a
/// client that comes later.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_nobody_reads_are_shown_and_recorded() {
    let chunk = json!({
        "model": "other", "system_fingerprint": "fp",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"content": []},
                     "delta": {"content": "hi", "annotations": [{"type": "url_citation"}]}}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3,
                  "prompt_tokens_details": {"cached_tokens": 1}},
    });
    let raw = Piece::Raw(format!("data: {chunk}\n\n").into());
    let told = run(vec![(Reply::pieces([raw, Piece::Done]), None)], 0, false).await;
    let shown: Vec<_> = told
        .log
        .iter()
        .filter_map(|event| match &event.data {
            EventData::AnswerField(field) => Some((field.of, &*field.name, &*field.json)),
            _ => None,
        })
        .collect();
    let expected = [
        (AnswerPart::Completion, "model", r#""other""#),
        (
            AnswerPart::Message,
            "annotations",
            r#"[{"type":"url_citation"}]"#,
        ),
        (AnswerPart::Choice, "logprobs", r#"{"content":[]}"#),
        (AnswerPart::Completion, "system_fingerprint", r#""fp""#),
        (
            AnswerPart::Usage,
            "prompt_tokens_details",
            r#"{"cached_tokens":1}"#,
        ),
    ];
    assert_eq!(shown, expected);
    let fields = told.steps[0].answer_fields.as_ref().unwrap();
    let fields: Value = serde_json::from_str(fields.get()).unwrap();
    assert_eq!(
        fields,
        json!({
            "choice": {"logprobs": {"content": []}},
            "completion": {"model": "other", "system_fingerprint": "fp"},
            "usage": {"prompt_tokens_details": {"cached_tokens": 1}},
        })
    );
    assert!(told.said[0].contains("url_citation"), "{:?}", told.said);
    assert!(!told.run.usage.estimated);
}
