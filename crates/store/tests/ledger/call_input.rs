//! Calls that a server leaves with questions to a person.

use std::collections::HashSet;
use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, CallPause, Decision, EventId, Fence, InputRequest, RequestedInput,
    RunId,
};
use baton_store::{
    CallCommit, CallState, ClaimedRun, DecideOutcome, NewApproval, ParkCommit, ParkOutcome,
    PauseCommit, PausedCall, StepData, StepRecord,
};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::fixture::{LONG, Ledger, OVER};
use crate::tool_approvals::{decide, two_calls};

const STARTED: EventId = EventId::new(1, 3);

fn asked(round: u32) -> RequestedInput {
    let request = InputRequest {
        id: "who\0".to_owned(),
        message: "Who?".to_owned(),
        schema: json!({"type": "object"}).as_object().cloned(),
        url: None,
    };
    RequestedInput {
        round,
        requests: vec![request],
    }
}

fn pause(round: u32) -> CallPause {
    CallPause::Input {
        asked: asked(round),
        state: Some(format!("{round} \0 \"state\"")),
    }
}

async fn leave(ledger: &Ledger, fence: &Fence, round: u32) {
    let (system, pause) = (ledger.store.system(), pause(round));
    let commit = PauseCommit {
        step: 2,
        pause: &pause,
        last_event_id: EventId::new(fence.attempt, 3),
        started_event_id: STARTED,
    };
    system.pause_call(fence, &commit).await.unwrap();
    // Repeated because its answer was lost.
    system.pause_call(fence, &commit).await.unwrap();
}

async fn park(ledger: &Ledger, fence: &Fence, round: u32, expire_after: Duration) -> ApprovalId {
    let id = ApprovalId::from_uuid(Uuid::now_v7());
    let question = NewApproval {
        id,
        step: 2,
        reason: ApprovalReason::Input,
        parameters: None,
        reached: None,
        input: Some(asked(round)),
    };
    let park = ParkCommit {
        approvals: &[question],
        expire_after,
        last_event_id: EventId::new(fence.attempt, 4),
    };
    let parked = ledger.store.system().park_run(fence, &park).await.unwrap();
    assert!(matches!(parked, ParkOutcome::Parked { .. }), "{parked:?}");
    id
}

fn call(steps: &[StepRecord]) -> (CallState, Option<PausedCall>, Option<EventId>) {
    let found = steps.iter().find(|record| record.step == 2).unwrap();
    match &found.data {
        StepData::Call { state, paused, .. } => {
            let paused = paused.as_deref().cloned();
            (state.clone(), paused, found.started_event_id)
        }
        other => panic!("{other:?}"),
    }
}

fn left(round: u32, given: Option<&Decision>) -> PausedCall {
    PausedCall {
        pause: pause(round),
        given: given.cloned(),
    }
}

const fn pending(decision: Option<Decision>) -> CallState {
    CallState::Pending { decision }
}

fn accept(name: &str) -> Decision {
    Decision::Accept {
        content: Some(Map::from_iter([("name".to_owned(), Value::from(name))])),
    }
}

async fn again(ledger: &Ledger, run: RunId) -> ClaimedRun {
    ledger.claimed(run, OVER).await
}

/// Guards each state around a question of a server: the answer belongs to its round, is not used up by a worker
/// that dies within the repetition, and goes with the result.
#[tokio::test]
async fn a_call_keeps_what_its_server_left_and_the_answer_of_its_round() {
    let ledger = Ledger::new().await;
    let first = two_calls(&ledger).await;
    let run = first.run;
    let system = ledger.store.system();
    system.start_call(&first, 2).await.unwrap();
    leave(&ledger, &first, 1).await;

    // Its worker died before it asked.
    system.hand_over(&first, EventId::new(1, 3)).await.unwrap();
    let second = again(&ledger, run).await;
    let expected = (pending(None), Some(left(1, None)), Some(STARTED));
    assert_eq!(call(&second.recorded), expected);
    assert_eq!(second.last_event_id, EventId::new(1, 3));
    let question = park(&ledger, &second.fence, 1, LONG).await;
    let open = system.run_approvals(ledger.tenant, run).await.unwrap();
    assert_eq!(open[0].input, Some(asked(1)));
    assert_eq!((&*open[0].name, open[0].step), ("pay", 2));
    let wrong = decide(&ledger, run, question, &Decision::Retry {}).await;
    assert_eq!(wrong, DecideOutcome::NotAnOption(ApprovalReason::Input));
    let names: Vec<_> = (0..50).map(|n| accept(&n.to_string())).collect();
    let decided = join_all(names.iter().map(|it| decide(&ledger, run, question, it))).await;
    let newly = |it: &&DecideOutcome| {
        matches!(
            it,
            DecideOutcome::Decided {
                newly: true,
                queued: Some(_)
            }
        )
    };
    assert_eq!(decided.iter().filter(newly).count(), 1, "{decided:?}");
    let others: HashSet<_> = decided.iter().map(|it| format!("{it:?}")).collect();
    assert_eq!(others.len(), 2, "all see the same winner: {others:?}");
    let open = system.run_approvals(ledger.tenant, run).await.unwrap();
    let given = open[0].decided.as_ref().unwrap().decision.clone();

    // The worker that repeats the call dies: the next one has the answer too.
    let third = again(&ledger, run).await;
    let expected = (
        pending(Some(given.clone())),
        Some(left(1, Some(&given))),
        Some(STARTED),
    );
    assert_eq!(call(&third.recorded), expected);
    system.start_call(&third.fence, 2).await.unwrap();
    let fourth = again(&ledger, run).await;
    let started = CallState::Started { decision: None };
    assert_eq!(
        call(&fourth.recorded),
        (started, Some(left(1, Some(&given))), Some(STARTED))
    );

    // Another round has no answer before its own question is decided; nobody decides it in time.
    leave(&ledger, &fourth.fence, 2).await;
    let fifth = again(&ledger, run).await;
    assert_eq!(
        call(&fifth.recorded),
        (pending(None), Some(left(2, None)), Some(STARTED))
    );
    park(&ledger, &fifth.fence, 2, Duration::ZERO).await;
    assert_eq!(system.expire_approvals(10).await.unwrap().len(), 1);
    let sixth = again(&ledger, run).await;
    let cancel = Decision::Cancel {};
    let expected = (
        pending(Some(cancel.clone())),
        Some(left(2, Some(&cancel))),
        Some(STARTED),
    );
    assert_eq!(call(&sixth.recorded), expected);
    let commit = CallCommit {
        step: 2,
        ok: true,
        failure: None,
        message: "{}",
        duration_ms: 1,
        last_event_id: EventId::new(sixth.fence.attempt, 4),
        started_event_id: STARTED,
        inputs_step: None,
    };
    system.commit_call(&sixth.fence, &commit).await.unwrap();
    let seventh = again(&ledger, run).await;
    let (state, paused, _) = call(&seventh.recorded);
    assert!(matches!(state, CallState::Finished { ok: true, .. }));
    assert_eq!(paused, None, "the server's bytes go with the result");
    let late = PauseCommit {
        step: 2,
        pause: &pause(3),
        last_event_id: EventId::new(1, 4),
        started_event_id: STARTED,
    };
    system.pause_call(&first, &late).await.unwrap_err();
}
