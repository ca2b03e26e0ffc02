//! Runs on threads: what they begin with, what they leave, and which of them goes first.

use baton_protocol::{Effect, EventId, FinishReason, Outcome, RunId, ThreadId};
use baton_store::{
    Accept, CancelRequest, ClaimOutcome, IdempotencyKey, MOST_WAITING_INPUTS, MessageOrder,
    NewCall, NewRun, OnBusy, Refusal, TurnCommit,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{
    ANSWER, CHARGE, DONE, LONG, Ledger, OVER, ROOMY, answer, finish, new_run, run_id, spec, usage,
};
use crate::threads::{append, new_thread};

/// Returns the texts of a thread's messages, in order.
async fn contents(ledger: &Ledger, thread: ThreadId) -> Vec<String> {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let page = tx.thread_messages(thread, MessageOrder::Ascending, None, 100);
    let messages = page.await.unwrap().data;
    assert!(
        messages
            .iter()
            .zip(1..)
            .all(|(message, place)| message.position == place)
    );
    texts(messages.iter().map(|it| it.message.get()))
}

fn texts<'a>(messages: impl Iterator<Item = &'a str>) -> Vec<String> {
    messages
        .map(|message| {
            let message: Value = serde_json::from_str(message).unwrap();
            message["content"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Returns the texts of the messages in a specification.
fn input(spec_json: &str) -> Vec<String> {
    let spec: baton_protocol::RunSpec = serde_json::from_str(spec_json).unwrap();
    let messages: Vec<Value> = serde_json::from_str(spec.messages.get()).unwrap();
    let messages: Vec<_> = messages.iter().map(Value::to_string).collect();
    texts(messages.iter().map(String::as_str))
}

#[tokio::test]
async fn a_run_begins_with_its_thread_and_leaves_its_messages_there_once() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    append(&mut tx, thread, "I like trains.").await;
    tx.commit().await.unwrap();
    let begun_with = ["I like trains.", "6 times 7?"];

    let first = ledger.queued_in(Some(thread)).await;
    let lost = ledger.claimed(first, OVER).await;
    assert_eq!(input(&lost.spec_json), begun_with);
    // Another attempt begins with the same, and what has not ended has left nothing.
    let claimed = ledger.claimed(first, LONG).await;
    assert_eq!(input(&claimed.spec_json), begun_with);
    assert_eq!(contents(&ledger, thread).await, ["I like trains."]);

    let system = ledger.store.system();
    system
        .finish_run(&claimed.fence, &answer(&DONE))
        .await
        .unwrap();
    // The answer was lost, and the end is repeated.
    system
        .finish_run(&claimed.fence, &answer(&DONE))
        .await
        .unwrap();
    let after = ["I like trains.", "6 times 7?", "42"];
    assert_eq!(contents(&ledger, thread).await, after);

    let second = ledger.queued_in(Some(thread)).await;
    let claimed = ledger.claimed(second, LONG).await;
    let begun_with = ["I like trains.", "6 times 7?", "42", "6 times 7?"];
    assert_eq!(input(&claimed.spec_json), begun_with);
    let spec: Value = serde_json::from_str(&claimed.spec_json).unwrap();
    assert_eq!(
        spec["messages"][2],
        serde_json::from_str::<Value>(ANSWER).unwrap()
    );
}

#[tokio::test]
async fn of_fifty_runs_at_once_one_joins_the_thread_or_all_go_one_after_the_other() {
    let ledger = Ledger::new().await;
    for (on_busy, joining) in [(OnBusy::Reject, 1), (OnBusy::Queue, 50)] {
        let thread = new_thread(&ledger).await;
        let submissions = (0..50).map(|_| {
            let ledger = &ledger;
            async move {
                let (id, spec) = (run_id(), spec());
                let run = NewRun {
                    thread_id: Some(thread),
                    on_busy,
                    ..new_run(id, &spec)
                };
                match ledger.accept_with(&run, &ROOMY).await.unwrap() {
                    Accept::Created { .. } => Some(id),
                    Accept::Refused(Refusal::ThreadBusy) => None,
                    other => panic!("{other:?}"),
                }
            }
        });
        let accepted = futures_util::future::join_all(submissions).await;
        let mut accepted: Vec<RunId> = accepted.into_iter().flatten().collect();
        assert_eq!(accepted.len(), joining, "{on_busy:?}");
        accepted.sort_by_key(RunId::as_uuid);

        // All claim at once, and only the oldest gets its turn.
        let claims = accepted.iter().map(|run| ledger.try_claim(*run));
        let outcomes = futures_util::future::join_all(claims).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                ClaimOutcome::Claimed(_) => assert_eq!(place, 0),
                ClaimOutcome::Waiting => assert_ne!(place, 0),
                other => panic!("{other:?}"),
            }
        }
        let ClaimOutcome::Claimed(claimed) = &outcomes[0] else {
            unreachable!()
        };
        let system = ledger.store.system();
        let ended = system.finish_run(&claimed.fence, &answer(&DONE)).await;
        let promoted = ended.unwrap().promoted.map(|job| job.run);
        assert_eq!(promoted, accepted.get(1).copied());
    }
}

#[tokio::test]
async fn a_run_that_has_begun_keeps_its_thread_while_it_is_queued_again() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let first = ledger.queued_in(Some(thread)).await;
    let second = ledger.queued_in(Some(thread)).await;
    ledger.claimed(first, OVER).await;
    let system = ledger.store.system();
    assert_eq!(system.requeue_expired(10).await.unwrap().len(), 1);
    let outcome = ledger.try_claim(second).await;
    assert!(matches!(outcome, ClaimOutcome::Waiting), "{outcome:?}");
    let fence = ledger.fence(first, LONG).await;
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    let outcome = ledger.try_claim(second).await;
    assert!(matches!(outcome, ClaimOutcome::Claimed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_call_without_a_result() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let never_begun = ledger.queued_in(Some(thread)).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(never_begun, "x").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(contents(&ledger, thread).await, [""; 0]);

    let run = ledger.queued_in(Some(thread)).await;
    let fence = ledger.fence(run, LONG).await;
    let call = NewCall {
        step: 2,
        call_id: "call_1".into(),
        name: "pay".into(),
        arguments: "{}".into(),
        effect: Effect::AtMostOnce,
    };
    let message = json!({"role": "assistant", "content": "calling", "tool_calls": []});
    let turn = TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 1,
        message: &message.to_string(),
        usage: usage(3, 4),
        charge: CHARGE,
        usage_total: usage(3, 4),
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(1, 2),
        calls: &[call],
    };
    let system = ledger.store.system();
    system.commit_turn(&fence, &turn).await.unwrap();
    let cancelled = baton_protocol::Outcome::Cancelled("x".into());
    system
        .finish_run(&fence, &finish(&cancelled))
        .await
        .unwrap();
    assert_eq!(contents(&ledger, thread).await, ["6 times 7?"]);
}

#[tokio::test]
async fn a_repeated_submission_finds_its_run_on_a_busy_thread() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let (id, spec) = (run_id(), spec());
    let key = IdempotencyKey {
        key: "k".into(),
        fingerprint: [1; 32],
    };
    let run = NewRun {
        thread_id: Some(thread),
        on_busy: OnBusy::Reject,
        idempotency: Some(&key),
        ..new_run(id, &spec)
    };
    let accepted = ledger.accept_with(&run, &ROOMY).await.unwrap();
    assert!(matches!(accepted, Accept::Created { .. }), "{accepted:?}");
    let repeated = NewRun {
        id: run_id(),
        ..run
    };
    let known = ledger.accept_with(&repeated, &ROOMY).await.unwrap();
    assert_eq!(known.replayed(), Some(id));
    let elsewhere = NewRun {
        thread_id: Some(ThreadId::from_uuid(Uuid::now_v7())),
        idempotency: None,
        ..new_run(run_id(), &spec)
    };
    let refused = ledger.accept_with(&elsewhere, &ROOMY).await.unwrap();
    assert!(
        matches!(refused, Accept::Refused(Refusal::ThreadNotFound)),
        "{refused:?}"
    );
}

/// Accepts a run on a thread under this rule.
async fn accept(ledger: &Ledger, thread: ThreadId, on_busy: OnBusy) -> (RunId, Accept) {
    let (id, spec) = (run_id(), spec());
    let run = NewRun {
        thread_id: Some(thread),
        on_busy,
        ..new_run(id, &spec)
    };
    (id, ledger.accept_with(&run, &ROOMY).await.unwrap())
}

fn cancelled(accept: &Accept) -> Vec<(RunId, bool)> {
    let Accept::Created { cancelled, .. } = accept else {
        panic!("{accept:?}")
    };
    let ended = |request: &CancelRequest| matches!(request, CancelRequest::Ended(_));
    cancelled
        .iter()
        .map(|(run, request)| (*run, ended(request)))
        .collect()
}

#[tokio::test]
async fn an_interrupted_run_leaves_its_part_and_a_rolled_back_one_nothing() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    for (on_busy, left) in [
        (OnBusy::Interrupt, vec!["6 times 7?"]),
        (OnBusy::Rollback, vec![]),
    ] {
        let thread = new_thread(&ledger).await;
        let working = ledger.queued_in(Some(thread)).await;
        let fence = ledger.fence(working, LONG).await;
        let waiting = ledger.queued_in(Some(thread)).await;
        let (new, accepted) = accept(&ledger, thread, on_busy).await;
        let mut both = cancelled(&accepted);
        both.sort_by_key(|(run, _)| run.as_uuid());
        assert_eq!(both, [(working, false), (waiting, true)]);
        // Its holder goes on until it sees the cancel, and the new run waits meanwhile.
        let outcome = ledger.try_claim(new).await;
        assert!(matches!(outcome, ClaimOutcome::Waiting), "{outcome:?}");
        let renewal = ledger.renew(&fence, Some(LONG)).await.unwrap();
        assert!(renewal.cancel_requested.is_some());
        let cancelled = Outcome::Cancelled("interrupted".into());
        let ended = system
            .finish_run(&fence, &finish(&cancelled))
            .await
            .unwrap();
        assert_eq!(ended.promoted.map(|job| job.run), Some(new));
        assert_eq!(contents(&ledger, thread).await, left, "{on_busy:?}");
        ledger.claimed(new, LONG).await;
    }
}

#[tokio::test]
async fn a_steering_message_joins_the_run_that_works_and_is_repeatable() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let (first, accepted) = accept(&ledger, thread, OnBusy::Steer).await;
    assert!(
        matches!(accepted, Accept::Created { .. }),
        "a free thread gets a run"
    );
    ledger.fence(first, LONG).await;
    let spec = spec();
    let key = IdempotencyKey {
        key: "once".into(),
        fingerprint: [7; 32],
    };
    for repetition in [false, true] {
        let run = NewRun {
            thread_id: Some(thread),
            on_busy: OnBusy::Steer,
            idempotency: Some(&key),
            ..new_run(run_id(), &spec)
        };
        match ledger.accept_with(&run, &ROOMY).await.unwrap() {
            Accept::Steered(run) => assert!(run.id == first && !repetition),
            Accept::Replay(run) => assert!(run.id == first && repetition),
            other => panic!("{other:?}"),
        }
    }
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert_eq!(tx.run_inputs(first, None, 100).await.unwrap().data.len(), 1);
    drop(tx);
    for _ in 1..MOST_WAITING_INPUTS {
        let (_, accepted) = accept(&ledger, thread, OnBusy::Steer).await;
        assert!(matches!(accepted, Accept::Steered(_)), "{accepted:?}");
    }
    let (_, accepted) = accept(&ledger, thread, OnBusy::Steer).await;
    assert!(
        matches!(accepted, Accept::Refused(Refusal::InputsFull)),
        "{accepted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_runs_of_all_kinds_at_once_one_works_and_each_is_accounted_for() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let kinds = [
        OnBusy::Reject,
        OnBusy::Queue,
        OnBusy::Interrupt,
        OnBusy::Rollback,
        OnBusy::Steer,
    ];
    let ledger = &ledger;
    let submissions = (0..50).map(|n| accept(ledger, thread, kinds[n % kinds.len()]));
    let answers = futures_util::future::join_all(submissions).await;
    let (mut made, mut steered) = (Vec::new(), 0_usize);
    for (run, answer) in answers {
        match answer {
            Accept::Created { .. } => made.push(run),
            Accept::Steered(_) => steered += 1,
            Accept::Refused(Refusal::ThreadBusy | Refusal::InputsFull) => {}
            other => panic!("{other:?}"),
        }
    }
    let outcomes =
        futures_util::future::join_all(made.iter().map(|run| ledger.try_claim(*run))).await;
    let works = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, ClaimOutcome::Claimed(_)));
    assert_eq!(works.count(), 1);
    for outcome in &outcomes {
        let known = matches!(
            outcome,
            ClaimOutcome::Claimed(_) | ClaimOutcome::Waiting | ClaimOutcome::Ended(_)
        );
        assert!(known, "{outcome:?}");
    }
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let mut inputs = 0;
    for run in made {
        inputs += tx.run_inputs(run, None, 100).await.unwrap().data.len();
    }
    assert_eq!(inputs, steered);
}

#[tokio::test]
async fn the_cancel_of_a_waiting_run_names_the_next() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let first = ledger.queued_in(Some(thread)).await;
    let second = ledger.queued_in(Some(thread)).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(first, "enough").await.unwrap();
    tx.commit().await.unwrap();
    let next = ledger.store.system().next_after(ledger.tenant, first).await;
    assert_eq!(next.unwrap().map(|job| job.run), Some(second));
    let alone = ledger.queued().await;
    let next = ledger.store.system().next_after(ledger.tenant, alone).await;
    assert_eq!(next.unwrap(), None);
}

#[tokio::test]
async fn the_instructions_of_a_response_come_first_and_stay_out_of_the_thread() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let mut spec = spec();
    let messages = json!([{"role": "system", "content": "Be brief."},
                          {"role": "user", "content": "6 times 7?"}]);
    spec.messages = serde_json::value::to_raw_value(&messages).unwrap();
    let settings = json!({"instructions": "Be brief."});
    spec.response = Some(serde_json::value::to_raw_value(&settings).unwrap());
    for begun_with in [
        ["Be brief.", "6 times 7?"].as_slice(),
        &["Be brief.", "6 times 7?", "42", "6 times 7?"],
    ] {
        let run = NewRun {
            thread_id: Some(thread),
            ..new_run(run_id(), &spec)
        };
        ledger.accept_with(&run, &ROOMY).await.unwrap();
        let claimed = ledger.claimed(run.id, LONG).await;
        assert_eq!(input(&claimed.spec_json), begun_with);
        let system = ledger.store.system();
        let ended = system.finish_run(&claimed.fence, &answer(&DONE)).await;
        ended.unwrap();
    }
    let left = ["6 times 7?", "42", "6 times 7?", "42"];
    assert_eq!(contents(&ledger, thread).await, left);
}
