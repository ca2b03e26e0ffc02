//! Every state meets every transition, and the row afterwards must be as `baton_protocol::run`
//! says.

use baton_protocol::run::{Ended, Held, Idle, RunState};
use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, EventId, Fence, FinishReason, Outcome, RunError, RunId,
    RunStatus, UpstreamError, Usage,
};
use baton_store::{CallCommit, NewApproval, ParkCommit, TurnCommit};
use sqlx::Row as _;

use crate::fixture::{CHARGE, DONE, END, LONG, Ledger, MAX_FAILURES, OVER, answer, finish, token};

/// The state of a run before the transition, and the way to bring it there.
#[derive(Debug, Clone, Copy)]
enum Start {
    Accepted,
    LostOnce,
    LostTooOften,
    HandedOver,
    FlaggedThenLost,
    Held,
    HeldAgain,
    HeldFlagged,
    HeldPastItsLease,
    HeldPastItsLeaseTooOften,
    HeldFlaggedPastItsLease,
    Parked,
    ParkedTooLong,
    Completed,
    Failed,
    Cancelled,
    CancelledUnheld,
}

const STARTS: [Start; 17] = [
    Start::Accepted,
    Start::LostOnce,
    Start::LostTooOften,
    Start::HandedOver,
    Start::FlaggedThenLost,
    Start::Held,
    Start::HeldAgain,
    Start::HeldFlagged,
    Start::HeldPastItsLease,
    Start::HeldPastItsLeaseTooOften,
    Start::HeldFlaggedPastItsLease,
    Start::Parked,
    Start::ParkedTooLong,
    Start::Completed,
    Start::Failed,
    Start::Cancelled,
    Start::CancelledUnheld,
];

#[derive(Debug, Clone, Copy)]
enum Transition {
    Claim,
    ClaimAgain,
    Renew,
    CommitTurn,
    StartCall,
    CommitCall,
    HandOver,
    Park,
    Decide,
    Expire,
    Complete,
    CompleteWithTurn,
    Fail,
    EndCancelled,
    RequestCancel,
    RequeueExpired,
}

const TRANSITIONS: [Transition; 16] = [
    Transition::Claim,
    Transition::ClaimAgain,
    Transition::Renew,
    Transition::CommitTurn,
    Transition::StartCall,
    Transition::CommitCall,
    Transition::HandOver,
    Transition::Park,
    Transition::Decide,
    Transition::Expire,
    Transition::Complete,
    Transition::CompleteWithTurn,
    Transition::Fail,
    Transition::EndCancelled,
    Transition::RequestCancel,
    Transition::RequeueExpired,
];

/// High enough for the due runs that other tests leave in the same ledger.
const ALL: u32 = 1_000;

const AT: EventId = EventId::new(1, 9);

fn broken() -> Outcome {
    Outcome::Failed(RunError {
        code: "broken".into(),
        message: "it broke".into(),
        upstream: Some(Box::new(UpstreamError {
            code: Some("context_length_exceeded".into()),
            param: Some("mess\0ages".into()),
            retry_after_ms: Some(7_000),
        })),
    })
}

fn called_off() -> Outcome {
    Outcome::Cancelled("called off".into())
}

/// The state of a run's row.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    state: RunState,
    lease_over: bool,
    /// Whether one of its open questions has expired.
    expired: bool,
    cancel_reason: Option<String>,
}

async fn look(ledger: &Ledger, run: RunId) -> Seen {
    let mut superuser = ledger.superuser().await;
    let row = sqlx::query(
        "SELECT *, error_upstream::text AS upstream,
                coalesce(lease_expires_at <= clock_timestamp(), false) AS over,
                EXISTS (SELECT FROM approvals WHERE run_id = runs.id AND decision IS NULL
                        AND expires_at <= clock_timestamp()) AS expired
         FROM runs WHERE id = $1",
    )
    .bind(run.as_uuid())
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    let attempt = u32::try_from(row.get::<i32, _>("attempt")).unwrap();
    let failures = u32::try_from(row.get::<i32, _>("failures")).unwrap();
    let last_event = EventId::from_u64(row.get::<i64, _>("last_event_id").try_into().unwrap());
    let cancel_reason: Option<String> = row.get("cancel_reason");
    let idle = Idle {
        attempt,
        failures,
        last_event,
    };
    let ended = |outcome| {
        RunState::Ended(Ended {
            attempt,
            outcome,
            last_event,
        })
    };
    let status: RunStatus = row.get::<String, _>("status").parse().unwrap();
    let state = match status {
        RunStatus::Queued => RunState::Queued(idle),
        RunStatus::AwaitingApproval => RunState::AwaitingApproval(idle),
        RunStatus::Running => RunState::Running(Held {
            attempt,
            failures,
            last_event,
        }),
        RunStatus::Completed => ended(Outcome::Completed(FinishReason::from_upstream(
            row.get("finish_reason"),
        ))),
        RunStatus::Failed => ended(Outcome::Failed(RunError {
            code: row.get("error_code"),
            message: row.get("error_message"),
            upstream: row
                .get::<Option<String>, _>("upstream")
                .map(|json| serde_json::from_str(&json).unwrap()),
        })),
        RunStatus::Cancelled => ended(Outcome::Cancelled(cancel_reason.clone().unwrap())),
    };
    Seen {
        state,
        lease_over: row.get("over"),
        expired: row.get("expired"),
        cancel_reason,
    }
}

async fn cancel(ledger: &Ledger, run: RunId, reason: &str) {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(run, reason).await.unwrap();
    tx.commit().await.unwrap();
}

async fn requeue(ledger: &Ledger) {
    ledger.store.system().requeue_expired(ALL).await.unwrap();
}

/// Parks the run with one question.
async fn park(ledger: &Ledger, fence: &Fence, expire_after: std::time::Duration) {
    let park = ParkCommit {
        approvals: &[NewApproval {
            id: ApprovalId::from_uuid(fence.run.as_uuid()),
            step: 2,
            reason: ApprovalReason::OutcomeUnknown,
            parameters: None,
            reached: None,
            input: None,
        }],
        expire_after,
        last_event_id: AT,
    };
    drop(ledger.store.system().park_run(fence, &park).await);
}

/// Brings a new run to its start and returns the fence of its newest claim.
async fn bring(ledger: &Ledger, start: Start) -> (RunId, Fence) {
    let system = ledger.store.system();
    let run = ledger.queued().await;
    let nobody = Fence {
        tenant: ledger.tenant,
        run,
        attempt: 0,
        token: token(),
    };
    let fence = match start {
        Start::Accepted => nobody,
        Start::LostOnce => {
            let fence = ledger.fence(run, OVER).await;
            requeue(ledger).await;
            fence
        }
        Start::LostTooOften => {
            ledger.fence(run, OVER).await;
            let fence = ledger.fence(run, OVER).await;
            requeue(ledger).await;
            fence
        }
        Start::HandedOver => {
            let fence = ledger.fence(run, LONG).await;
            system.hand_over(&fence, AT).await.unwrap();
            fence
        }
        Start::FlaggedThenLost => {
            let fence = ledger.fence(run, OVER).await;
            cancel(ledger, run, "first").await;
            requeue(ledger).await;
            fence
        }
        Start::Held => ledger.fence(run, LONG).await,
        Start::HeldAgain => {
            ledger.fence(run, OVER).await;
            ledger.fence(run, LONG).await
        }
        Start::HeldFlagged => {
            let fence = ledger.fence(run, LONG).await;
            cancel(ledger, run, "first").await;
            fence
        }
        Start::HeldPastItsLease => ledger.fence(run, OVER).await,
        Start::HeldPastItsLeaseTooOften => {
            ledger.fence(run, OVER).await;
            ledger.fence(run, OVER).await
        }
        Start::HeldFlaggedPastItsLease => {
            let fence = ledger.fence(run, OVER).await;
            cancel(ledger, run, "first").await;
            fence
        }
        Start::Parked => {
            let fence = ledger.fence(run, LONG).await;
            park(ledger, &fence, LONG).await;
            fence
        }
        Start::ParkedTooLong => {
            let fence = ledger.fence(run, LONG).await;
            park(ledger, &fence, OVER).await;
            fence
        }
        Start::Completed | Start::Failed | Start::Cancelled => {
            let fence = ledger.fence(run, LONG).await;
            let outcome = match start {
                Start::Completed => Outcome::Completed(FinishReason::Length),
                Start::Failed => Outcome::Failed(RunError {
                    code: "early".into(),
                    message: String::new(),
                    upstream: None,
                }),
                _ => Outcome::Cancelled("early".into()),
            };
            system.finish_run(&fence, &finish(&outcome)).await.unwrap();
            fence
        }
        Start::CancelledUnheld => {
            cancel(ledger, run, "first").await;
            nobody
        }
    };
    (run, fence)
}

/// Attempts the transition. It may be refused; the comparison covers that.
async fn attempt(ledger: &Ledger, transition: Transition, run: RunId, fence: &Fence) {
    let system = ledger.store.system();
    let refused = match transition {
        Transition::Claim => {
            system.claim_run(&ledger.wish(run, LONG)).await.unwrap();
            return;
        }
        Transition::ClaimAgain => {
            let mut claim = ledger.wish(run, LONG);
            claim.token = fence.token;
            system.claim_run(&claim).await.unwrap();
            return;
        }
        Transition::RequestCancel => return cancel(ledger, run, "second").await,
        Transition::RequeueExpired => return requeue(ledger).await,
        Transition::Park => return park(ledger, fence, LONG).await,
        Transition::Decide => {
            // Each question has the id of its run here.
            let approval = ApprovalId::from_uuid(run.as_uuid());
            let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
            tx.decide(run, approval, &Decision::Retry {}, None)
                .await
                .unwrap();
            return tx.commit().await.unwrap();
        }
        Transition::Expire => {
            system.expire_approvals(ALL).await.unwrap();
            return;
        }
        Transition::Renew => ledger.renew(fence, Some(LONG)).await.map(|_| ()),
        Transition::CommitTurn => {
            let turn = TurnCommit {
                inputs_step: None,
                answer_fields: None,
                charged_model: None,
                times: baton_store::TurnTimes::default(),
                step: 1,
                message: "{}",
                usage: Usage::default(),
                charge: CHARGE,
                usage_total: Usage::default(),
                finish_reason: FinishReason::Stop,
                last_event_id: AT,
                calls: &[],
            };
            system.commit_turn(fence, &turn).await.map(|_| ())
        }
        // There is no such step. The run itself must not be changed by the attempt.
        Transition::StartCall => system.start_call(fence, 5).await,
        Transition::CommitCall => {
            let call = CallCommit {
                inputs_step: None,
                step: 5,
                ok: true,
                failure: None,
                message: "{}",
                duration_ms: 1,
                last_event_id: AT,
                started_event_id: AT,
            };
            system.commit_call(fence, &call).await.map(|_| ())
        }
        Transition::HandOver => system.hand_over(fence, EventId::ORIGIN).await,
        Transition::Complete => system.finish_run(fence, &finish(&DONE)).await.map(|_| ()),
        Transition::CompleteWithTurn => system.finish_run(fence, &answer(&DONE)).await.map(|_| ()),
        Transition::Fail => system
            .finish_run(fence, &finish(&broken()))
            .await
            .map(|_| ()),
        Transition::EndCancelled => system
            .finish_run(fence, &finish(&called_off()))
            .await
            .map(|_| ()),
    };
    drop(refused);
}

fn claimed(idle: Idle, flagged: Option<&str>) -> RunState {
    match flagged {
        Some(reason) => RunState::Ended(idle.end(Outcome::Cancelled(reason.into()))),
        None => idle
            .claim(MAX_FAILURES)
            .map_or_else(RunState::Ended, RunState::Running),
    }
}

/// Returns the state that the protocol expects.
fn expected(seen: &Seen, transition: Transition) -> RunState {
    let flagged = seen.cancel_reason.as_deref();
    match (&seen.state, transition) {
        (RunState::Queued(idle), Transition::Claim | Transition::ClaimAgain) => {
            claimed(*idle, flagged)
        }
        (RunState::Queued(idle) | RunState::AwaitingApproval(idle), Transition::RequestCancel) => {
            RunState::Ended(idle.end(Outcome::Cancelled(flagged.unwrap_or("second").into())))
        }
        (RunState::Running(held), Transition::Claim) if seen.lease_over => {
            claimed(held.lose_lease(), flagged)
        }
        (RunState::Running(held), Transition::RequeueExpired) if seen.lease_over => {
            RunState::Queued(held.lose_lease())
        }
        (RunState::Running(held), Transition::CommitTurn | Transition::CommitCall) => {
            RunState::Running(held.commit_step(AT))
        }
        (RunState::Running(held), Transition::HandOver) => RunState::Queued(held.hand_over()),
        (RunState::Running(held), Transition::Park) if flagged.is_none() => {
            RunState::AwaitingApproval(held.park(AT))
        }
        (RunState::AwaitingApproval(idle), Transition::Decide) if !seen.expired => {
            RunState::Queued(*idle)
        }
        (RunState::AwaitingApproval(idle), Transition::Expire) if seen.expired => {
            RunState::Queued(*idle)
        }
        (RunState::Running(held), Transition::Complete | Transition::CompleteWithTurn) => {
            RunState::Ended(held.end(DONE, END))
        }
        (RunState::Running(held), Transition::Fail) => RunState::Ended(held.end(broken(), END)),
        (RunState::Running(held), Transition::EndCancelled) => {
            let reason = flagged.unwrap_or("called off");
            RunState::Ended(held.end(Outcome::Cancelled(reason.into()), END))
        }
        // A renewal moves only the lease, a cancel of a held run only sets a flag, and a claim
        // under another worker's live lease waits. No holder can move a run that it does not hold
        // or that has ended.
        (unmoved, _) => unmoved.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transition_of_every_state_does_in_sql_what_the_protocol_says() {
    let ledger = Ledger::new().await;
    for start in STARTS {
        for transition in TRANSITIONS {
            let (run, fence) = bring(&ledger, start).await;
            let before = look(&ledger, run).await;
            attempt(&ledger, transition, run, &fence).await;
            let after = look(&ledger, run).await;
            assert_eq!(
                after.state,
                expected(&before, transition),
                "{start:?} then {transition:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_flagged_run_that_is_claimed_ends_cancelled_for_the_reason_given_first() {
    let ledger = Ledger::new().await;
    let (run, _) = bring(&ledger, Start::HeldFlaggedPastItsLease).await;
    cancel(&ledger, run, "second").await;
    let outcome = ledger.try_claim(run).await;
    let baton_store::ClaimOutcome::Ended(ended) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(ended.newly);
    assert_eq!(ended.outcome, Outcome::Cancelled("first".into()));
    assert_eq!(ended.last_event_id, EventId::new(2, 2));

    let baton_store::ClaimOutcome::Ended(again) = ledger.try_claim(run).await else {
        panic!("ended runs stay ended");
    };
    assert!(!again.newly);
    assert_eq!(again.last_event_id, ended.last_event_id);
}
