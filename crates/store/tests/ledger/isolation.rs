//! A tenant neither sees nor changes anything of another, even by its ids.

use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, ApprovalScope, Decision, EventId, RunId, ThreadId,
};
use baton_store::{
    Accept, CancelRequest, DecideOutcome, MessageOrder, NewApiKey, NewApproval, ParkCommit,
    RevokedGrant, RunFilter, Store,
};
use serde_json::value::RawValue;
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::fixture::{DONE, LONG, Ledger, ROOMY, answer, new_run, run_id, spec, tenant_id};

const TABLES: [&str; 22] = [
    "attempts",
    "agents",
    "agent_versions",
    "file_agents",
    "file_agent_versions",
    "runs",
    "key_months",
    "usage_entries",
    "reservations",
    "steps",
    "messages",
    "idempotency_keys",
    "api_keys",
    "threads",
    "thread_messages",
    "thread_fields",
    "approvals",
    "approval_grants",
    "sealing_keys",
    "memberships",
    "one_time_tokens",
    "audit_log",
];

pub(crate) fn key(hash: u8) -> NewApiKey {
    NewApiKey {
        id: ApiKeyId::from_uuid(Uuid::now_v7()),
        hash: [hash; 32],
        name: "k".into(),
        prefix: "baton_".into(),
        scopes: vec!["runs".into()],
        allowed_models: None,
        allowed_tools: None,
        expires_at: None,
        limits: baton_store::KeyLimits::default(),
        created_by: None,
    }
}

/// Stores a row of the ledger's tenant in every table.
async fn fill(ledger: &Ledger) -> Filled {
    let run = run_id();
    assert!(matches!(
        ledger.accept_keyed(run, "k", 1).await,
        Accept::Created { .. }
    ));
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &answer(&DONE)).await.unwrap();
    let (key, thread) = (key(1), ThreadId::from_uuid(Uuid::now_v7()));
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_api_key(&key).await.unwrap();
    let metadata = RawValue::from_string(r#"{"user":"ada"}"#.into()).unwrap();
    tx.create_thread(thread, None, Some(&metadata))
        .await
        .unwrap();
    tx.make_sealing_key([7; 32]).await.unwrap();
    crate::threads::append(&mut tx, thread, "x").await;
    let agent = crate::agents::definition("support", "Be brief.");
    tx.create_agent(crate::agents::agent_id(), &agent, "user:1", 1)
        .await
        .unwrap();
    system
        .create_file_agent(
            crate::agents::agent_id(),
            Some(ledger.tenant),
            &crate::agents::definition("filed", "Be brief."),
        )
        .await
        .unwrap();
    tx.create_invite(&crate::people::invite(
        [9; 32],
        baton_protocol::Role::Member,
    ))
    .await
    .unwrap();
    tx.record_audit(&crate::audit::entry(ledger.tenant, "key.created"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    crate::people::owner(ledger, "owner@example.org").await;
    let limits = baton_store::KeyLimits {
        concurrent_runs: Some(1),
        monthly_tokens: Some(1_000),
        ..baton_store::KeyLimits::default()
    };
    let limited = ledger.limited_key(77, limits).await;
    ledger.submitted(limited).await;
    let parked = ledger.queued().await;
    let fence = ledger.fence(parked, LONG).await;
    let approvals = [NewApproval {
        id: approval_of(parked),
        step: 2,
        reason: ApprovalReason::OutcomeUnknown,
        parameters: None,
        reached: None,
        input: None,
    }];
    let park = ParkCommit {
        approvals: &approvals,
        expire_after: LONG,
        last_event_id: LAST,
    };
    system.park_run(&fence, &park).await.unwrap();
    let granting = ledger.queued().await;
    let granted = crate::tool_approvals::asked(ledger, granting).await[0];
    let approve = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Run,
    };
    crate::tool_approvals::decide(ledger, granting, granted, &approve).await;
    Filled {
        key: key.id,
        thread,
        ended: run,
        parked,
        granted: (granting, granted),
    }
}

struct Filled {
    key: ApiKeyId,
    thread: ThreadId,
    ended: RunId,
    parked: RunId,
    granted: (RunId, ApprovalId),
}

/// Returns the id of a run's question, which in these tests is the run's own.
fn approval_of(run: RunId) -> ApprovalId {
    ApprovalId::from_uuid(run.as_uuid())
}

const LAST: EventId = EventId::new(1, 2);

async fn stranger(store: &Store) -> baton_protocol::TenantId {
    let tenant = store.system().ensure_tenant(tenant_id(), "other").await;
    tenant.unwrap().id
}

#[tokio::test]
async fn nothing_of_another_tenant_is_seen_or_changed_by_its_id() {
    let ledger = Ledger::new().await;
    let Filled {
        key: key_id,
        thread,
        ended,
        parked,
        granted,
    } = fill(&ledger).await;
    let (queued, held) = (ledger.queued().await, ledger.queued().await);
    ledger.claimed(held, LONG).await;

    let other = stranger(&ledger.store).await;
    let mut tx = ledger.store.tenant(other).await.unwrap();
    for run in [ended, queued, held, parked] {
        assert!(tx.run(run).await.unwrap().is_none());
        assert!(tx.run_steps(run).await.unwrap().is_empty());
        assert!(tx.run_messages(run).await.unwrap().is_empty());
        assert!(tx.timeline(run).await.unwrap().is_none());
        assert!(tx.run_approvals(run).await.unwrap().is_empty());
        let decided = tx.decide(run, approval_of(run), &Decision::Retry {}, None);
        assert_eq!(decided.await.unwrap(), DecideOutcome::NotFound);
        let cancel = tx.request_cancel(run, "mine now").await.unwrap();
        assert_eq!(cancel, CancelRequest::NotFound);
    }
    let revoked = tx.revoke_grant(granted.0, granted.1).await.unwrap();
    assert_eq!(revoked, RevokedGrant::NotFound);
    let page = tx.list_runs(&RunFilter::default(), None, 10).await.unwrap();
    assert!(page.data.is_empty());
    assert!(tx.list_api_keys().await.unwrap().is_empty());
    assert!(!tx.revoke_api_key(key_id).await.unwrap());
    assert!(tx.thread(thread).await.unwrap().is_none());
    let page = tx.thread_messages(thread, MessageOrder::Ascending, None, 10);
    assert!(page.await.unwrap().data.is_empty());
    assert!(tx.invites().await.unwrap().is_empty());
    // The same idempotency key of another tenant is a different key, and another tenant's queue is
    // not counted.
    let spec = spec();
    let idempotency = baton_store::IdempotencyKey {
        key: "k".into(),
        fingerprint: [2; 32],
    };
    let run = baton_store::NewRun {
        idempotency: Some(&idempotency),
        ..new_run(run_id(), &spec)
    };
    let limits = baton_store::QueueLimits { tenant: 1, ..ROOMY };
    assert!(matches!(
        tx.accept_run(&run, &limits).await.unwrap(),
        Accept::Created { .. }
    ));
    tx.commit().await.unwrap();

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(!tx.run(queued).await.unwrap().unwrap().cancel_requested);
    assert_eq!(tx.list_api_keys().await.unwrap()[0].revoked_at, None);
}

/// Sends statements that this crate never sends, as its role, to test the policies themselves.
#[tokio::test]
async fn row_level_security_holds_against_statements_that_forget_the_tenant() {
    let ledger = Ledger::new().await;
    fill(&ledger).await;
    let run = ledger.queued().await;
    let other = stranger(&ledger.store).await;

    let mut app = PgConnection::connect(&ledger.database.database_url)
        .await
        .unwrap();
    app.execute("SET ROLE baton_app").await.unwrap();
    for tenant in [None, Some(other), Some(ledger.tenant)] {
        let mut tx = app.begin().await.unwrap();
        if let Some(tenant) = tenant {
            sqlx::query("SELECT set_config('baton.tenant', $1, true)")
                .bind(tenant.to_string())
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        let own = tenant == Some(ledger.tenant);
        for table in TABLES {
            let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "SELECT count(*) FROM {table} WHERE tenant_id = '{}'",
                ledger.tenant
            )))
            .fetch_one(&mut *tx)
            .await
            .unwrap();
            assert_eq!(rows > 0, own, "{table} as {tenant:?}");
        }
        let changed = sqlx::query("UPDATE runs SET cancel_reason = 'x' WHERE id = $1")
            .bind(run.as_uuid())
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), u64::from(own));
        if !own {
            let foreign = sqlx::query("INSERT INTO threads (tenant_id, id) VALUES ($1, $2)")
                .bind(ledger.tenant.as_uuid())
                .bind(Uuid::now_v7())
                .execute(&mut *tx)
                .await
                .unwrap_err();
            assert!(
                foreign.to_string().contains("row-level security"),
                "{foreign}"
            );
        }
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_tenants_role_writes_no_ledger_and_neither_role_owns_or_escapes_anything() {
    let ledger = Ledger::new().await;
    let mut app = PgConnection::connect(&ledger.database.database_url)
        .await
        .unwrap();
    let role = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";
    let above: bool = sqlx::query_scalar(role).fetch_one(&mut app).await.unwrap();
    assert!(!above);
    let owned: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
         AND pg_get_userbyid(relowner) IN ('baton_app', 'baton_system', current_user)",
    )
    .fetch_one(&mut app)
    .await
    .unwrap();
    assert_eq!(owned, 0);
    for set_role in ["SET ROLE baton_app", "RESET ROLE"] {
        app.execute(set_role).await.unwrap();
        for forbidden in [
            "INSERT INTO steps (tenant_id) VALUES (NULL)",
            "INSERT INTO messages (tenant_id) VALUES (NULL)",
            "DELETE FROM runs",
            "DELETE FROM threads",
            "UPDATE thread_messages SET position = 1",
            "UPDATE runs SET claim_token = NULL",
            "UPDATE api_keys SET scopes = '{}'",
            "SELECT password_hash FROM users",
            "SELECT * FROM sessions",
            "SELECT * FROM refresh_tokens",
            "SELECT * FROM sign_in_throttle",
            "INSERT INTO memberships (tenant_id) VALUES (NULL)",
            "UPDATE one_time_tokens SET used_at = NULL",
            "UPDATE idempotency_keys SET key = ''",
            "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
            "DROP TABLE runs",
        ] {
            let error = app.execute(forbidden).await.unwrap_err();
            let code = error
                .as_database_error()
                .unwrap()
                .code()
                .unwrap()
                .into_owned();
            assert_eq!(code, "42501", "{set_role}: {forbidden}: {error}");
        }
    }
}
