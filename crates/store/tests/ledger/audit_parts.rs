//! The audit log has a partition for each month before it begins, and the owner drops old ones.

use baton_store::{AuditFilter, PruneError, prune_audit_log};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::audit::entry;
use crate::fixture::Ledger;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// Returns the partition that takes an entry of this time.
async fn part_of(ledger: &Ledger, time: &str) -> String {
    let mut superuser = ledger.superuser().await;
    sqlx::query_scalar(
        "INSERT INTO audit_log (id, at, actor_kind, action, result)
         VALUES (gen_random_uuid(), $1, 'operator', 'test', 'done')
         RETURNING tableoid::regclass::text",
    )
    .bind(at(time))
    .fetch_one(&mut superuser)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_month_has_its_part_before_it_begins_and_what_has_none_is_not_refused() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    // The last moment of a month, for a server in any time zone.
    let made = system
        .extend_audit_log(at("2091-01-31T23:59:59.999Z"))
        .await
        .unwrap();
    let months =
        ["2091_01", "2091_02", "2091_03", "2091_04"].map(|month| format!("audit_log_{month}"));
    assert_eq!(made, months);
    let again = system
        .extend_audit_log(at("2091-01-31T23:59:59.999Z"))
        .await
        .unwrap();
    assert_eq!(again, [""; 0]);
    let made = system
        .extend_audit_log(at("2091-02-01T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!(made, ["audit_log_2091_05"]);

    for (time, part) in [
        ("2019-05-01T00:00:00Z", "audit_log_first"),
        ("2091-01-01T00:00:00Z", "audit_log_2091_01"),
        ("2091-01-31T23:59:59.999999Z", "audit_log_2091_01"),
        ("2091-02-01T00:00:00Z", "audit_log_2091_02"),
        ("2091-05-31T23:59:59.999999Z", "audit_log_2091_05"),
        ("2091-06-01T00:00:00Z", "audit_log_default"),
    ] {
        assert_eq!(part_of(&ledger, time).await, part, "{time}");
    }
    // Entries of a month without a partition stay in the default one; the next months get their
    // own.
    let made = system
        .extend_audit_log(at("2091-06-10T00:00:00Z"))
        .await
        .unwrap();
    let months = ["2091_07", "2091_08", "2091_09"].map(|month| format!("audit_log_{month}"));
    assert_eq!(made, months);
    let all = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    assert_eq!(system.audit_log(&all).await.unwrap().len(), 6);
}

#[tokio::test]
async fn the_owner_drops_whole_months_and_the_log_says_so() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    system
        .extend_audit_log(at("2091-01-15T00:00:00Z"))
        .await
        .unwrap();
    for time in [
        "2019-05-01",
        "2091-01-07",
        "2091-02-07",
        "2091-03-07",
        "2091-07-07",
    ] {
        part_of(&ledger, &format!("{time}T00:00:00Z")).await;
    }
    let url = &ledger.database.migrate_url;
    let entry = baton_store::AuditEntry {
        tenant: None,
        ..entry(ledger.tenant, "audit.pruned")
    };
    let prune = async |before: &str, today: &str| {
        prune_audit_log(url, day(before), day(today), &entry)
            .await
            .map(|dropped| {
                dropped
                    .into_iter()
                    .map(|part| part.name)
                    .collect::<Vec<_>>()
            })
    };
    let future = prune("2091-03-01", "2091-02-28").await;
    assert!(matches!(future, Err(PruneError::Future(_))), "{future:?}");
    assert_eq!(prune("2019-01-01", "2091-03-01").await.unwrap(), [""; 0]);
    let dropped = prune("2091-02-28", "2091-03-15").await.unwrap();
    assert!(
        dropped.contains(&"audit_log_first".to_owned()),
        "{dropped:?}"
    );
    assert!(
        dropped.contains(&"audit_log_2091_01".to_owned()),
        "{dropped:?}"
    );
    assert!(
        !dropped.contains(&"audit_log_2091_02".to_owned()),
        "{dropped:?}"
    );
    let all = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    let actions = async || {
        let log = system.audit_log(&all).await.unwrap();
        log.into_iter()
            .map(|entry| entry.action)
            .collect::<Vec<_>>()
    };
    let mut left = actions().await;
    left.sort();
    assert_eq!(left, ["audit.pruned", "test", "test", "test"]);

    // The default partition is dropped once all its entries are old, and another takes its place.
    // The entry about the first pruning is of today; it lies in the default partition if today's
    // month had its partition dropped.
    let again = baton_store::AuditEntry {
        id: crate::audit::entry(ledger.tenant, "x").id,
        ..entry.clone()
    };
    let dropped = prune_audit_log(url, day("2091-08-01"), day("2091-08-01"), &again)
        .await
        .unwrap();
    assert!(
        dropped.iter().any(|part| part.name == "audit_log_default"),
        "{dropped:?}"
    );
    assert_eq!(actions().await, ["audit.pruned"]);
    assert_eq!(
        part_of(&ledger, "2099-01-01T00:00:00Z").await,
        "audit_log_default"
    );
}

#[tokio::test]
async fn no_part_can_be_changed_but_by_dropping_it() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    system
        .extend_audit_log(at("2091-01-15T00:00:00Z"))
        .await
        .unwrap();
    part_of(&ledger, "2091-01-07T00:00:00Z").await;
    let database = &ledger.database;
    let logins = [
        (&database.database_url, "SET ROLE baton_app"),
        (&database.database_url, "SET ROLE baton_system"),
        (&database.migrate_url, "RESET ROLE"),
        (&database.superuser_url, "RESET ROLE"),
    ];
    for (url, role) in logins {
        let mut connection = PgConnection::connect(url).await.unwrap();
        connection.execute(role).await.unwrap();
        for part in ["audit_log_2091_01", "audit_log_first", "audit_log_default"] {
            for change in [
                "UPDATE {} SET actor = 'bob'",
                "DELETE FROM {}",
                "TRUNCATE {}",
            ] {
                let change = change.replace("{}", part);
                let statement = sqlx::AssertSqlSafe(change.clone());
                let error = sqlx::raw_sql(statement)
                    .execute(&mut connection)
                    .await
                    .unwrap_err();
                let code = error
                    .as_database_error()
                    .unwrap()
                    .code()
                    .unwrap()
                    .into_owned();
                assert_eq!(code, "42501", "{role}: {change}: {error}");
            }
        }
        if url == &database.database_url {
            for refused in [
                "INSERT INTO audit_log_2091_01 SELECT * FROM audit_log",
                "SELECT * FROM audit_log_2091_01",
                "DROP TABLE audit_log_2091_01",
                "ALTER TABLE audit_log DETACH PARTITION audit_log_2091_01",
                "SELECT make_default_audit_part()",
                "SELECT guard_audit_part('audit_log_2091_01', '')",
            ] {
                let error = connection.execute(refused).await.unwrap_err();
                let code = error
                    .as_database_error()
                    .unwrap()
                    .code()
                    .unwrap()
                    .into_owned();
                assert_eq!(code, "42501", "{role}: {refused}: {error}");
            }
        }
    }
}
