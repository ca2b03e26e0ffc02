//! A message that is no submission is set aside and refused, and delays no other message.

use baton_nats::{DeadLetter, KEPT_OF_A_LETTER, NotReplayed, Replayed};
use baton_protocol::TenantId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Program, fresh, question, refusal, submission};
use crate::fixture::{Fixture, soon};

async fn letters(f: &Fixture) -> Vec<DeadLetter> {
    let mut found: Vec<DeadLetter> = Vec::new();
    let mut next = 1;
    while let Some(letter) = f.bus.dead_letter(next).await.unwrap() {
        next = letter.seq + 1;
        found.push(letter);
    }
    found
}

/// Guards the quarantine: every kind of bad message has its reason in the answer and in the copy,
/// and a good message after all of them becomes a run.
#[tokio::test]
async fn what_is_no_submission_is_kept_with_its_reason_and_blocks_nobody() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let with = |fields: Value| {
        let mut message = submission(run, question());
        for (name, value) in fields.as_object().unwrap() {
            message[name] = value.clone();
        }
        message.to_string()
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let wrong = json!({"model": "m", "input": "x", "colour": "blue"});
    let cases = [
        ("interactive", "garbage".to_owned(), "invalid_json", false),
        (
            "interactive",
            with(json!({"v": 2})),
            "unsupported_version",
            true,
        ),
        (
            "interactive",
            with(json!({"kind": "run"})),
            "unknown_kind",
            true,
        ),
        (
            "interactive",
            with(json!({"run_id": Uuid::new_v4()})),
            "invalid_run_id",
            false,
        ),
        (
            "interactive",
            with(json!({"extra": 1})),
            "invalid_json",
            true,
        ),
        ("interactive", deep, "json_too_deep", false),
        (
            "interactive",
            with(json!({"request": wrong})),
            "invalid_json",
            true,
        ),
        (
            "background",
            with(json!({"request_id": "a b"})),
            "invalid_request",
            true,
        ),
    ];
    for (lane, payload, code, run_known) in &cases {
        let answer = program.publish_bytes(lane, payload).await;
        assert_eq!(refusal(&answer), *code, "{payload}");
        assert!(!run_known || answer["run_id"] == json!(run));
    }
    let kept = letters(&f).await;
    assert_eq!(kept.len(), cases.len());
    for (letter, (lane, payload, code, run_known)) in kept.iter().zip(&cases) {
        let subject = format!("submit.{}.{}.{lane}", f.tenant, program.key);
        assert_eq!(letter.subject, subject);
        assert!(letter.reason.starts_with(code), "{letter:?}");
        assert_eq!(letter.payload, payload.as_bytes());
        assert_eq!(letter.publisher.unwrap().to_string(), program.key);
        assert!(!run_known || letter.run == Some(run));
    }
    assert_eq!(program.submit(run, question()).await["ok"], true);
}

/// Guards the publisher: a subject opens nothing unless its key belongs to its tenant and is good.
#[tokio::test]
async fn a_subject_with_a_key_that_is_none_of_its_tenants_opens_nothing() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let elsewhere = Program {
        tenant: TenantId::from_uuid(Uuid::now_v7()),
        ..Program::with_id(&f, &program.key).await
    };
    let nobody = Program::with_id(&f, &Uuid::now_v7().to_string()).await;
    for stranger in [&elsewhere, &nobody] {
        let decide = json!({"approval_id": run, "decision": "retry"});
        for answer in [
            stranger.submit(run, question()).await,
            stranger.control(run, "cancel", json!({})).await,
            stranger.control(run, "decide", decide).await,
            stranger.history(run, json!({})).await,
        ] {
            assert_eq!(refusal(&answer), "invalid_api_key");
        }
    }
    let kept = letters(&f).await;
    assert_eq!(kept.len(), 2, "{kept:?}");
}

/// Guards the limit on one publisher's letters in DEAD, which holds others' messages as well.
#[tokio::test]
async fn one_publisher_leaves_no_more_than_so_much_garbage() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let long = "garbage ".repeat(25_000);
    for _ in 0..10 {
        let answer = program.publish_bytes("interactive", &long).await;
        assert_eq!(refusal(&answer), "invalid_json");
    }
    // By bytes: at most a minute's share of DEAD, and only the beginning of each letter.
    let left = letters(&f).await;
    let kept: usize = left.iter().map(|letter| letter.payload.len()).sum();
    assert!((2..10).contains(&left.len()), "{}", left.len());
    assert!(kept <= left.len() * KEPT_OF_A_LETTER, "{kept}");
    assert_eq!(left[0].length, long.len() as u64);
    // Others' letters are kept as before, those of its own tenant, too.
    let other = Program::new(&f, json!({})).await;
    other.publish_bytes("interactive", "garbage").await;
    assert_eq!(letters(&f).await.len(), left.len() + 1);
}

/// Guards the way back out of DEAD: after the cause is fixed, an operator submits the message again
/// on behalf of its publisher, and the same run results.
#[tokio::test]
async fn what_was_set_aside_is_submitted_again_on_behalf_of_its_publisher() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let run = fresh();
    let message = submission(run, question());
    // Set aside as by an older server, which knew less.
    program.bury("background", &message).await;

    let letter = letters(&f).await.remove(0);
    for again in [false, true] {
        let Replayed::Answered(answer) = soon(f.bus.replay(&letter)).await.unwrap() else {
            panic!("an ingress takes submissions")
        };
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(
            answer["replayed"] == true,
            again,
            "once is enough, twice does no harm"
        );
    }
    let record = f.record(run).await;
    assert_eq!(record.api_key_id.unwrap().to_string(), program.key);
    assert_eq!(f.bus.dead_letters().await.unwrap(), 1, "its copy stays");

    // A message that is still bad is refused again, and not kept twice.
    program.bury("background", "garbage").await;
    let letter = letters(&f).await.remove(1);
    let Replayed::Answered(answer) = soon(f.bus.replay(&letter)).await.unwrap() else {
        panic!("an ingress takes submissions")
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(refusal(&answer), "invalid_json");
    assert_eq!(f.bus.dead_letters().await.unwrap(), 2);
}

/// Guards the replay against letters of older versions: they trusted the publisher's name in a
/// header.
#[tokio::test]
async fn what_an_older_version_set_aside_is_not_submitted_again_for_a_key_that_a_header_names() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let message = submission(fresh(), question());
    let dead = format!("dead.submit.{}.background", f.tenant);
    program.bury_at(dead, &message).await;
    let letter = letters(&f).await.remove(0);
    assert_eq!(letter.publisher, None);
    let refused = soon(f.bus.replay(&letter)).await.unwrap_err();
    assert!(matches!(refused, NotReplayed::NoPublisher), "{refused}");
}
