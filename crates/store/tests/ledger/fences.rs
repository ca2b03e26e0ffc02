//! A worker that no longer holds a run cannot write to it.

use baton_protocol::{Effect, EventId, Fence, FinishReason, Usage};
use baton_store::{CallCommit, FenceError, NewCall, Renewal, TurnCommit};
use sqlx::Connection as _;

use crate::fixture::{CHARGE, DONE, LONG, Ledger, OVER, answer, token, usage};

/// Tries every guarded write with one fence.
async fn guarded_writes(
    ledger: &Ledger,
    fence: &Fence,
) -> Vec<(&'static str, Result<(), FenceError>)> {
    let system = ledger.store.system();
    let turn = TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 3,
        message: r#"{"role":"assistant","content":"stale"}"#,
        usage: usage(1, 1),
        charge: CHARGE,
        usage_total: usage(1, 1),
        finish_reason: FinishReason::Stop,
        last_event_id: EventId::new(9, 9),
        calls: &[],
    };
    let call = CallCommit {
        inputs_step: None,
        step: 2,
        ok: true,
        failure: None,
        message: r#"{"role":"tool","content":"stale"}"#,
        duration_ms: 1,
        last_event_id: EventId::new(9, 9),
        started_event_id: EventId::new(9, 8),
    };
    vec![
        (
            "renew_leases",
            ledger.renew(fence, Some(LONG)).await.map(|_| ()),
        ),
        (
            "a sign of life",
            ledger.renew(fence, None).await.map(|_| ()),
        ),
        (
            "commit_turn",
            system.commit_turn(fence, &turn).await.map(drop),
        ),
        ("start_call", system.start_call(fence, 2).await),
        (
            "commit_call",
            system.commit_call(fence, &call).await.map(drop),
        ),
        (
            "hand_over",
            system.hand_over(fence, EventId::new(9, 9)).await,
        ),
        (
            "finish_run",
            system.finish_run(fence, &answer(&DONE)).await.map(|_| ()),
        ),
    ]
}

/// Returns everything that the ledger has of the run, as one text.
async fn ledger_of(ledger: &Ledger, fence: &Fence) -> String {
    let mut superuser = ledger.superuser().await;
    let text = sqlx::query_scalar(
        "SELECT concat_ws(E'\n',
             (SELECT runs::text FROM runs WHERE id = $1),
             (SELECT string_agg(steps::text, E'\n' ORDER BY step) FROM steps WHERE run_id = $1),
             (SELECT string_agg(messages::text, E'\n' ORDER BY step) FROM messages
              WHERE run_id = $1))",
    )
    .bind(fence.run.as_uuid())
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    superuser.close().await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_guarded_write_refuses_a_stale_fence_and_changes_nothing() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let run = ledger.queued().await;
    let replaced = ledger.fence(run, OVER).await;
    let holder = ledger.fence(run, LONG).await;
    let calls = [NewCall {
        step: 2,
        call_id: "c".into(),
        name: "calculator".into(),
        arguments: "{}".into(),
        effect: Effect::AtMostOnce,
    }];
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
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(2, 3),
        calls: &calls,
    };
    system.commit_turn(&holder, &turn).await.unwrap();

    let foreign_token = Fence {
        token: token(),
        ..holder
    };
    let attempt_ahead = Fence {
        attempt: holder.attempt + 1,
        ..holder
    };
    let old_attempt_new_token = Fence {
        token: holder.token,
        ..replaced
    };
    let before = ledger_of(&ledger, &holder).await;
    for stale in [
        replaced,
        foreign_token,
        attempt_ahead,
        old_attempt_new_token,
    ] {
        for (write, result) in guarded_writes(&ledger, &stale).await {
            assert!(
                matches!(result, Err(FenceError::Lost)),
                "{write}: {result:?}"
            );
        }
    }
    assert_eq!(ledger_of(&ledger, &holder).await, before);

    // The holder itself is refused nothing until the end ...
    for (write, result) in guarded_writes(&ledger, &holder).await {
        match write {
            "finish_run" => assert!(
                matches!(result, Err(FenceError::Lost)),
                "handed over before"
            ),
            _ => result.unwrap(),
        }
    }
    // ... nor is the next holder; but once the run has ended, its own holder is refused too.
    let last = ledger.fence(run, LONG).await;
    system.finish_run(&last, &answer(&DONE)).await.unwrap();
    let before = ledger_of(&ledger, &last).await;
    for stale in [holder, last] {
        for (write, result) in guarded_writes(&ledger, &stale).await {
            let repeated = write == "finish_run" && stale == last;
            assert_eq!(result.is_ok(), repeated, "{write}: {result:?}");
        }
    }
    assert_eq!(ledger_of(&ledger, &last).await, before);
}

#[tokio::test]
async fn a_claim_repeated_with_its_token_is_the_same_claim() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let claim = ledger.wish(run, LONG);
    for _ in 0..3 {
        let outcome = ledger.store.system().claim_run(&claim).await.unwrap();
        let baton_store::ClaimOutcome::Claimed(claimed) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((claimed.fence.attempt, claimed.failures), (1, 1));
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_renewed_as_long_as_nobody_took_the_run() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, OVER).await;
    ledger.renew(&fence, Some(LONG)).await.unwrap();
    assert!(matches!(
        ledger.try_claim(run).await,
        baton_store::ClaimOutcome::Leased { .. }
    ));
}

#[tokio::test]
async fn a_renewal_tells_that_somebody_wants_the_run_cancelled() {
    let ledger = Ledger::new().await;
    let (wanted, other) = (ledger.queued().await, ledger.queued().await);
    let wanted = ledger.fence(wanted, LONG).await;
    let other = ledger.fence(other, LONG).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(wanted.run, "user left").await.unwrap();
    tx.commit().await.unwrap();

    let one = ledger.renew(&wanted, Some(LONG)).await.unwrap();
    assert_eq!(one.cancel_requested.as_deref(), Some("user left"));
    let lost = Fence {
        token: token(),
        ..other
    };
    // An attempt that is over together with its successor, in either order, and with others.
    let system = ledger.store.system();
    let fences = [lost, other, wanted, lost];
    let all = system.renew_leases(&fences, Some(LONG)).await.unwrap();
    let none = Renewal {
        cancel_requested: None,
        waiting: Vec::new(),
    };
    assert_eq!(all, [None, Some(none), Some(one), None]);
}

#[tokio::test]
async fn a_sign_of_life_leaves_the_lease_as_it_is() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let fence = ledger.fence(run, OVER).await;
    ledger.renew(&fence, None).await.unwrap();
    let requeued = ledger.store.system().requeue_expired(10).await.unwrap();
    assert_eq!(requeued.len(), 1);
}
