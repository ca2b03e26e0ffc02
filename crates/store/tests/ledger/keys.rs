//! API keys are found by their hash, and stay listed when revoked.

use baton_protocol::ApiKeyId;
use baton_store::NewApiKey;
use uuid::Uuid;

use crate::fixture::Ledger;

#[tokio::test]
async fn a_key_is_found_by_its_hash_across_tenants_and_tells_when_it_was_revoked() {
    let ledger = Ledger::new().await;
    let key = NewApiKey {
        id: ApiKeyId::from_uuid(Uuid::now_v7()),
        hash: [7; 32],
        name: "ci".into(),
        prefix: "baton_live_ab".into(),
        scopes: vec!["runs:write".into(), "runs:read".into()],
        allowed_models: Some(vec!["m".into()]),
        allowed_tools: Some(vec![]),
        expires_at: None,
    };
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_api_key(&key).await.unwrap();
    tx.commit().await.unwrap();

    let system = ledger.store.system();
    let found = system.find_api_key(&key.hash).await.unwrap().unwrap();
    assert_eq!((found.tenant, found.id), (ledger.tenant, key.id));
    assert_eq!(found.scopes, key.scopes);
    assert_eq!(found.allowed_models, key.allowed_models);
    assert_eq!(found.allowed_tools, key.allowed_tools);
    assert_eq!(found.revoked_at, None);
    assert!(system.find_api_key(&[8; 32]).await.unwrap().is_none());

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.revoke_api_key(key.id).await.unwrap());
    let revoked_at = tx.list_api_keys().await.unwrap()[0].revoked_at;
    assert!(revoked_at.is_some());
    assert!(tx.revoke_api_key(key.id).await.unwrap());
    tx.commit().await.unwrap();
    let found = system.find_api_key(&key.hash).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, revoked_at, "the first revocation stands");
}

#[tokio::test]
async fn a_tenant_is_made_once_by_its_name() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let again = system
        .ensure_tenant(crate::fixture::tenant_id(), "acme")
        .await
        .unwrap();
    assert_eq!(again.id, ledger.tenant);
    assert_eq!(system.tenant(ledger.tenant).await.unwrap(), Some(again));
    let nobody = crate::fixture::tenant_id();
    assert_eq!(system.tenant(nobody).await.unwrap(), None);
}

/// Without the second try, the first request after a restart of the server is refused.
#[tokio::test]
async fn a_server_that_ends_all_connections_costs_a_key_nothing() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    assert!(system.find_api_key(&[8; 32]).await.unwrap().is_none());
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
         WHERE application_name = 'baton-test' AND datname = current_database()",
    )
    .fetch_one(&mut ledger.superuser().await)
    .await
    .unwrap();
    assert!(ended >= 1, "{ended}");
    assert!(system.find_api_key(&[8; 32]).await.unwrap().is_none());
}
