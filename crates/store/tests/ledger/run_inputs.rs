//! Messages to runs that work: each is taken by one commit, or handed back.

use baton_protocol::{Effect, EventId, Fence, FinishReason, MessageId, RunId, TenantId};
use baton_store::{
    CallCommit, ClaimedRun, FenceError, FinishCommit, InputState, MOST_WAITING_INPUTS, NewCall,
    NewInput, RunInput, SendInput, StepData, StepRecord, TurnCommit, TurnTimes, WithdrawInput,
};
use futures_util::future::{join, join_all};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::fixture::{ANSWER, CHARGE, DONE, LONG, Ledger, OVER, answer, finish, tenant_id, usage};
use crate::threads::{append, new_thread};

fn message_id() -> MessageId {
    MessageId::from_uuid(Uuid::now_v7())
}

fn message(text: &str) -> Box<RawValue> {
    let message = serde_json::json!({"role": "user", "content": text});
    serde_json::value::to_raw_value(&message).unwrap()
}

async fn send_as(ledger: &Ledger, tenant: TenantId, run: RunId, id: MessageId) -> SendInput {
    let mut tx = ledger.store.tenant(tenant).await.unwrap();
    let input = NewInput {
        id,
        message: &message("In euros."),
        created_by: "api_key:x",
    };
    let sent = tx.send_input(run, input).await.unwrap();
    tx.commit().await.unwrap();
    sent
}

pub(crate) async fn send(ledger: &Ledger, run: RunId) -> RunInput {
    match send_as(ledger, ledger.tenant, run, message_id()).await {
        SendInput::Accepted(input, _) => input,
        other => panic!("{other:?}"),
    }
}

async fn withdraw(ledger: &Ledger, run: RunId, id: MessageId) -> WithdrawInput {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let withdrawn = tx.withdraw_input(run, id).await.unwrap();
    tx.commit().await.unwrap();
    withdrawn
}

async fn states(ledger: &Ledger, run: RunId) -> Vec<InputState> {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let page = tx.run_inputs(run, None, 100).await.unwrap();
    page.data.into_iter().map(|input| input.state).collect()
}

/// A turn that would end the run, and takes what waits from step 2 on.
fn turn(calls: &[NewCall]) -> TurnCommit<'_> {
    TurnCommit {
        step: 1,
        message: ANSWER,
        answer_fields: None,
        charged_model: None,
        usage: usage(3, 4),
        charge: CHARGE,
        times: TurnTimes::default(),
        usage_total: usage(3, 4),
        finish_reason: FinishReason::Stop,
        last_event_id: EventId::new(1, 8),
        calls,
        inputs_step: calls.is_empty().then_some(2),
    }
}

fn last_turn() -> FinishCommit<'static> {
    FinishCommit {
        unless_inputs_wait: true,
        ..answer(&DONE)
    }
}

fn taken(steps: &[StepRecord]) -> Vec<(u32, MessageId, Option<EventId>)> {
    let of_input = |step: &StepRecord| match step.data {
        StepData::Input { id, .. } => (step.step, id, step.last_event_id),
        ref other => panic!("{other:?}"),
    };
    steps.iter().map(of_input).collect()
}

/// Returns the positions of messages, with the events that show their acceptance.
fn accepted(steps: &[StepRecord]) -> Vec<(u32, Option<EventId>)> {
    let of_input = |step: &StepRecord| match step.data {
        StepData::Input {
            position,
            accepted_event_id,
            ..
        } => (position, accepted_event_id),
        ref other => panic!("{other:?}"),
    };
    steps.iter().map(of_input).collect()
}

/// Returns the messages that a renewal finds, each with its noted event.
async fn waiting(ledger: &Ledger, fence: &Fence) -> Vec<(MessageId, Option<EventId>)> {
    let system = ledger.store.system();
    let renewed = system.renew_leases(&[*fence], Some(LONG)).await.unwrap();
    let waiting = renewed[0].clone().unwrap().waiting;
    assert!(waiting.is_sorted_by_key(|input| input.position));
    let noted = waiting.iter();
    noted.map(|it| (it.id, it.accepted_event_id)).collect()
}

/// Guards the events of a message over attempts: a commit leaves room for an acceptance that no attempt
/// has shown, or that was withdrawn, and for no other.
#[tokio::test]
async fn the_acceptance_of_a_message_has_one_event_that_is_not_withdrawn() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let run = ledger.queued().await;
    let lost = ledger.fence(run, LONG).await;
    let (kept, withdrawn, unheard) = (
        send(&ledger, run).await,
        send(&ledger, run).await,
        send(&ledger, run).await,
    );
    let note = async |fence: &Fence, position, event| {
        system.note_accepted(fence, position, event).await.unwrap();
    };
    note(&lost, 1, EventId::new(1, 3)).await;
    note(&lost, 2, EventId::new(1, 7)).await;
    let noted = [
        (kept.id, Some(EventId::new(1, 3))),
        (withdrawn.id, Some(EventId::new(1, 7))),
        (unheard.id, None),
    ];
    assert_eq!(waiting(&ledger, &lost).await, noted);
    // The next attempt resumes after the fifth event.
    system.hand_over(&lost, EventId::new(1, 5)).await.unwrap();
    let fence = ledger.fence(run, LONG).await;
    note(&lost, 3, EventId::new(1, 9)).await;
    let noted = [noted[0], (withdrawn.id, None), noted[2]];
    assert_eq!(
        waiting(&ledger, &fence).await,
        noted,
        "a replaced holder notes nothing"
    );

    // A commit that takes none comes before, and does not bring the withdrawn event back.
    let calls = [NewCall {
        step: 2,
        call_id: "call".into(),
        name: "look".into(),
        arguments: "{}".into(),
        effect: Effect::Pure,
    }];
    let commit = TurnCommit {
        last_event_id: EventId::new(2, 5),
        ..turn(&calls)
    };
    system.commit_turn(&fence, &commit).await.unwrap();
    let call = CallCommit {
        failure: None,
        step: 2,
        ok: true,
        message: r#"{"role":"tool","content":"1"}"#,
        duration_ms: 1,
        last_event_id: EventId::new(2, 8),
        started_event_id: EventId::new(2, 6),
        inputs_step: Some(3),
    };
    let inputs = system.commit_call(&fence, &call).await.unwrap();
    assert_eq!(
        taken(&inputs),
        [
            (3, kept.id, Some(EventId::new(2, 9))),
            (4, withdrawn.id, Some(EventId::new(2, 11))),
            (5, unheard.id, Some(EventId::new(2, 13))),
        ]
    );
    assert_eq!(
        accepted(&inputs),
        [
            (1, Some(EventId::new(1, 3))),
            (2, Some(EventId::new(2, 10))),
            (3, Some(EventId::new(2, 12))),
        ]
    );
    assert_eq!(waiting(&ledger, &fence).await, []);
    // A note that comes after the commit changes nothing.
    note(&fence, 1, EventId::new(2, 14)).await;
    let recorded = system.recorded_steps(ledger.tenant, run).await.unwrap();
    assert_eq!(accepted(&recorded[2..]), accepted(&inputs));
}

#[tokio::test]
async fn a_message_keeps_its_run_from_its_end_until_one_commit_takes_it() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let (first, second) = (send(&ledger, run).await, send(&ledger, run).await);
    assert_eq!((first.position, second.position), (1, 2));

    let end = FinishCommit {
        last_event_id: EventId::new(1, 9),
        ..last_turn()
    };
    let refused = system.finish_run(&fence, &end).await;
    assert!(
        matches!(refused, Err(FenceError::InputsWait)),
        "{refused:?}"
    );
    let expected = [
        (2, first.id, Some(EventId::new(1, 10))),
        (3, second.id, Some(EventId::new(1, 12))),
    ];
    // The answer is lost, and the commit is repeated: it takes nothing twice and nothing else.
    let inputs = system.commit_turn(&fence, &turn(&[])).await.unwrap();
    assert_eq!(taken(&inputs), expected);
    let third = send(&ledger, run).await;
    let inputs = system.commit_turn(&fence, &turn(&[])).await.unwrap();
    assert_eq!(taken(&inputs), expected);
    let applied = [InputState::Applied(2), InputState::Applied(3)];
    assert_eq!(states(&ledger, run).await[..2], applied);
    assert_eq!(
        withdraw(&ledger, run, third.id).await,
        WithdrawInput::Withdrawn
    );
    // The end that the messages prevented was under way as well, and arrives now.
    let late = system.finish_run(&fence, &end).await;
    assert!(matches!(late, Err(FenceError::InputsWait)), "{late:?}");

    // Another attempt finds them in the transcript, after what they followed.
    system.hand_over(&fence, EventId::ORIGIN).await.unwrap();
    let ClaimedRun {
        fence,
        recorded,
        last_event_id,
        ..
    } = ledger.claimed(run, LONG).await;
    assert_eq!(last_event_id, EventId::new(1, 12));
    assert_eq!(taken(&recorded[1..]), expected);
    assert_eq!(
        accepted(&recorded[1..]),
        [
            (1, Some(EventId::new(1, 9))),
            (2, Some(EventId::new(1, 11)))
        ]
    );
    assert!(recorded.iter().all(|step| step.message.is_some()));
    let last = FinishCommit {
        turn: None,
        ..last_turn()
    };
    system.finish_run(&fence, &last).await.unwrap();
    assert_eq!(states(&ledger, run).await, applied);
}

#[tokio::test]
async fn the_last_call_of_a_turn_takes_what_came_before_it() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let calls = [2, 3].map(|step| NewCall {
        step,
        call_id: format!("call_{step}"),
        name: "calculator".into(),
        arguments: "{}".into(),
        effect: Effect::Pure,
    });
    let sent = send(&ledger, run).await;
    assert!(
        system
            .commit_turn(&fence, &turn(&calls))
            .await
            .unwrap()
            .is_empty()
    );
    for (step, event, inputs_step) in [(3, 10, None), (2, 12, Some(4))] {
        let call = CallCommit {
            failure: None,
            step,
            ok: true,
            message: r#"{"role":"tool","content":"1"}"#,
            duration_ms: 1,
            last_event_id: EventId::new(1, event),
            started_event_id: EventId::new(1, 9),
            inputs_step,
        };
        let inputs = system.commit_call(&fence, &call).await.unwrap();
        match inputs_step {
            None => assert!(inputs.is_empty()),
            Some(_) => assert_eq!(taken(&inputs), [(4, sent.id, Some(EventId::new(1, 14)))]),
        }
    }
}

/// Guards the count in the run's row: the statement of the end began before the message was committed,
/// and sees it all the same once it has the lock.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_waits_for_the_commit_of_a_message_gives_way_to_it() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let (mut fences, mut accepting): (Vec<Fence>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let run = ledger.queued().await;
        fences.push(ledger.fence(run, LONG).await);
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let input = NewInput {
            id: message_id(),
            message: &message("In euros."),
            created_by: "api_key:x",
        };
        let sent = tx.send_input(run, input).await.unwrap();
        assert!(matches!(sent, SendInput::Accepted(..)), "{sent:?}");
        accepting.push(tx);
    }
    let commit = last_turn();
    let ends = join_all(fences.iter().map(|fence| system.finish_run(fence, &commit)));
    let commits = join_all(accepting.into_iter().map(baton_store::TenantTx::commit));
    let (ends, _) = join(ends, commits).await;
    for (ended, fence) in ends.into_iter().zip(&fences) {
        assert!(matches!(ended, Err(FenceError::InputsWait)), "{ended:?}");
        let inputs = system.commit_turn(fence, &turn(&[])).await.unwrap();
        assert_eq!(inputs.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_end_and_a_message_at_once_one_comes_first() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let mut fences: Vec<Fence> = Vec::new();
    for _ in 0..60 {
        let run = ledger.queued().await;
        fences.push(ledger.fence(run, LONG).await);
    }
    // All at once, so that the ends are grouped.
    let (commit, ledger) = (last_turn(), &ledger);
    let races = fences.iter().map(|fence| {
        let sent = send_as(ledger, ledger.tenant, fence.run, message_id());
        join(sent, system.finish_run(fence, &commit))
    });
    for ((sent, ended), fence) in join_all(races).await.into_iter().zip(&fences) {
        match (sent, ended) {
            (SendInput::Accepted(input, _), Err(FenceError::InputsWait)) => {
                let inputs = system.commit_turn(fence, &turn(&[])).await.unwrap();
                assert_eq!(taken(&inputs)[0].1, input.id);
            }
            (SendInput::Ended, Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_before_the_first_claim_joins_the_input_after_the_thread() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    append(&mut tx, thread, "I like trains.").await;
    tx.commit().await.unwrap();
    let run = ledger.queued_in(Some(thread)).await;
    let sent = send(&ledger, run).await;
    ledger.claimed(run, OVER).await;
    let again = ledger.claimed(run, LONG).await;
    let spec: Value = serde_json::from_str(&again.spec_json).unwrap();
    let contents: Vec<_> = spec["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["content"])
        .collect();
    assert_eq!(contents, ["I like trains.", "6 times 7?", "In euros."]);
    assert_eq!(states(&ledger, run).await, [InputState::Applied(0)]);
    let not_waiting = WithdrawInput::NotWaiting(InputState::Applied(0));
    assert_eq!(withdraw(&ledger, run, sent.id).await, not_waiting);
    let system = ledger.store.system();
    system.finish_run(&again.fence, &last_turn()).await.unwrap();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let all = tx.thread_messages(thread, baton_store::MessageOrder::Ascending, None, 100);
    assert_eq!(all.await.unwrap().data.len(), 4);
}

#[tokio::test]
async fn ten_messages_wait_at_most_and_each_once() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let mut sent = Vec::new();
    for _ in 0..MOST_WAITING_INPUTS {
        sent.push(send(&ledger, run).await);
    }
    let full = send_as(&ledger, ledger.tenant, run, message_id()).await;
    assert!(matches!(full, SendInput::Full), "{full:?}");
    // A repetition is known, also when no other message has room.
    let known = send_as(&ledger, ledger.tenant, run, sent[3].id).await;
    assert!(matches!(known, SendInput::Known(input) if input.position == 4));
    assert_eq!(
        withdraw(&ledger, run, sent[3].id).await,
        WithdrawInput::Withdrawn
    );
    assert_eq!(
        withdraw(&ledger, run, sent[3].id).await,
        WithdrawInput::NotFound
    );
    assert_eq!(send(&ledger, run).await.position, 11);
    let other = ledger.queued().await;
    let taken = send_as(&ledger, ledger.tenant, other, sent[0].id).await;
    assert!(matches!(taken, SendInput::IdTaken), "{taken:?}");

    let stranger = tenant_id();
    ledger
        .store
        .system()
        .ensure_tenant(stranger, "other")
        .await
        .unwrap();
    let hidden = send_as(&ledger, stranger, run, message_id()).await;
    assert!(matches!(hidden, SendInput::NotFound), "{hidden:?}");
    let mut tx = ledger.store.tenant(stranger).await.unwrap();
    assert!(tx.run_inputs(run, None, 100).await.unwrap().data.is_empty());
    assert_eq!(
        tx.withdraw_input(run, sent[0].id).await.unwrap(),
        WithdrawInput::NotFound
    );
}

#[tokio::test]
async fn a_run_that_ends_otherwise_hands_its_messages_back() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, LONG).await;
    let sent = send(&ledger, run).await;
    ledger
        .store
        .system()
        .finish_run(&fence, &finish(&DONE))
        .await
        .unwrap();
    assert_eq!(states(&ledger, run).await, [InputState::Returned]);
    let returned = WithdrawInput::NotWaiting(InputState::Returned);
    assert_eq!(withdraw(&ledger, run, sent.id).await, returned);
    let ended = send_as(&ledger, ledger.tenant, run, message_id()).await;
    assert!(matches!(ended, SendInput::Ended), "{ended:?}");
}
