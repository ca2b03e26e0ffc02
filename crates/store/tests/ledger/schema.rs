//! The schema agrees with the Rust types, documents itself, and is refused when it is too old.

use std::time::Duration;

use baton_protocol::{
    ApprovalReason, CallFailure, Decision, Effect, FinishReason, Lane, Role, RunStatus,
};
use baton_store::{
    ActorKind, AttemptEnding, AuditResult, ConnectError, SLOW_GROUP, StepKind, StepState, Store,
    StoreOptions, migrate,
};
use baton_test_ledger::{APP, TestDatabase};
use futures_util::future::join_all;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::fixture::Ledger;

/// Returns the words that a domain's CHECK admits, in the order of the CHECK.
async fn words(superuser: &mut PgConnection, domain: &str) -> Vec<String> {
    let check: String = sqlx::query_scalar(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = $1::regtype",
    )
    .bind(domain)
    .fetch_one(superuser)
    .await
    .unwrap();
    check
        .split('\'')
        .skip(1)
        .step_by(2)
        .map(Into::into)
        .collect()
}

#[tokio::test]
async fn every_name_list_is_the_rust_enum() {
    let ledger = Ledger::new().await;
    let mut superuser = ledger.superuser().await;
    let lists = [
        ("run_status", RunStatus::ALL.map(RunStatus::as_str).to_vec()),
        ("run_lane", Lane::ALL.map(Lane::as_str).to_vec()),
        (
            "finish_reason",
            FinishReason::ALL.map(FinishReason::as_str).to_vec(),
        ),
        (
            "question_reason",
            ApprovalReason::ALL.map(ApprovalReason::as_str).to_vec(),
        ),
        ("question_decision", Decision::NAMES.to_vec()),
        (
            "attempt_ending",
            AttemptEnding::RELEASES.map(AttemptEnding::as_str).to_vec(),
        ),
        ("step_kind", StepKind::ALL.map(StepKind::as_str).to_vec()),
        ("step_state", StepState::ALL.map(StepState::as_str).to_vec()),
        (
            "tool_effect",
            [Effect::Pure, Effect::Idempotent, Effect::AtMostOnce]
                .map(Effect::as_str)
                .to_vec(),
        ),
        (
            "call_failure",
            CallFailure::ALL.map(CallFailure::as_str).to_vec(),
        ),
        ("member_role", Role::ALL.map(Role::as_str).to_vec()),
        (
            "audit_actor",
            ActorKind::ALL.map(ActorKind::as_str).to_vec(),
        ),
        (
            "audit_result",
            AuditResult::ALL.map(AuditResult::as_str).to_vec(),
        ),
        // These words occur in statements only.
        (
            "session_end",
            vec!["logout", "revoked", "reuse", "password", "operator"],
        ),
        (
            "one_time_kind",
            vec!["invite", "password_reset", "bootstrap"],
        ),
    ];
    let domains: i64 = sqlx::query_scalar(
        // Two that were replaced are there for the migrations that name them.
        "SELECT count(DISTINCT atttypid) FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
         WHERE typtype = 'd' AND typnamespace = 'public'::regnamespace AND NOT attisdropped",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(usize::try_from(domains).unwrap(), lists.len());
    for (domain, names) in lists {
        assert_eq!(words(&mut superuser, domain).await, names, "{domain}");
        let comment: String =
            sqlx::query_scalar("SELECT coalesce(obj_description($1::regtype, 'pg_type'), '')")
                .bind(domain)
                .fetch_one(&mut superuser)
                .await
                .unwrap();
        for name in names {
            assert!(
                comment.contains(&format!("{name}:")) || comment.contains(name),
                "{domain}"
            );
        }
    }
}

#[tokio::test]
async fn every_table_and_column_carries_a_comment_and_every_table_forces_its_policies() {
    let ledger = Ledger::new().await;
    let mut superuser = ledger.superuser().await;
    let mute: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || coalesce('.' || a.attname, '')
         FROM pg_class c
         JOIN (SELECT attrelid, attnum, attname FROM pg_attribute
               WHERE attnum > 0 AND NOT attisdropped
               UNION ALL SELECT oid, 0, NULL FROM pg_class) a ON a.attrelid = c.oid
         WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
           AND c.relname <> '_sqlx_migrations'
           -- Columns of a part are those of its whole.
           AND NOT (c.relispartition AND a.attnum > 0)
           AND (CASE a.attnum WHEN 0 THEN obj_description(c.oid, 'pg_class')
                ELSE col_description(c.oid, a.attnum) END) IS NULL",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(mute, [""; 0]);
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
           AND relname <> '_sqlx_migrations' AND NOT (relrowsecurity AND relforcerowsecurity)",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(open, [""; 0]);
}

/// Guards both ways to delete a run: a new table with rows of a run is emptied by both, or is listed here.
#[tokio::test]
async fn the_rows_of_a_run_are_deleted_with_it() {
    // Accounts, the guard against a second run, the thread's own messages, and tickets of a minute.
    const KEPT: [&str; 5] = [
        "idempotency_keys",
        "reservations",
        "stream_tickets",
        "thread_messages",
        "usage_entries",
    ];
    let ledger = Ledger::new().await;
    let mut superuser = ledger.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.table_name::text FROM information_schema.columns c
         JOIN information_schema.tables t USING (table_schema, table_name)
         WHERE c.column_name = 'run_id' AND c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
         ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert!(tables.len() > KEPT.len(), "{tables:?}");
    for (source, text) in [
        ("runs/delete.rs", include_str!("../../src/runs/delete.rs")),
        ("threads.rs", include_str!("../../src/threads.rs")),
    ] {
        for table in &tables {
            let deletes = text.contains(&format!("DELETE FROM {table} "));
            let is_kept = KEPT.contains(&table.as_str());
            assert!(deletes || is_kept, "{source} leaves rows of {table}");
        }
    }
}

#[tokio::test]
async fn a_row_whose_columns_contradict_its_state_is_refused() {
    let ledger = Ledger::new().await;
    ledger.queued().await;
    let mut superuser = ledger.superuser().await;
    for nonsense in [
        "UPDATE runs SET status = 'asleep'",
        "UPDATE runs SET status = 'running'",
        "UPDATE runs SET lease_expires_at = now()",
        "UPDATE runs SET status = 'cancelled'",
        "UPDATE runs SET status = 'completed', finished_at = now()",
        "UPDATE runs SET status = 'failed', finished_at = now()",
        "UPDATE runs SET finish_reason = 'stop'",
        "UPDATE runs SET lane = 'fast'",
    ] {
        let error = superuser.execute(nonsense).await.unwrap_err();
        let code = error
            .as_database_error()
            .unwrap()
            .code()
            .unwrap()
            .into_owned();
        assert_eq!(code, "23514", "{nonsense}: {error}");
    }
}

fn options(url: &str) -> StoreOptions {
    StoreOptions {
        url: url.into(),
        max_connections: 2,
        acquire_timeout: Duration::from_secs(10),
        slow_group: SLOW_GROUP,
        application_name: "baton-test".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_old_is_refused_and_migrating_it_is_done_once() {
    let database = TestDatabase::create_unmigrated().await;
    let refused = Store::connect(options(&database.database_url))
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::Pending(_)), "{refused:?}");
    assert!(refused.to_string().contains("baton migrate"), "{refused}");

    let migrations = join_all((0..4).map(|_| migrate(&database.migrate_url, Some(APP)))).await;
    let applied: Vec<usize> = migrations
        .into_iter()
        .map(|done| done.unwrap().len())
        .collect();
    assert_eq!(
        applied.iter().filter(|count| **count > 0).count(),
        1,
        "{applied:?}"
    );
    Store::connect(options(&database.database_url))
        .await
        .unwrap();

    // A migration of a newer version does not disturb this build.
    let mut owner = PgConnection::connect(&database.superuser_url)
        .await
        .unwrap();
    owner
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', true, '', 0)",
        )
        .await
        .unwrap();
    Store::connect(options(&database.database_url))
        .await
        .unwrap();
    assert_eq!(migrate(&database.migrate_url, None).await.unwrap(), []);
    // A missing migration does.
    owner
        .execute("DELETE FROM _sqlx_migrations WHERE version = 5")
        .await
        .unwrap();
    let refused = Store::connect(options(&database.database_url))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("0005 runs"), "{refused}");
}

#[tokio::test]
async fn a_user_without_the_roles_is_told_so() {
    let ledger = Ledger::new().await;
    let refused = Store::connect(options(&ledger.database.migrate_url)).await;
    // The owner made the roles; from PostgreSQL 16 on that makes it a member of them.
    if let Err(error) = refused {
        assert!(
            matches!(
                error,
                ConnectError::Role {
                    role: "baton_app",
                    ..
                }
            ),
            "{error:?}"
        );
    }
    let nowhere = Store::connect(options("postgres://127.0.0.1:1/none"))
        .await
        .unwrap_err();
    assert!(
        matches!(nowhere, ConnectError::Unavailable(_)),
        "{nowhere:?}"
    );
    let nonsense = Store::connect(options("no address")).await.unwrap_err();
    assert!(matches!(nonsense, ConnectError::Address(_)), "{nonsense:?}");
}
