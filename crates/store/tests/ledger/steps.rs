//! A run's ledger: the next attempt sees the recorded steps, and each was recorded once.

use baton_protocol::{Effect, EventId, FinishReason, Outcome, Usage};
use baton_store::{
    CallCommit, CallState, CompactionCommit, CutTurn, FenceError, FinalTurn, FinishCommit, NewCall,
    StepData, TurnCommit,
};

use crate::fixture::{ANSWER, CHARGE, DONE, LONG, Ledger, OVER, answer, run_id, usage};

const CALLS: &str = r#"{"role":"assistant","tool_calls":[{"id":"a"},{"id":"b"}]}"#;
const RESULT: &str = r#"{"role":"tool","tool_call_id":"a","content":"127.05"}"#;

fn calls() -> [NewCall; 2] {
    let call = |step, id: &str, effect| NewCall {
        step,
        call_id: id.into(),
        name: "calculator".into(),
        arguments: "{\"expression\": 15\0".into(),
        effect,
    };
    [call(2, "a", Effect::Pure), call(3, "b", Effect::AtMostOnce)]
}

pub(crate) fn turn(calls: &[NewCall]) -> TurnCommit<'_> {
    TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 1,
        message: CALLS,
        usage: usage(10, 5),
        charge: CHARGE,
        usage_total: usage(10, 5),
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(1, 3),
        calls,
    }
}

fn call() -> CallCommit<'static> {
    CallCommit {
        inputs_step: None,
        step: 2,
        ok: true,
        failure: None,
        message: RESULT,
        duration_ms: 12,
        last_event_id: EventId::new(1, 5),
        started_event_id: EventId::new(1, 4),
    }
}

#[tokio::test]
async fn the_next_attempt_finds_what_was_recorded_and_failures_start_anew() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let first = ledger.claimed(run, OVER).await;
    assert!(first.recorded.is_empty());
    let (system, fence) = (ledger.store.system(), first.fence);
    // Each twice, as if the first answer was lost.
    for _ in 0..2 {
        system.commit_turn(&fence, &turn(&calls())).await.unwrap();
        system.start_call(&fence, 3).await.unwrap();
        system.commit_call(&fence, &call()).await.unwrap();
    }
    // A commit that was delayed for long arrives after later ones, and moves nothing back.
    system.commit_turn(&fence, &turn(&calls())).await.unwrap();
    let next = ledger.claimed(run, LONG).await;
    assert_eq!((next.fence.attempt, next.failures), (2, 1));
    assert_eq!(next.last_event_id, EventId::new(1, 5));
    assert_eq!(next.usage, usage(10, 5));

    let [turn, done, started] = &next.recorded[..] else {
        panic!("{:?}", next.recorded);
    };
    assert_eq!((turn.step, done.step, started.step), (1, 2, 3));
    assert_eq!(
        turn.data,
        StepData::Turn {
            finish_reason: FinishReason::ToolCalls,
            usage: usage(10, 5)
        }
    );
    assert_eq!(turn.message.as_ref().unwrap().get(), CALLS);
    assert_eq!(turn.last_event_id, Some(EventId::new(1, 3)));
    let data = |id: &str, effect, state| StepData::Call {
        call_id: id.into(),
        name: "calculator".into(),
        arguments: "{\"expression\": 15\u{fffd}".into(),
        edited_arguments: None,
        paused: None,
        effect,
        state,
    };
    let finished = CallState::Finished {
        ok: true,
        failure: None,
        duration_ms: 12,
    };
    assert_eq!(done.data, data("a", Effect::Pure, finished));
    assert_eq!(done.message.as_ref().unwrap().get(), RESULT);
    assert_eq!(
        started.data,
        data(
            "b",
            Effect::AtMostOnce,
            CallState::Started { decision: None }
        )
    );
    assert!(started.message.is_none());

    // A call with a recorded result cannot begin again.
    let again = system.start_call(&next.fence, 2).await;
    assert!(matches!(again, Err(FenceError::Lost)));
}

#[tokio::test]
async fn the_last_turn_its_message_the_usage_and_the_state_are_one_commit_and_repeatable() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.commit_turn(&fence, &turn(&calls())).await.unwrap();
    let commit = FinishCommit {
        unless_inputs_wait: false,
        outcome: &DONE,
        last_event_id: EventId::new(1, 9),
        usage_total: usage(30, 7),
        turn: Some(FinalTurn {
            answer_fields: None,
            charged_model: None,
            times: baton_store::TurnTimes::default(),
            step: 4,
            message: ANSWER,
            usage: usage(20, 2),
            charge: CHARGE,
            finish_reason: FinishReason::Stop,
            last_event_id: EventId::new(1, 8),
        }),
        cut: None,
    };
    for _ in 0..2 {
        system.finish_run(&fence, &commit).await.unwrap();
    }
    let otherwise = FinishCommit {
        unless_inputs_wait: false,
        outcome: &Outcome::Cancelled("late".into()),
        ..commit
    };
    let refused = system.finish_run(&fence, &otherwise).await;
    assert!(matches!(refused, Err(FenceError::Lost)), "{refused:?}");

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let read = tx.run(run).await.unwrap().unwrap();
    assert_eq!(read.outcome, Some(DONE));
    assert_eq!(read.usage, usage(30, 7));
    assert_eq!(read.last_event_id, EventId::new(1, 9));
    assert!(read.finished_at >= read.started_at);
    let messages = tx.run_messages(run).await.unwrap();
    let messages: Vec<_> = messages.iter().map(|message| message.get()).collect();
    assert_eq!(messages, [CALLS, ANSWER]);
    let steps = tx.run_steps(run).await.unwrap();
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[3].last_event_id, Some(EventId::new(1, 8)));
}

#[tokio::test]
async fn an_ordinary_chat_is_three_commits() {
    let ledger = Ledger::new().await;
    // Every statement that writes leaves the number of its transaction in the row.
    let mut superuser = ledger.superuser().await;
    sqlx::raw_sql(
        "CREATE TABLE written (tx xid8);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             AS 'BEGIN INSERT INTO written VALUES (pg_current_xact_id()); RETURN NULL; END';
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON runs EXECUTE FUNCTION note();
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON steps EXECUTE FUNCTION note();
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON messages EXECUTE FUNCTION note();
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON idempotency_keys
             EXECUTE FUNCTION note();",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    let run = run_id();
    ledger.accept_keyed(run, "k", 1).await;
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &answer(&DONE)).await.unwrap();
    let (statements, commits): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT tx) FROM written")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert_eq!(commits, 3);
    assert_eq!(
        statements, 6,
        "key and run, claim, state and step and message"
    );
}

#[tokio::test]
async fn usage_of_a_run_without_turns_is_nothing() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert_eq!(tx.run(run).await.unwrap().unwrap().usage, Usage::default());
}

/// No reader of messages may take half an answer for a whole one.
#[tokio::test]
async fn a_turn_that_was_broken_off_is_kept_apart_from_what_the_run_said() {
    const HALF: &str = r#"{"role":"assistant","content":"The ans"}"#;
    const FIELDS: &str = r#"{"completion":{"model":"other"}}"#;

    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.commit_turn(&fence, &turn(&calls())).await.unwrap();
    system.commit_call(&fence, &call()).await.unwrap();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(run, "enough").await.unwrap();
    tx.commit().await.unwrap();
    let guessed = Usage {
        estimated: true,
        ..usage(8, 2)
    };
    let commit = FinishCommit {
        unless_inputs_wait: false,
        outcome: &Outcome::Cancelled("enough".into()),
        last_event_id: EventId::new(1, 9),
        usage_total: usage(10, 5) + guessed,
        turn: None,
        cut: Some(CutTurn {
            answer_fields: Some(FIELDS),
            charged_model: Some("other"),
            times: baton_store::TurnTimes::default(),
            step: 4,
            message: HALF,
            usage: guessed,
            charge: CHARGE,
            last_event_id: EventId::new(1, 8),
        }),
    };
    for _ in 0..2 {
        let finished = system.finish_run(&fence, &commit).await.unwrap();
        assert!(finished.cancel_latency.is_some());
    }

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let read = tx.run(run).await.unwrap().unwrap();
    assert_eq!(read.usage, usage(10, 5) + guessed);
    assert!(read.usage.estimated);
    assert!(read.cancel_latency.is_some());
    let said = tx.run_messages(run).await.unwrap();
    assert!(said.iter().all(|message| message.get() != HALF));
    let steps = tx.run_steps(run).await.unwrap();
    assert_eq!(steps[1].started_event_id, Some(EventId::new(1, 4)));
    let last = steps.last().unwrap();
    assert_eq!(last.data, StepData::CutTurn { usage: guessed });
    assert!(last.message.is_none());
    assert_eq!(last.cut_message.as_ref().unwrap().get(), HALF);
    assert_eq!(last.answer_fields.as_ref().unwrap().get(), FIELDS);
    assert_eq!(last.last_event_id, Some(EventId::new(1, 8)));
}

#[tokio::test]
async fn a_summary_is_recorded_once_by_its_holder_and_charged_and_is_nothing_that_the_run_said() {
    const SUMMARY: &str = r#"{"role":"assistant","content":"They ask for 15 %."}"#;

    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let first = ledger.claimed(run, OVER).await.fence;
    let compaction = CompactionCommit {
        step: 1,
        summary: SUMMARY,
        charged_model: None,
        usage: usage(900, 40),
        charge: CHARGE,
        times: baton_store::TurnTimes::default(),
        usage_total: usage(900, 40),
        last_event_id: EventId::new(1, 2),
    };
    let system = ledger.store.system();
    // Twice, as if the first answer was lost.
    for _ in 0..2 {
        let recorded = system.commit_compaction(&first, &compaction).await;
        recorded.unwrap();
    }
    let next = ledger.claimed(run, LONG).await;
    assert_eq!(next.last_event_id, EventId::new(1, 2));
    assert_eq!(next.usage, usage(900, 40));
    let [step] = &next.recorded[..] else {
        panic!("{:?}", next.recorded);
    };
    assert_eq!(
        step.data,
        StepData::Compaction {
            usage: usage(900, 40)
        }
    );
    assert_eq!(step.message.as_ref().unwrap().get(), SUMMARY);
    let replaced = CompactionCommit {
        step: 2,
        ..compaction
    };
    let refused = system.commit_compaction(&first, &replaced).await;
    assert!(matches!(refused, Err(FenceError::Lost)), "{refused:?}");

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.run_messages(run).await.unwrap().is_empty());
    assert_eq!(tx.run_steps(run).await.unwrap().len(), 1);
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM usage_entries WHERE run_id = $1")
        .bind(run.as_uuid())
        .fetch_one(&mut ledger.superuser().await)
        .await
        .unwrap();
    assert_eq!(entries, 1, "it is charged once");
}

#[tokio::test]
async fn a_turn_that_is_gone_on_from_keeps_its_guess_its_fields_and_the_model_that_is_charged() {
    const FIELDS: &str = r#"{"completion":{"model":"other"}}"#;

    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let guessed = Usage {
        estimated: true,
        ..usage(8, 2)
    };
    let calls = calls();
    let turn = TurnCommit {
        inputs_step: None,
        answer_fields: Some(FIELDS),
        charged_model: Some("other"),
        times: baton_store::TurnTimes::default(),
        usage: guessed,
        usage_total: guessed,
        ..turn(&calls)
    };
    let system = ledger.store.system();
    for _ in 0..2 {
        system.commit_turn(&fence, &turn).await.unwrap();
    }
    let steps = system.recorded_steps(ledger.tenant, run).await.unwrap();
    assert_eq!(steps[0].answer_fields.as_ref().unwrap().get(), FIELDS);
    let StepData::Turn { usage, .. } = steps[0].data else {
        panic!("{:?}", steps[0])
    };
    assert_eq!(usage, guessed);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.run(run).await.unwrap().unwrap().usage.estimated);
    let mut superuser = ledger.superuser().await;
    let charged: String = sqlx::query_scalar("SELECT model FROM usage_entries WHERE run_id = $1")
        .bind(run.as_uuid())
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(charged, "other");
}
