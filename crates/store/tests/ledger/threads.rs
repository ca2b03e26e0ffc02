//! A thread has one active run at a time; the next is promoted when it ends.

use baton_protocol::ThreadId;
use baton_store::{ClaimOutcome, RunFilter};
use std::time::Duration;
use uuid::Uuid;

use crate::fixture::{DONE, LONG, Ledger, finish};

#[tokio::test]
async fn a_run_waits_while_its_thread_is_busy_and_is_named_when_it_may_go() {
    let ledger = Ledger::new().await;
    let thread = ThreadId::from_uuid(Uuid::now_v7());
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_thread(thread, Some("a talk")).await.unwrap();
    let read = tx.thread(thread).await.unwrap().unwrap();
    assert_eq!(read.title.as_deref(), Some("a talk"));
    tx.commit().await.unwrap();

    let first = ledger.queued_in(Some(thread)).await;
    let second = ledger.queued_in(Some(thread)).await;
    let third = ledger.queued_in(Some(thread)).await;
    let elsewhere = ledger.queued().await;
    let fence = ledger.fence(first, LONG).await;
    let outcome = ledger.try_claim(second).await;
    assert!(matches!(outcome, ClaimOutcome::Waiting), "{outcome:?}");
    let system = ledger.store.system();
    let due = system.unpublished(Duration::ZERO, 10).await.unwrap();
    let due: Vec<_> = due.iter().map(|job| job.run).collect();
    assert_eq!(due, [elsewhere], "who waits for a thread needs no job");

    let promoted = system
        .finish_run(&fence, &finish(&DONE))
        .await
        .unwrap()
        .promoted;
    assert_eq!(promoted.unwrap().run, second);
    let due = system.unpublished(Duration::ZERO, 10).await.unwrap();
    assert_eq!(due.len(), 3);
    let fence = ledger.fence(second, LONG).await;
    assert_eq!(
        system.next_in_thread(ledger.tenant, thread).await.unwrap(),
        None
    );
    let promoted = system
        .finish_run(&fence, &finish(&DONE))
        .await
        .unwrap()
        .promoted;
    assert_eq!(promoted.unwrap().run, third);

    let filter = RunFilter {
        thread_id: Some(thread),
        ..RunFilter::default()
    };
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let page = tx.list_runs(&filter, None, 10).await.unwrap();
    assert_eq!(page.data.len(), 3);
}
