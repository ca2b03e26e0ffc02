//! Users and a database made by an administrator.

use baton_store::{Login, bootstrap};
use baton_test_ledger::TestDatabase;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

/// Managed servers offer no superuser, so CREATEROLE and CREATEDB must be enough.
#[tokio::test]
async fn an_administrator_who_is_no_superuser_makes_users_and_database() {
    let server = TestDatabase::create_unmigrated().await;
    let options: PgConnectOptions = server.superuser_url.parse().unwrap();
    let mut superuser = PgConnection::connect_with(&options).await.unwrap();
    let suffix = Uuid::new_v4().simple().to_string();
    let named = |what: &str| format!("baton_test_{what}_{suffix}");
    let (admin, owner, app, database) = (named("admin"), named("owner"), named("app"), named("db"));
    let password = "only-for-tests-of-baton";
    let make = format!("CREATE ROLE {admin} LOGIN CREATEROLE CREATEDB PASSWORD '{password}'");
    sqlx::raw_sql(AssertSqlSafe(make))
        .execute(&mut superuser)
        .await
        .unwrap();

    let host = server.superuser_url.split_once('@').unwrap().1;
    let admin_url = format!("postgres://{admin}:{password}@{host}");
    let login = |user| Login { user, password };
    // Twice: the second time everything exists already.
    for _ in 0..2 {
        bootstrap(&admin_url, &database, login(&owner), login(&app))
            .await
            .unwrap();
    }
    let owned_by: String = sqlx::query_scalar(
        "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = $1",
    )
    .bind(&database)
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(owned_by, owner);

    let remove = [
        format!("DROP DATABASE {database}"),
        format!("DROP ROLE {owner}, {app}, {admin}"),
    ];
    for statement in remove {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut superuser)
            .await
            .unwrap();
    }
}
