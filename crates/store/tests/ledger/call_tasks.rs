//! Calls that a server goes on with as tasks.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, CallPause, Decision, EventId, Fence, RemoteTask, RunStatus,
};
use baton_store::{
    AwaitOutcome, CallCommit, CallState, NewApproval, OpenTask, ParkCommit, PauseCommit, StepData,
};
use chrono::DateTime;
use uuid::Uuid;

use crate::fixture::{LONG, Ledger, OVER};
use crate::tool_approvals::{decide, two_calls};

const SHOWN: EventId = EventId::new(1, 3);

/// Leaves the call of step 2 to its server, which is to be asked again after this time.
async fn leave(ledger: &Ledger, fence: &Fence, poll: Duration) {
    let task = RemoteTask::new("t-1".to_owned(), DateTime::UNIX_EPOCH);
    let mut task = task.timed(DateTime::UNIX_EPOCH, None, None);
    task.poll_ms = u64::try_from(poll.as_millis()).unwrap();
    let pause = CallPause::Task { task };
    let commit = PauseCommit {
        step: 2,
        pause: &pause,
        last_event_id: SHOWN,
        started_event_id: SHOWN,
    };
    let system = ledger.store.system();
    system.start_call(fence, 2).await.unwrap();
    system.pause_call(fence, &commit).await.unwrap();
}

async fn status(ledger: &Ledger, fence: &Fence) -> RunStatus {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.run(fence.run).await.unwrap().unwrap().status
}

/// Guards the waking: one scheduler queues a run, when its task is due and no person is asked, and the task stays
/// with the call until its result.
#[tokio::test]
async fn a_run_waits_for_its_task_and_is_queued_once_when_it_is_due() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let fence = two_calls(&ledger).await;
    leave(&ledger, &fence, LONG).await;
    for _ in 0..2 {
        // Repeated because its answer was lost.
        assert_eq!(
            system.await_tasks(&fence, SHOWN).await.unwrap(),
            AwaitOutcome::Waits
        );
    }
    assert_eq!(status(&ledger, &fence).await, RunStatus::AwaitingApproval);
    assert_eq!(system.wake_for_tasks(10).await.unwrap(), []);
    assert_eq!(system.requeue_expired(10).await.unwrap(), []);

    let mut superuser = ledger.superuser().await;
    let due = "UPDATE steps SET poll_at = clock_timestamp() WHERE poll_at IS NOT NULL";
    sqlx::query(due).execute(&mut superuser).await.unwrap();
    let (first, second) = tokio::join!(system.wake_for_tasks(10), system.wake_for_tasks(10));
    let woken: Vec<_> = first.unwrap().into_iter().chain(second.unwrap()).collect();
    assert_eq!(woken.len(), 1, "{woken:?}");
    assert_eq!(
        (woken[0].run, status(&ledger, &fence).await),
        (fence.run, RunStatus::Queued)
    );

    // Its worker dies while it asks.
    ledger.claimed(fence.run, OVER).await;
    let claimed = ledger.claimed(fence.run, OVER).await;
    let call = claimed.recorded.iter().find(|step| step.step == 2).unwrap();
    let StepData::Call { state, paused, .. } = &call.data else {
        panic!("{call:?}");
    };
    assert_eq!(
        *state,
        CallState::Pending { decision: None },
        "its outcome is not unknown"
    );
    assert_eq!(paused.as_ref().unwrap().pause.task().unwrap().id, "t-1");

    // While a person is asked about the other call, nobody asks about the task.
    let question = NewApproval {
        id: ApprovalId::from_uuid(Uuid::now_v7()),
        step: 3,
        reason: ApprovalReason::ApprovalRequired,
        parameters: None,
        reached: None,
        input: None,
    };
    let id = question.id;
    let park = ParkCommit {
        approvals: &[question],
        expire_after: LONG,
        last_event_id: EventId::new(claimed.fence.attempt, 4),
    };
    system.park_run(&claimed.fence, &park).await.unwrap();
    assert_eq!(system.wake_for_tasks(10).await.unwrap(), []);
    decide(
        &ledger,
        fence.run,
        id,
        &Decision::Reject {
            reason: String::new(),
        },
    )
    .await;
    assert_eq!(status(&ledger, &fence).await, RunStatus::Queued);
    let last = ledger.claimed(fence.run, LONG).await;
    let commit = CallCommit {
        step: 2,
        ok: true,
        failure: None,
        message: "{}",
        duration_ms: 1,
        last_event_id: EventId::new(last.fence.attempt, 4),
        started_event_id: SHOWN,
        inputs_step: None,
    };
    system.commit_call(&last.fence, &commit).await.unwrap();
    assert_eq!(
        system.await_tasks(&last.fence, SHOWN).await.unwrap(),
        AwaitOutcome::Waits
    );
    assert_eq!(
        system.wake_for_tasks(10).await.unwrap(),
        [],
        "a result ends the asking"
    );
}

/// Guards the end of the run: its task is open until a worker has cancelled it, and is found again after a while.
#[tokio::test]
async fn the_task_of_an_ended_run_is_open_until_it_is_closed() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let fence = two_calls(&ledger).await;
    leave(&ledger, &fence, LONG).await;
    system.await_tasks(&fence, SHOWN).await.unwrap();
    let open = async || system.open_tasks(ledger.tenant, fence.run).await.unwrap();
    assert_eq!(open().await, [], "the run has not ended");
    assert_eq!(system.ended_with_tasks(10).await.unwrap(), []);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(fence.run, "enough").await.unwrap();
    tx.commit().await.unwrap();
    let task = OpenTask {
        step: 2,
        name: "pay".to_owned(),
        id: "t-1".to_owned(),
    };
    let found = system.ended_with_tasks(10).await.unwrap();
    assert_eq!((found.len(), found[0].run), (1, fence.run));
    assert_eq!(open().await, [task]);
    assert_eq!(
        system.ended_with_tasks(10).await.unwrap(),
        [],
        "not again at once"
    );
    let mut superuser = ledger.superuser().await;
    let due = "UPDATE steps SET poll_at = clock_timestamp() WHERE poll_at IS NOT NULL";
    for tries in 2..=7 {
        sqlx::query(due).execute(&mut superuser).await.unwrap();
        let again = system.ended_with_tasks(10).await.unwrap();
        assert_eq!(again.len(), usize::from(tries <= 6), "try {tries}");
    }
    system
        .close_task(ledger.tenant, fence.run, 2)
        .await
        .unwrap();
    assert_eq!(open().await, []);
}
