//! Recorded turns and results of calls that wait for each other.

use std::pin::pin;
use std::time::Duration;

use baton_protocol::{CallFailure, Effect, EventId, Fence, FinishReason, Usage};
use baton_store::{
    CallCommit, FenceError, GivenCallsCommit, NewCall, StepRecord, SystemTx, TurnCommit, TurnTimes,
};
use futures_util::future::join_all;

use super::begin;
use crate::fixture::{ANSWER, CHARGE, LONG, Ledger, OVER, usage};
use crate::run_inputs::send;

type Recorded = Result<Vec<StepRecord>, FenceError>;

/// The kinds of steps that a run goes on after. The recorded one is the first of its run.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Turn,
    Call,
}

impl Kind {
    const BOTH: [Self; 2] = [Self::Turn, Self::Call];

    const fn group(self) -> &'static str {
        match self {
            Self::Turn => "steps.commit_turn_group",
            Self::Call => "steps.commit_call_group",
        }
    }

    /// Claims runs of three tenants that can record such a step.
    async fn fences(self, ledger: &Ledger, count: usize) -> Vec<Fence> {
        let fences = ledger.fences(count, 3).await;
        for fence in &fences {
            self.prepare(ledger, fence).await;
        }
        fences
    }

    async fn prepare(self, ledger: &Ledger, fence: &Fence) {
        let given = GivenCallsCommit {
            calls: &[new_call(1)],
            last_event_id: EventId::new(1, 1),
        };
        match self {
            Self::Turn => {}
            Self::Call => {
                let system = ledger.store.system();
                system.begin_given_calls(fence, &given).await.unwrap();
            }
        }
    }

    async fn record(self, system: SystemTx<'_>, fence: &Fence, message: &str) -> Recorded {
        match self {
            Self::Turn => system.commit_turn(fence, &turn(message, &[])).await,
            Self::Call => system.commit_call(fence, &call(message)).await,
        }
    }

    async fn record_all(self, ledger: &Ledger, fences: &[Fence]) -> Vec<Recorded> {
        let system = ledger.store.system();
        join_all(fences.iter().map(|it| self.record(system, it, ANSWER))).await
    }
}

fn turn<'a>(message: &'a str, calls: &'a [NewCall]) -> TurnCommit<'a> {
    TurnCommit {
        step: 1,
        message,
        answer_fields: None,
        charged_model: None,
        usage: usage(3, 4),
        charge: CHARGE,
        times: TurnTimes::default(),
        usage_total: usage(3, 4),
        finish_reason: FinishReason::Stop,
        last_event_id: EventId::new(1, 8),
        calls,
        inputs_step: Some(2),
    }
}

fn call(message: &str) -> CallCommit<'_> {
    CallCommit {
        step: 1,
        ok: true,
        failure: None,
        message,
        duration_ms: 12,
        last_event_id: EventId::new(1, 8),
        started_event_id: EventId::new(1, 7),
        inputs_step: Some(2),
    }
}

fn new_call(step: u32) -> NewCall {
    NewCall {
        step,
        call_id: format!("call_{step}"),
        name: "calculator".into(),
        arguments: "{\"expression\": 15\0".into(),
        effect: Effect::AtMostOnce,
    }
}

/// Returns the number of these runs with their step and its message.
async fn recorded_of(ledger: &Ledger, fences: &[Fence]) -> i64 {
    let recorded = "
        SELECT count(*) FROM runs
        JOIN steps ON steps.tenant_id = runs.tenant_id AND steps.run_id = runs.id
        JOIN messages ON messages.tenant_id = runs.tenant_id AND messages.run_id = runs.id
                     AND messages.step = steps.step
        WHERE runs.id = ANY($1) AND runs.status = 'running' AND runs.failures = 0
          AND steps.step = 1 AND steps.state = 'finished'
          AND steps.last_event_id = 4294967304 AND runs.last_event_id >= 4294967304";
    ledger.count(recorded, fences).await
}

// These tests have one thread, so that all rows wait before the first group begins.

#[tokio::test]
async fn a_group_of_steps_answers_each_exactly_and_repeats_nothing() {
    for kind in Kind::BOTH {
        let ledger = Ledger::new().await;
        let fences = kind.fences(&ledger, 8).await;
        let (locked, steered, together) = (fences[0], fences[3], &fences[4..]);
        let stale = ledger.queued().await;
        let stale = (
            ledger.fence(stale, OVER).await,
            ledger.fence(stale, LONG).await,
        );
        kind.prepare(&ledger, &stale.1).await;
        let sent = send(&ledger, steered.run).await;
        let row = ledger.locked(locked.run).await;

        let mut locked_one = pin!(kind.record(ledger.store.system(), &locked, ANSWER));
        begin(locked_one.as_mut()).await;
        let others = [&[stale.0, steered], together].concat();
        let answers = kind.record_all(&ledger, &others).await;
        assert!(matches!(answers[0], Err(FenceError::Lost)), "{answers:?}");
        let taken = answers[1].as_ref().unwrap();
        assert_eq!((taken.len(), taken[0].step), (1, 2), "{kind:?} {sent:?}");
        for answer in &answers[2..] {
            assert!(answer.as_ref().unwrap().is_empty());
        }
        assert_eq!(recorded_of(&ledger, &[locked, stale.1]).await, 0);
        assert_eq!(recorded_of(&ledger, &others[1..]).await, 5);
        assert_eq!(ledger.commits_of(together).await, 1);
        begin(locked_one.as_mut()).await;
        drop(row);
        assert!(locked_one.await.unwrap().is_empty());

        // As if all answers had been lost.
        let before = ledger.written(&steered).await + &ledger.written(&together[0]).await;
        let answers = kind.record_all(&ledger, &others).await;
        assert!(matches!(answers[0], Err(FenceError::Lost)), "{answers:?}");
        assert_eq!(answers[1].as_ref().unwrap().len(), 1);
        assert!(answers[2..].iter().all(Result::is_ok), "{answers:?}");
        let after = ledger.written(&steered).await + &ledger.written(&together[0]).await;
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn a_step_that_the_database_refuses_spoils_no_other_of_its_group() {
    for kind in Kind::BOTH {
        let ledger = Ledger::new().await;
        let fences = kind.fences(&ledger, 6).await;
        let messages = [ANSWER, "\"\0\"", ANSWER, "{not json", ANSWER, ANSWER];
        let steps = fences.iter().zip(messages);
        let system = ledger.store.system();
        let answers = join_all(steps.map(|(it, message)| kind.record(system, it, message))).await;
        for (answer, message) in answers.iter().zip(messages) {
            match answer {
                Ok(_) => assert_eq!(message, ANSWER),
                Err(FenceError::Store(error)) => {
                    assert!(error.is_bad_value(), "{error:?}");
                    assert_ne!(message, ANSWER);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(recorded_of(&ledger, &fences).await, 4);
    }
}

#[tokio::test]
async fn a_connection_killed_in_the_middle_of_a_group_of_steps_leaves_none_in_doubt() {
    for kind in Kind::BOTH {
        let ledger = Ledger::new().await;
        let fences = kind.fences(&ledger, 6).await;
        let halt = ledger.halted(&fences[2]).await;
        let mut answers = pin!(kind.record_all(&ledger, &fences));
        tokio::select! {
            answers = answers.as_mut() => panic!("they did not wait: {answers:?}"),
            () = ledger.database.until_blocked(kind.group()) => {}
        }
        let kill = "
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND strpos(query, $1) > 0
              AND pid <> pg_backend_pid() AND state = 'active'";
        let killed: i64 = sqlx::query_scalar(kill)
            .bind(format!("-- {}", kind.group()))
            .fetch_one(&mut ledger.superuser().await)
            .await
            .unwrap();
        assert_eq!(killed, 1);
        drop(halt);
        for answer in answers.await {
            assert!(answer.unwrap().is_empty());
        }
        assert_eq!(recorded_of(&ledger, &fences).await, 6);
    }
}

#[tokio::test]
async fn a_group_of_steps_writes_what_the_statement_for_one_step_writes() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let calls = [new_call(2), new_call(3)];
    let turns = [
        turn(ANSWER, &[]),
        TurnCommit {
            finish_reason: FinishReason::ToolCalls,
            inputs_step: None,
            ..turn(ANSWER, &calls)
        },
        TurnCommit {
            answer_fields: Some(r#"{"a":1}"#),
            charged_model: Some("oth\0er"),
            usage: Usage {
                estimated: true,
                ..usage(5, 6)
            },
            usage_total: usage(50, 60),
            times: TurnTimes {
                took: Some(Duration::from_millis(1_500)),
                first_token: Some(Duration::from_millis(70)),
            },
            ..turn(ANSWER, &calls[..1])
        },
    ];
    let fences = ledger.fences(2 * turns.len(), 1).await;
    let (alone, together) = fences.split_at(turns.len());
    for (fence, turn) in alone.iter().zip(&turns) {
        system.commit_turn(fence, turn).await.unwrap();
    }
    let pairs = together.iter().zip(&turns);
    let recorded = join_all(pairs.map(|(fence, turn)| system.commit_turn(fence, turn))).await;
    assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    assert_eq!(ledger.commits_of(together).await, 1);
    for (alone, together) in alone.iter().zip(together) {
        assert_eq!(ledger.written(alone).await, ledger.written(together).await);
    }

    let results = [
        call(ANSWER),
        CallCommit {
            ok: false,
            failure: Some(CallFailure::TimedOut),
            inputs_step: None,
            ..call(ANSWER)
        },
        // Arrives after a later event was recorded, and moves nothing back.
        CallCommit {
            last_event_id: EventId::ORIGIN,
            ..call(ANSWER)
        },
    ];
    let fences = Kind::Call.fences(&ledger, 2 * results.len()).await;
    let (alone, together) = fences.split_at(results.len());
    for (fence, result) in alone.iter().zip(&results) {
        system.commit_call(fence, result).await.unwrap();
    }
    let pairs = together.iter().zip(&results);
    let recorded = join_all(pairs.map(|(fence, result)| system.commit_call(fence, result))).await;
    assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    assert_eq!(ledger.commits_of(together).await, 1);
    for (alone, together) in alone.iter().zip(together) {
        assert_eq!(ledger.written(alone).await, ledger.written(together).await);
    }
    let at_least = "SELECT count(*) FROM runs WHERE id = ANY($1) AND last_event_id >= 4294967297";
    let forward = ledger.count(at_least, &fences).await;
    assert_eq!(forward, 6, "an earlier event moved a cursor back");
}

#[tokio::test]
async fn two_hundred_steps_at_once_are_a_few_commits() {
    for kind in Kind::BOTH {
        let ledger = Ledger::new().await;
        let fences = kind.fences(&ledger, 200).await;
        let answers = kind.record_all(&ledger, &fences).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(recorded_of(&ledger, &fences).await, 200);
        let commits = ledger.commits_of(&fences).await;
        assert!(commits < 10, "{commits}");
    }
}
