//! Approvals that hold for later calls of their tool.

use baton_protocol::{ApprovalScope, Decision, RunId, ThreadId};
use baton_store::{DecideOutcome, RevokedGrant};

use crate::fixture::{DONE, LONG, Ledger, finish};
use crate::threads::new_thread;
use crate::tool_approvals::{asked, decide};

const fn approve(scope: ApprovalScope) -> Decision {
    Decision::Approve {
        arguments: None,
        scope,
    }
}

async fn granted(ledger: &Ledger, run: RunId) -> Vec<String> {
    let system = ledger.store.system();
    system.granted_tools(ledger.tenant, run).await.unwrap()
}

/// Ends the run, so that the next one of its thread can begin.
async fn end(ledger: &Ledger, run: RunId) {
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
}

#[tokio::test]
async fn an_approval_holds_for_its_call_its_run_or_its_thread_and_for_no_other() {
    let ledger = Ledger::new().await;
    let thread: ThreadId = new_thread(&ledger).await;
    for (scope, here, on_thread) in [
        (ApprovalScope::Once, 0, 0),
        (ApprovalScope::Run, 1, 0),
        (ApprovalScope::Thread, 1, 1),
    ] {
        let run = ledger.queued_in(Some(thread)).await;
        let questions = asked(&ledger, run).await;
        assert_eq!(granted(&ledger, run).await.len(), 0, "not decided yet");
        for question in questions {
            let decided = decide(&ledger, run, question, &approve(scope)).await;
            assert!(
                matches!(decided, DecideOutcome::Decided { newly: true, .. }),
                "{decided:?}"
            );
            let again = decide(&ledger, run, question, &approve(scope)).await;
            assert!(
                matches!(again, DecideOutcome::Decided { newly: false, .. }),
                "{again:?}"
            );
            let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
            let records = tx.run_approvals(run).await.unwrap();
            let record = records.iter().find(|it| it.id == question).unwrap();
            let kept = &record.decided.as_ref().unwrap().decision;
            assert_eq!(*kept, approve(scope));
        }
        assert_eq!(granted(&ledger, run).await, vec!["pay"; here]);
        end(&ledger, run).await;
        let next = ledger.queued_in(Some(thread)).await;
        assert_eq!(granted(&ledger, next).await, vec!["pay"; on_thread]);
        end(&ledger, next).await;
        let elsewhere = ledger.queued().await;
        assert_eq!(granted(&ledger, elsewhere).await.len(), 0);
    }
}

#[tokio::test]
async fn another_scope_is_another_decision_and_a_thread_must_be_there() {
    let ledger = Ledger::new().await;
    let run = ledger.queued().await;
    let questions = asked(&ledger, run).await;
    let refused = decide(&ledger, run, questions[0], &approve(ApprovalScope::Thread)).await;
    assert_eq!(refused, DecideOutcome::NoThread);
    let decided = decide(&ledger, run, questions[0], &approve(ApprovalScope::Run)).await;
    assert!(
        matches!(decided, DecideOutcome::Decided { newly: true, .. }),
        "{decided:?}"
    );
    for other in [ApprovalScope::Once, ApprovalScope::Thread] {
        let refused = decide(&ledger, run, questions[0], &approve(other)).await;
        let earlier = DecideOutcome::AlreadyDecided(approve(ApprovalScope::Run));
        assert_eq!(refused, earlier);
    }
}

#[tokio::test]
async fn a_revoked_grant_holds_no_longer_and_a_deleted_run_takes_its_grants_along() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let run = ledger.queued_in(Some(thread)).await;
    let questions = asked(&ledger, run).await;
    for question in &questions {
        decide(&ledger, run, *question, &approve(ApprovalScope::Thread)).await;
    }
    let revoke = async |question| {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let revoked = tx.revoke_grant(run, question).await.unwrap();
        tx.commit().await.unwrap();
        revoked
    };
    assert_eq!(
        revoke(questions[0]).await,
        RevokedGrant::Revoked { newly: true }
    );
    assert_eq!(
        revoke(questions[0]).await,
        RevokedGrant::Revoked { newly: false }
    );
    assert_eq!(
        granted(&ledger, run).await,
        ["pay"],
        "the other approval holds"
    );
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let elsewhere = ledger.queued().await;
    let none = tx.revoke_grant(elsewhere, questions[1]).await.unwrap();
    assert_eq!(none, RevokedGrant::NotFound);
    drop(tx);

    end(&ledger, run).await;
    let next = ledger.queued_in(Some(thread)).await;
    assert_eq!(granted(&ledger, next).await, ["pay"]);
    let system = ledger.store.system();
    assert!(system.delete_run(ledger.tenant, run).await.unwrap());
    assert_eq!(granted(&ledger, next).await.len(), 0);
}
