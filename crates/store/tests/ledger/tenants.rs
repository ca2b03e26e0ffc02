//! Tenants that people made, and those from operators.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::fixture::Ledger;

#[tokio::test]
async fn tenants_from_before_that_people_made_leave_the_operators_names() {
    let ledger = Ledger::new().await;
    let mut superuser = ledger.superuser().await;
    superuser
        .execute(
            "INSERT INTO tenants (id, name) VALUES
                 (gen_random_uuid(), 'operators'), (gen_random_uuid(), 'globex'),
                 (gen_random_uuid(), repeat('x', 200)), (gen_random_uuid(), '~taken'),
                 (gen_random_uuid(), 'taken');
             INSERT INTO audit_log (id, tenant_id, actor_kind, action, result, detail)
             SELECT gen_random_uuid(), id, 'user', 'user.registered', 'done', 'owner of a new tenant'
             FROM tenants WHERE name NOT IN ('operators', 'acme')",
        )
        .await
        .unwrap();
    let migration = include_str!("../../../../migrations/0051_tenant_names.sql");
    let url = &ledger.database.migrate_url;
    let mut owner = PgConnection::connect(url).await.unwrap();
    for _ in 0..2 {
        owner.execute(migration).await.unwrap();
    }
    let names: Vec<String> =
        sqlx::query_scalar("SELECT left(name, 12) FROM tenants ORDER BY name COLLATE \"C\"")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(names.len(), 6);
    assert_eq!(names[..4], ["acme", "operators", "~globex", "~taken"]);
    assert!(names[4].starts_with("~taken "), "{names:?}");
    assert_eq!(names[5], "~xxxxxxxxxxx");
    let system = ledger.store.system();
    assert!(system.tenant_by_name("globex").await.unwrap().is_none());
    assert!(system.tenant_by_name("~globex").await.unwrap().is_none());
    assert!(system.tenant_by_name("operators").await.unwrap().is_some());
    assert_eq!(system.tenant_names(9).await.unwrap(), ["acme", "operators"]);
}
