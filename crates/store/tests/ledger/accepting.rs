//! Submissions that are accepted, and those that are refused.

use std::time::Duration;

use baton_protocol::{Lane, RunStatus, TenantId};
use baton_store::{Accept, IdempotencyKey, NewRun, QueueLimits, Refusal};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::fixture::{LONG, Ledger, ROOMY, new_run, run_id, spec};

#[tokio::test]
async fn a_run_reads_back_as_it_was_accepted() {
    let ledger = Ledger::new().await;
    let id = run_id();
    let mut spec = spec();
    spec.messages =
        RawValue::from_string("[ {\"content\" : \"a\\u0000b\", \"n\": 1e400} ]".into()).unwrap();
    let metadata = RawValue::from_string(r#"{"ticket": "\u0000"}"#.into()).unwrap();
    let run = NewRun {
        lane: Lane::Background,
        metadata: Some(&metadata),
        cancel_on_disconnect: true,
        created_by: Some("user:anna"),
        ..new_run(id, &spec)
    };
    assert!(matches!(
        ledger.accept_with(&run, &ROOMY).await.unwrap(),
        Accept::Created { .. }
    ));

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let read = tx.run(id).await.unwrap().unwrap();
    assert_eq!(read.status, RunStatus::Queued);
    assert_eq!((read.lane, read.model.as_str()), (Lane::Background, "m"));
    assert_eq!(read.metadata.unwrap().get(), metadata.get());
    assert!(
        read.spec_json.contains(spec.messages.get()),
        "byte for byte"
    );
    assert_eq!(
        (read.attempt, read.started_at, read.finished_at),
        (0, None, None)
    );
    assert!(read.cancel_on_disconnect);
    assert_eq!(read.created_by.as_deref(), Some("user:anna"));

    let claimed = ledger.claimed(id, LONG).await;
    assert_eq!(claimed.spec_json, read.spec_json);
    assert_eq!(claimed.created_at, read.created_at);
}

#[tokio::test]
async fn what_is_not_committed_is_not_accepted() {
    let ledger = Ledger::new().await;
    let (spec, id) = (spec(), run_id());
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.accept_run(&new_run(id, &spec), &ROOMY).await.unwrap();
    drop(tx);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.run(id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_makes_one_run_and_refuses_another_body() {
    let ledger = Ledger::new().await;
    let first = run_id();
    assert!(matches!(
        ledger.accept_keyed(first, "k", 1).await,
        Accept::Created { .. }
    ));
    assert_eq!(
        ledger.accept_keyed(run_id(), "k", 1).await.replayed(),
        Some(first)
    );
    assert!(matches!(
        ledger.accept_keyed(run_id(), "k", 2).await,
        Accept::Refused(Refusal::KeyReused)
    ));
    assert!(matches!(
        ledger.accept_keyed(run_id(), "other", 2).await,
        Accept::Created { .. }
    ));
}

/// Guards the index `runs_id`, and the lookup of the key before the id: an id that a program drew
/// names one run, and only the same submission finds it again.
#[tokio::test]
async fn an_id_that_names_a_run_already_is_taken_in_every_tenant() {
    let ledger = Ledger::new().await;
    let (mine, unkeyed) = (run_id(), ledger.queued().await);
    assert!(matches!(
        ledger.accept_keyed(mine, "k", 1).await,
        Accept::Created { .. }
    ));
    assert_eq!(
        ledger.accept_keyed(mine, "k", 1).await.replayed(),
        Some(mine)
    );
    assert!(matches!(
        ledger.accept_keyed(mine, "j", 1).await,
        Accept::Refused(Refusal::IdTaken)
    ));
    assert!(matches!(
        ledger.accept_keyed(unkeyed, "u", 1).await,
        Accept::Refused(Refusal::IdTaken)
    ));
    let spec = spec();
    let again = new_run(mine, &spec);
    let accepted = ledger.accept_with(&again, &ROOMY).await.unwrap();
    assert!(matches!(accepted, Accept::Refused(Refusal::IdTaken)));

    let fresh = TenantId::from_uuid(Uuid::now_v7());
    let other = ledger.store.system().ensure_tenant(fresh, "other").await;
    let other = other.unwrap().id;
    let elsewhere = ledger.store.accept_run(other, &again, &ROOMY).await;
    assert!(matches!(
        elsewhere.unwrap(),
        Accept::Refused(Refusal::IdTaken)
    ));
}

#[tokio::test]
async fn a_full_tenant_is_refused_but_repetitions_are_answered_and_running_ones_make_room() {
    let ledger = Ledger::new().await;
    let limits = QueueLimits { tenant: 2, ..ROOMY };
    let first = run_id();
    assert!(matches!(
        ledger.accept_keyed(first, "k", 1).await,
        Accept::Created { .. }
    ));
    ledger.queued().await;

    let (spec, key) = (
        spec(),
        IdempotencyKey {
            key: "k".into(),
            fingerprint: [1; 32],
        },
    );
    let refused = new_run(run_id(), &spec);
    let full = |accept| {
        matches!(
            accept,
            Accept::Refused(Refusal::TenantQueueFull { limit: 2 })
        )
    };
    assert!(full(ledger.accept_with(&refused, &limits).await.unwrap()));
    let repeated = NewRun {
        idempotency: Some(&key),
        ..new_run(run_id(), &spec)
    };
    assert_eq!(
        ledger
            .accept_with(&repeated, &limits)
            .await
            .unwrap()
            .replayed(),
        Some(first)
    );
    let fresh_key = IdempotencyKey {
        key: "fresh".into(),
        fingerprint: [1; 32],
    };
    let keyed = NewRun {
        idempotency: Some(&fresh_key),
        ..new_run(run_id(), &spec)
    };
    assert!(full(ledger.accept_with(&keyed, &limits).await.unwrap()));

    ledger.claimed(first, LONG).await;
    assert!(matches!(
        ledger.accept_with(&refused, &limits).await.unwrap(),
        Accept::Created { .. }
    ));
}

#[tokio::test]
async fn a_full_system_is_refused_once_the_estimate_has_seen_it() {
    let ledger = Ledger::new().await;
    let other = ledger.database.store().await;
    ledger.queued().await;
    ledger.queued().await;
    // The estimate of another store is fresh, because it counts when it is first asked.
    let limits = QueueLimits {
        tenant: 10,
        system: 2,
    };
    let spec = spec();
    let mut tx = other.tenant(ledger.tenant).await.unwrap();
    let refused = tx
        .accept_run(&new_run(run_id(), &spec), &limits)
        .await
        .unwrap();
    assert!(matches!(
        refused,
        Accept::Refused(Refusal::SystemQueueFull { limit: 2 })
    ));
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_not_a_refusal() {
    let ledger = Ledger::new().await;
    ledger.store.ping().await.unwrap();
    ledger.store.close().await;
    let error = ledger.store.tenant(ledger.tenant).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let stats = ledger.store.system().queue_stats().await.unwrap_err();
    assert!(stats.is_transient(), "{stats:?}");
    assert!(ledger.store.ping().await.is_err());
    assert!(ledger.database.store().await.ping().await.unwrap() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_ends_all_connections_costs_at_most_one_statement_of_each_kind() {
    let ledger = Ledger::new().await;
    let pings = (0..8).map(|_| ledger.store.ping());
    futures_util::future::join_all(pings).await;
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
         WHERE application_name = 'baton-test' AND datname = current_database()",
    )
    .fetch_one(&mut ledger.superuser().await)
    .await
    .unwrap();
    assert!(ended >= 1, "{ended}");
    // After idling, the store notices the lost connections by itself.
    if let Err(lost) = ledger.store.ping().await {
        assert!(lost.is_transient(), "{lost:?}");
    }
    for _ in 0..8 {
        ledger.store.ping().await.unwrap();
    }
}
