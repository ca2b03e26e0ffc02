//! Lists.

use baton_protocol::RunStatus;
use baton_store::RunFilter;

use crate::fixture::{DONE, LONG, Ledger, finish};

#[tokio::test]
async fn pages_list_every_run_once_the_newest_first() {
    let ledger = Ledger::new().await;
    let mut accepted = Vec::new();
    for _ in 0..7 {
        accepted.push(ledger.queued().await);
    }
    accepted.reverse();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = tx
            .list_runs(&RunFilter::default(), cursor, 3)
            .await
            .unwrap();
        listed.extend(page.data.iter().map(|run| run.id));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((listed, pages), (accepted, 3));
}

#[tokio::test]
async fn a_filter_lists_the_runs_of_one_state() {
    let ledger = Ledger::new().await;
    let (ended, _) = (ledger.queued().await, ledger.queued().await);
    let fence = ledger.fence(ended, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    let filter = RunFilter {
        status: Some(RunStatus::Completed),
        ..RunFilter::default()
    };
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let page = tx.list_runs(&filter, None, 10).await.unwrap();
    assert_eq!(page.data.len(), 1);
    assert_eq!(page.data[0].id, ended);
    assert_eq!(page.data[0].outcome, Some(DONE));
    assert_eq!(page.next_cursor, None);
}
