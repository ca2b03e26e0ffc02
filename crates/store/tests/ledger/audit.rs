//! Entries can be added to the audit log; nothing else can be done with it.

use baton_protocol::{AuditId, TenantId};
use baton_store::{ActorKind, AuditEntry, AuditFilter, AuditResult};
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::fixture::Ledger;

pub(crate) fn entry(tenant: TenantId, action: &'static str) -> AuditEntry {
    AuditEntry {
        id: AuditId::from_uuid(Uuid::now_v7()),
        tenant: Some(tenant),
        actor_kind: ActorKind::User,
        actor: Some("anna".into()),
        action,
        target: Some("key:1".into()),
        result: AuditResult::Done,
        detail: None,
        ip: Some("192.0.2.7".into()),
        user_agent: Some("curl".into()),
        request_id: Some("r-1".into()),
    }
}

#[tokio::test]
async fn entries_are_listed_by_what_is_asked_for() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    for action in ["key.created", "key.revoked", "session.opened"] {
        system
            .record_audit(&entry(ledger.tenant, action))
            .await
            .unwrap();
    }
    let refused = AuditEntry {
        tenant: None,
        actor: Some("eve".into()),
        result: AuditResult::Refused,
        ..entry(ledger.tenant, "session.opened")
    };
    system.record_audit(&refused).await.unwrap();
    let all = AuditFilter {
        limit: 10,
        ..AuditFilter::default()
    };
    let actions = async |filter: AuditFilter| {
        let entries = system.audit_log(&filter).await.unwrap();
        entries
            .into_iter()
            .map(|entry| entry.action)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        actions(all.clone()).await,
        [
            "key.created",
            "key.revoked",
            "session.opened",
            "session.opened"
        ]
    );
    let keys = AuditFilter {
        action: Some("key.".into()),
        ..all.clone()
    };
    assert_eq!(actions(keys).await, ["key.created", "key.revoked"]);
    let newest = AuditFilter {
        limit: 1,
        tenant: Some(ledger.tenant),
        ..all.clone()
    };
    assert_eq!(actions(newest).await, ["session.opened"]);
    for filter in [
        AuditFilter {
            actor: Some("eve".into()),
            ..all.clone()
        },
        AuditFilter {
            result: Some("refused".into()),
            ..all.clone()
        },
    ] {
        assert_eq!(actions(filter).await, ["session.opened"]);
    }
}

#[tokio::test]
async fn nobody_changes_or_removes_an_entry_not_even_the_owner_of_the_table() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    system
        .record_audit(&entry(ledger.tenant, "key.created"))
        .await
        .unwrap();
    for url in [
        &ledger.database.database_url,
        &ledger.database.migrate_url,
        &ledger.database.superuser_url,
    ] {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let roles: &[&str] = if url == &ledger.database.database_url {
            &["SET ROLE baton_app", "SET ROLE baton_system"]
        } else {
            &["RESET ROLE"]
        };
        for role in roles {
            connection.execute(*role).await.unwrap();
            for change in [
                "UPDATE audit_log SET actor = 'bob'",
                "DELETE FROM audit_log",
                "TRUNCATE audit_log",
            ] {
                let error = connection.execute(change).await.unwrap_err();
                let code = error.as_database_error().unwrap().code().unwrap();
                assert_eq!(code, "42501", "{role}: {change}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_tenants_transaction_adds_to_its_own_log_alone() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let other = TenantId::from_uuid(Uuid::now_v7());
    let foreign = tx.record_audit(&entry(other, "key.created")).await;
    assert!(foreign.is_err());
}

#[tokio::test]
async fn what_is_done_in_one_commit_stands_as_a_whole_or_not_at_all() {
    let ledger = Ledger::new().await;
    let filter = AuditFilter {
        limit: 10,
        ..AuditFilter::default()
    };
    let count = async || {
        ledger
            .store
            .system()
            .audit_log(&filter)
            .await
            .unwrap()
            .len()
    };
    // More rounds than there are connections, so that each must be returned or closed.
    for round in 0..30 {
        let one = ledger.store.one_commit().await.unwrap();
        let system = one.system();
        for action in ["key.created", "key.revoked"] {
            let entry = entry(ledger.tenant, action);
            system.record_audit(&entry).await.unwrap();
        }
        assert_eq!(system.audit_log(&filter).await.unwrap().len(), 2);
        assert_eq!(count().await, 0, "nobody else sees it yet");
        if round % 2 == 0 {
            one.rollback().await.unwrap();
        } else {
            drop(one);
        }
    }
    assert_eq!(count().await, 0);
    let one = ledger.store.one_commit().await.unwrap();
    let entry = entry(ledger.tenant, "key.created");
    one.system().record_audit(&entry).await.unwrap();
    one.commit().await.unwrap();
    assert_eq!(count().await, 1);
}

/// Guards against a client's NUL, which no text column takes. Without the entry, the action that it
/// records would fail for ever as if the ledger were unavailable. Before: `request_id` and `ip`
/// went to the database unchanged.
#[tokio::test]
async fn an_entry_with_a_nul_in_any_of_its_texts_is_recorded() {
    let ledger = Ledger::new().await;
    let (store, tenant) = (&ledger.store, ledger.tenant);
    let text = || Some("a\0b".to_owned());
    let first = AuditEntry {
        actor: text(),
        target: text(),
        detail: text(),
        ip: text(),
        user_agent: text(),
        request_id: text(),
        ..entry(tenant, "test.nul")
    };
    store.system().record_audit(&first).await.unwrap();
    let mut tx = store.tenant(tenant).await.unwrap();
    let second = AuditEntry {
        id: AuditId::from_uuid(Uuid::now_v7()),
        ..first
    };
    tx.record_audit(&second).await.unwrap();
    tx.commit().await.unwrap();
    let filter = AuditFilter {
        tenant: Some(tenant),
        limit: 10,
        ..AuditFilter::default()
    };
    let read = store.system().audit_log(&filter).await.unwrap();
    assert_eq!(read.len(), 2);
    for field in [&read[0].request_id, &read[0].ip, &read[0].actor] {
        assert_eq!(field.as_deref(), Some("a\u{fffd}b"));
    }
}
