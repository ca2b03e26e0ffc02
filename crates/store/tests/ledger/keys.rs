//! API keys are found by their hash, and stay listed when revoked.

use std::time::Duration;

use baton_protocol::{ApiKeyId, TenantId};
use baton_store::{FreshKey, KeyLimits, KeyStanding, NewApiKey, NewRun};
use uuid::Uuid;

use crate::fixture::{LONG, Ledger, ROOMY, new_run, run_id, spec};

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
        limits: baton_store::KeyLimits::default(),
        created_by: None,
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
    let by_id = system.find_api_key_by_id(ledger.tenant, key.id).await;
    assert_eq!(by_id.unwrap().unwrap().id, key.id);
    let elsewhere = TenantId::from_uuid(Uuid::now_v7());
    let elsewhere = system.find_api_key_by_id(elsewhere, key.id).await;
    assert_eq!(elsewhere.unwrap(), None, "of another tenant");

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.revoke_api_key(key.id).await.unwrap());
    let revoked_at = tx.list_api_keys().await.unwrap()[0].revoked_at;
    assert!(revoked_at.is_some());
    assert!(!tx.revoke_api_key(key.id).await.unwrap());
    tx.commit().await.unwrap();
    let found = system.find_api_key(&key.hash).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, revoked_at, "the first revocation stands");
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_the_overlap_and_its_successor_may_do_the_same() {
    let ledger = Ledger::new().await;
    let limits = KeyLimits {
        per_minute: Some(60),
        per_day: Some(1_000),
        concurrent_runs: Some(3),
        monthly_tokens: Some(1_000_000),
        monthly_cost_micros: Some(5_000_000),
    };
    let old = NewApiKey {
        id: ApiKeyId::from_uuid(Uuid::now_v7()),
        hash: [7; 32],
        name: "ci".into(),
        prefix: "bt_live_ab".into(),
        scopes: vec!["runs:write".into()],
        allowed_models: Some(vec!["m".into()]),
        allowed_tools: Some(vec!["calculator".into()]),
        expires_at: None,
        limits,
        created_by: Some("user:1".into()),
    };
    let fresh = |hash: u8| FreshKey {
        id: ApiKeyId::from_uuid(Uuid::now_v7()),
        hash: [hash; 32],
        prefix: "bt_live_cd".into(),
        expires_at: None,
        created_by: Some("user:2".into()),
    };
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_api_key(&old).await.unwrap();
    let first = fresh(8);
    let hour = Duration::from_hours(1);
    assert!(tx.rotate_api_key(old.id, &first, hour).await.unwrap());
    tx.commit().await.unwrap();

    let system = ledger.store.system();
    let before = system.find_api_key(&[7; 32]).await.unwrap().unwrap();
    let after = system.find_api_key(&[8; 32]).await.unwrap().unwrap();
    let ends = before.expires_at.unwrap() - before.created_at;
    assert!((3_590..3_700).contains(&ends.num_seconds()), "{ends}");
    assert_eq!((after.id, after.rotated_from), (first.id, Some(old.id)));
    assert_eq!((after.limits, after.expires_at), (limits, None));
    assert_eq!(
        (
            &after.name,
            &after.scopes,
            &after.allowed_models,
            &after.allowed_tools
        ),
        (
            &before.name,
            &before.scopes,
            &before.allowed_models,
            &before.allowed_tools
        )
    );
    // The use was recorded just now, and is not written again within the minute.
    let used = system.find_api_key(&[8; 32]).await.unwrap().unwrap();
    assert!(used.last_used_at.is_some());
    let again = system.find_api_key(&[8; 32]).await.unwrap().unwrap();
    assert_eq!(used.last_used_at, again.last_used_at);

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.revoke_api_key(old.id).await.unwrap();
    assert!(!tx.rotate_api_key(old.id, &fresh(9), hour).await.unwrap());
    let nobody = ApiKeyId::from_uuid(Uuid::now_v7());
    assert!(!tx.rotate_api_key(nobody, &fresh(10), hour).await.unwrap());
}

#[tokio::test]
async fn whoever_claims_a_run_learns_what_its_key_may_do_by_now() {
    let ledger = Ledger::new().await;
    let key = NewApiKey {
        allowed_models: Some(vec!["m".into()]),
        ..crate::isolation::key(5)
    };
    let spec = spec();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_api_key(&key).await.unwrap();
    tx.commit().await.unwrap();
    let submit = async |api_key_id| {
        let run = NewRun {
            api_key_id,
            created_by: None,
            ..new_run(run_id(), &spec)
        };
        ledger.accept_with(&run, &ROOMY).await.unwrap();
        run.id
    };
    let (keyless, keyed, late) = (
        submit(None).await,
        submit(Some(key.id)).await,
        submit(Some(key.id)).await,
    );
    assert_eq!(ledger.claimed(keyless, LONG).await.key, None);
    let standing = ledger.claimed(keyed, LONG).await.key.unwrap();
    let now = KeyStanding {
        revoked: false,
        scopes: key.scopes.clone(),
        models: key.allowed_models.clone(),
        tools: None,
        token_budget: false,
        cost_budget: false,
    };
    assert_eq!(standing, now);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.revoke_api_key(key.id).await.unwrap();
    tx.commit().await.unwrap();
    assert!(ledger.claimed(late, LONG).await.key.unwrap().revoked);
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

/// Guards the second try. Without it, the first request after a restart of the server is refused.
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
