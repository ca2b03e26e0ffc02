//! A thread has one active run at a time; the next is promoted when it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_protocol::{MessageId, ThreadId};
use baton_store::{
    Accept, Append, ClaimOutcome, MessageOrder, Purged, Refusal, RunFilter, TenantTx, ThreadChange,
    ThreadDeletion, ThreadFilter,
};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{AssertSqlSafe, raw_sql};
use uuid::Uuid;

use crate::fixture::{DONE, LONG, Ledger, answer, finish};

/// Makes a thread and commits it.
pub(crate) async fn new_thread(ledger: &Ledger) -> ThreadId {
    let thread = ThreadId::from_uuid(Uuid::now_v7());
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_thread(thread, None, None).await.unwrap();
    tx.commit().await.unwrap();
    thread
}

/// Appends a user's message.
pub(crate) async fn append(tx: &mut TenantTx, thread: ThreadId, text: &str) -> Append {
    let message = format!(r#"{{"role":"user","content":"{text}"}}"#);
    let message = RawValue::from_string(message).unwrap();
    let id = MessageId::from_uuid(Uuid::now_v7());
    tx.append_messages(thread, &[(id, &message)]).await.unwrap()
}

#[tokio::test]
async fn a_run_waits_while_its_thread_is_busy_and_is_named_when_it_may_go() {
    let ledger = Ledger::new().await;
    let thread = ThreadId::from_uuid(Uuid::now_v7());
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_thread(thread, Some("a talk"), None)
        .await
        .unwrap();
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

#[tokio::test]
async fn a_busy_thread_takes_no_messages_and_is_not_deleted() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let run = ledger.queued_in(Some(thread)).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(matches!(append(&mut tx, thread, "x").await, Append::Busy));
    let deletion = tx.delete_thread(thread).await.unwrap();
    assert_eq!(deletion, ThreadDeletion::Busy);
    tx.commit().await.unwrap();

    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let appended = append(&mut tx, thread, "x").await;
    assert!(matches!(appended, Append::Appended(_)), "{appended:?}");
    let other = ThreadId::from_uuid(Uuid::now_v7());
    assert!(matches!(
        append(&mut tx, other, "x").await,
        Append::NotFound
    ));
}

#[tokio::test]
async fn messages_that_are_appended_at_once_all_get_a_place() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let appends = (0..20).map(|number| {
        let store = ledger.store.clone();
        async move {
            let mut tx = store.tenant(ledger.tenant).await.unwrap();
            let appended = append(&mut tx, thread, &number.to_string()).await;
            assert!(matches!(appended, Append::Appended(_)), "{appended:?}");
            tx.commit().await.unwrap();
        }
    });
    futures_util::future::join_all(appends).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let page = tx.thread_messages(thread, MessageOrder::Descending, None, 100);
    let places: Vec<_> = page
        .await
        .unwrap()
        .data
        .iter()
        .map(|it| it.position)
        .collect();
    assert_eq!(places, (1..=20).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_place_of_a_deleted_message_is_given_to_no_later_one() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let places = async || {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let page = tx.thread_messages(thread, MessageOrder::Ascending, None, 100);
        let data = page.await.unwrap().data;
        let places: Vec<_> = data.iter().map(|it| it.position).collect();
        (places, data.last().map(|it| it.id))
    };
    let remove_last = async || {
        let (_, last) = places().await;
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        assert_eq!(tx.lock_thread(thread).await.unwrap(), Some(false));
        let last = last.unwrap();
        assert!(tx.delete_thread_message(thread, last).await.unwrap());
        assert!(!tx.delete_thread_message(thread, last).await.unwrap());
        tx.commit().await.unwrap();
    };
    let write = async || {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        append(&mut tx, thread, "x").await;
        tx.commit().await.unwrap();
    };
    for _ in 0..3 {
        write().await;
    }
    remove_last().await;
    write().await;
    assert_eq!(places().await.0, [1, 2, 4]);
    remove_last().await;
    // Of two deletions the higher position counts, whichever comes last.
    remove_last().await;
    let run = ledger.queued_in(Some(thread)).await;
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &answer(&DONE)).await.unwrap();
    let (after_a_run, _) = places().await;
    assert_eq!(after_a_run[..2], [1, 5]);
}

#[tokio::test]
async fn the_rows_of_a_deleted_thread_go_in_batches_and_nothing_else_does() {
    let ledger = Ledger::new().await;
    let (thread, kept) = (new_thread(&ledger).await, new_thread(&ledger).await);
    let system = ledger.store.system();
    let mut ended = Vec::new();
    for in_thread in [thread, thread, thread, kept] {
        let run = ledger.queued_in(Some(in_thread)).await;
        let fence = ledger.fence(run, LONG).await;
        system.finish_run(&fence, &answer(&DONE)).await.unwrap();
        ended.push(run);
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        append(&mut tx, in_thread, "x").await;
        tx.commit().await.unwrap();
    }
    let purge = system.purge_thread(ledger.tenant, thread, 100).await;
    assert_eq!(purge.unwrap(), Purged::default(), "it is not deleted yet");

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let deletion = tx.delete_thread(thread).await.unwrap();
    assert_eq!(deletion, ThreadDeletion::Deleted);
    tx.commit().await.unwrap();
    assert_eq!(
        system.deleted_threads(10).await.unwrap(),
        [(ledger.tenant, thread)]
    );
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.thread(thread).await.unwrap().is_none());
    let again = tx.delete_thread(thread).await.unwrap();
    assert_eq!(again, ThreadDeletion::NotFound);
    drop(tx);

    let mut sums = Purged::default();
    loop {
        let purged = system.purge_thread(ledger.tenant, thread, 2).await.unwrap();
        assert!(purged.runs <= 2 && purged.messages <= 2, "{purged:?}");
        sums.runs += purged.runs;
        sums.messages += purged.messages;
        sums.threads += purged.threads;
        if purged.threads == 1 {
            break;
        }
        assert_ne!(purged, Purged::default());
    }
    assert_eq!(sums.runs, 3);
    assert!(sums.messages >= 3, "{sums:?}");
    assert_eq!(system.deleted_threads(10).await.unwrap(), []);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    for run in &ended[..3] {
        assert!(tx.run(*run).await.unwrap().is_none());
        assert!(tx.run_steps(*run).await.unwrap().is_empty());
        assert!(tx.run_messages(*run).await.unwrap().is_empty());
    }
    assert!(tx.run(ended[3]).await.unwrap().is_some());
    assert!(tx.thread(kept).await.unwrap().is_some());
    let page = tx.thread_messages(kept, MessageOrder::Ascending, None, 10);
    assert!(!page.await.unwrap().data.is_empty());
}

#[tokio::test]
async fn a_key_whose_run_was_deleted_makes_no_other() {
    let ledger = Ledger::new().await;
    let run = crate::fixture::run_id();
    ledger.accept_keyed(run, "k", 1).await;
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    let mut superuser = ledger.superuser().await;
    sqlx::query("DELETE FROM runs WHERE id = $1")
        .bind(run.as_uuid())
        .execute(&mut superuser)
        .await
        .unwrap();
    let again = ledger.accept_keyed(crate::fixture::run_id(), "k", 1).await;
    assert!(
        matches!(again, Accept::Refused(Refusal::KeyReused)),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_run_that_is_not_to_be_kept_is_found_after_its_end() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let mut spec = crate::fixture::spec();
    let mut ended = Vec::new();
    for store in [false, true] {
        let settings = serde_json::value::to_raw_value(&serde_json::json!({"store": store}));
        spec.response = Some(settings.unwrap());
        let run = crate::fixture::new_run(crate::fixture::run_id(), &spec);
        ledger
            .accept_with(&run, &crate::fixture::ROOMY)
            .await
            .unwrap();
        let fence = ledger.fence(run.id, LONG).await;
        let found = system.unstored_runs(Duration::ZERO, 10).await.unwrap();
        assert_eq!(found, ended, "one that works is not found");
        system.finish_run(&fence, &answer(&DONE)).await.unwrap();
        if !store {
            ended.push((ledger.tenant, run.id));
        }
    }
    let of_an_hour = system.unstored_runs(Duration::from_hours(1), 10).await;
    assert_eq!(of_an_hour.unwrap(), []);
    assert_eq!(
        system.unstored_runs(Duration::ZERO, 10).await.unwrap(),
        ended
    );
    assert!(system.delete_run(ledger.tenant, ended[0].1).await.unwrap());
    assert_eq!(system.unstored_runs(Duration::ZERO, 10).await.unwrap(), []);
}

/// Guards the index of metadata: it names each thread with the fields, and no other.
#[tokio::test]
async fn a_search_by_metadata_finds_the_threads_that_have_all_of_the_fields_now() {
    let ledger = Ledger::new().await;
    let long = "x".repeat(600);
    let metadata = [
        json!({"app": "chat", "user": "ada", "tags": ["a"], "note": long}),
        json!({"app": "chat", "user": "bob"}),
        json!({"app": "mail", "user": "ada"}),
    ];
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let mut threads = Vec::new();
    for metadata in &metadata {
        let thread = ThreadId::from_uuid(Uuid::now_v7());
        let metadata = to_raw_value(metadata).unwrap();
        tx.create_thread(thread, Some("A talk"), Some(&metadata))
            .await
            .unwrap();
        threads.push(thread);
    }
    let [first, second, third] = *threads else {
        panic!()
    };
    tx.commit().await.unwrap();
    let found = async |fields: &[(&str, &str)], title| {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let fields: BTreeMap<String, String> = fields.collect();
        let filter = ThreadFilter {
            title,
            metadata: Some(&fields),
        };
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = tx.list_threads(&filter, cursor, 1).await.unwrap();
            found.extend(page.data.iter().map(|thread| thread.id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return found;
            }
        }
    };
    assert_eq!(found(&[("app", "chat")], None).await, [second, first]);
    assert_eq!(
        found(&[("app", "chat"), ("user", "ada")], None).await,
        [first]
    );
    assert_eq!(
        found(&[("user", "ada")], Some("TALK")).await,
        [third, first]
    );
    assert_eq!(found(&[("user", "ada")], Some("walk")).await, []);
    assert_eq!(found(&[("user", "eve")], None).await, []);
    // Only texts are asked for.
    assert_eq!(found(&[("tags", r#"["a"]"#)], None).await, []);
    assert_eq!(found(&[], None).await, [third, second, first]);

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let moved = to_raw_value(&json!({"app": "mail", "user": "bob"})).unwrap();
    let change = ThreadChange {
        metadata: Some(Some(&moved)),
        ..ThreadChange::default()
    };
    tx.change_thread(first, &change).await.unwrap();
    let cleared = ThreadChange {
        metadata: Some(None),
        ..ThreadChange::default()
    };
    tx.change_thread(second, &cleared).await.unwrap();
    let deletion = tx.delete_thread(third).await.unwrap();
    assert_eq!(deletion, ThreadDeletion::Deleted);
    tx.commit().await.unwrap();
    assert_eq!(found(&[("app", "chat")], None).await, []);
    assert_eq!(found(&[("app", "mail")], None).await, [first]);
    assert_eq!(
        found(&[("app", "mail"), ("user", "bob")], None).await,
        [first]
    );
    let system = ledger.store.system();
    let purged = system.purge_thread(ledger.tenant, third, 10).await.unwrap();
    assert_eq!(purged.threads, 1);
    assert_eq!(found(&[("app", "mail")], None).await, [first]);
}

/// Guards the index against row-level security: conditions that are not leakproof reach none.
#[tokio::test]
async fn a_search_by_metadata_reads_an_index_under_the_policy_of_its_tenant() {
    let ledger = Ledger::new().await;
    let mut session = ledger.superuser().await;
    let setup = format!(
        "SET ROLE baton_app; SET baton.tenant = '{}'; SET enable_seqscan = off; SET enable_bitmapscan = off",
        ledger.tenant
    );
    raw_sql(AssertSqlSafe(setup))
        .execute(&mut session)
        .await
        .unwrap();
    let explain = format!(
        "EXPLAIN SELECT thread_id FROM thread_fields
         WHERE tenant_id = '{}' AND name = 'user' AND value = 'ada' AND thread_id < '{}'
         ORDER BY thread_id DESC LIMIT 20",
        ledger.tenant,
        Uuid::max()
    );
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_all(&mut session)
        .await
        .unwrap();
    let conditions = plan
        .iter()
        .find(|line| line.contains("Index Cond"))
        .unwrap();
    for column in ["tenant_id", "name", "value", "thread_id"] {
        assert!(conditions.contains(column), "{plan:#?}");
    }
    assert!(!plan.iter().any(|line| line.contains("Sort")), "{plan:#?}");
}
