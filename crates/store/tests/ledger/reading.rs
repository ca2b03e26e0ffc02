//! Lists.

use std::time::Duration;

use baton_protocol::{EventId, RunStatus};
use baton_store::{NewestAttempt, RunFilter};

use crate::fixture::{DONE, LONG, Ledger, OVER, finish, run_id, tenant_id};

impl Ledger {
    /// Returns how often the table of runs was read from its first row to its last. The counts are
    /// complete once all connections of stores are closed.
    async fn scans_of_runs(&self) -> i64 {
        let mut superuser = self.superuser().await;
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()
                        AND backend_type = 'client backend'";
        while sqlx::query_scalar::<_, i64>(others)
            .fetch_one(&mut superuser)
            .await
            .unwrap()
            > 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'runs'";
        let scans = sqlx::query_scalar(scans).fetch_one(&mut superuser).await;
        scans.unwrap()
    }
}

#[tokio::test]
async fn newest_attempts_are_looked_up_by_an_index_in_a_table_that_is_new() {
    let ledger = Ledger::new().await;
    let (queued, claimed) = (ledger.queued().await, ledger.queued().await);
    ledger.claimed(claimed, OVER).await;
    ledger.claimed(claimed, LONG).await;
    ledger.store.close().await;
    let before = ledger.scans_of_runs().await;

    let store = ledger.database.store().await;
    let tenant = ledger.tenant;
    let asked = [
        (tenant, queued),
        (tenant, claimed),
        (tenant, run_id()),
        (tenant_id(), claimed),
    ];
    let mut found = Vec::new();
    // The plan for any values is made after several executions.
    for _ in 0..8 {
        found = store.system().newest_attempts(&asked).await.unwrap();
    }
    found.sort_by_key(|newest| newest.attempt);
    let newest = |run, attempt| NewestAttempt {
        tenant,
        run,
        attempt,
    };
    assert_eq!(found, [newest(queued, 0), newest(claimed, 2)]);
    store.close().await;
    assert_eq!(ledger.scans_of_runs().await, before);
}

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

#[tokio::test]
async fn what_ended_lately_is_found_across_tenants_the_newest_first() {
    let ledger = Ledger::new().await;
    let (first, _open, second) = (
        ledger.queued().await,
        ledger.queued().await,
        ledger.queued().await,
    );
    let system = ledger.store.system();
    for run in [first, second] {
        let fence = ledger.fence(run, LONG).await;
        system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    }
    let ended = system.recently_ended(LONG, 10).await.unwrap();
    let runs: Vec<_> = ended.iter().map(|(_, run, _)| *run).collect();
    assert_eq!(runs, [second, first]);
    let (tenant, _, found) = &ended[0];
    assert_eq!((*tenant, &found.outcome), (ledger.tenant, &DONE));
    assert_eq!(found.last_event_id, finish(&DONE).last_event_id);
    assert_eq!(system.recently_ended(LONG, 1).await.unwrap().len(), 1);
    assert!(
        system
            .recently_ended(Duration::ZERO, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_end_of_a_run_that_nobody_held_stays_marked_until_its_log_has_it() {
    let ledger = Ledger::new().await;
    let (cancelled, held) = (ledger.queued().await, ledger.queued().await);
    let fence = ledger.fence(held, LONG).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    for run in [cancelled, held] {
        tx.request_cancel(run, "api_request").await.unwrap();
    }
    tx.commit().await.unwrap();
    let system = ledger.store.system();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();

    let marked = system.unlogged_ends(Duration::ZERO, 10).await.unwrap();
    let [(tenant, run, ended)] = &marked[..] else {
        panic!("{marked:?}");
    };
    assert_eq!((*tenant, *run), (ledger.tenant, cancelled));
    assert_eq!(ended.last_event_id, EventId::new(1, 1));
    assert!(system.unlogged_ends(LONG, 10).await.unwrap().is_empty());

    let logged = [(ledger.tenant, cancelled)];
    system.mark_ends_logged(&logged).await.unwrap();
    let left = system.unlogged_ends(Duration::ZERO, 10).await.unwrap();
    assert!(left.is_empty());
}
