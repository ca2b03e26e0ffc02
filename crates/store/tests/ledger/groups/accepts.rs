//! Accepted runs that wait for each other.

use std::pin::{Pin, pin};

use baton_protocol::{Lane, RunId, RunSpec, TenantId};
use baton_store::{Accept, AcceptError, IdempotencyKey, NewRun, QueueLimits, Refusal};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use crate::fixture::{Ledger, ROOMY, new_run, run_id, spec, tenant_id};

impl Ledger {
    /// Makes all accepts of the tenant wait, until the connection is dropped.
    async fn crowded(&self) -> PgConnection {
        let mut superuser = self.superuser().await;
        let lock = sqlx::query("SELECT pg_advisory_lock(hashtextextended($1::uuid::text, 100))");
        let lock = lock.bind(self.tenant.as_uuid());
        lock.execute(&mut superuser).await.unwrap();
        superuser
    }

    /// Inserts a run in a transaction that stays open until the connection is dropped.
    async fn inserting(&self, run: RunId) -> PgConnection {
        let mut superuser = self.superuser().await;
        sqlx::query("BEGIN").execute(&mut superuser).await.unwrap();
        let insert =
            "INSERT INTO runs (tenant_id, id, lane, spec, model, agent_name, agent_version,
                                        cancel_on_disconnect)
                      VALUES ($1, $2, 'interactive', '{}', 'm', 'a', 1, false)";
        let insert = sqlx::query(insert)
            .bind(self.tenant.as_uuid())
            .bind(run.as_uuid());
        insert.execute(&mut superuser).await.unwrap();
        superuser
    }

    /// Accepts plain runs with these ids at once.
    async fn accept_all(&self, tenant: TenantId, ids: &[RunId]) -> Vec<Accept> {
        let spec = spec();
        let runs: Vec<_> = ids.iter().map(|id| new_run(*id, &spec)).collect();
        let accepts = runs
            .iter()
            .map(|run| self.store.accept_run(tenant, run, &ROOMY));
        join_all(accepts)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }

    async fn accept_each(
        &self,
        runs: &[NewRun<'_>],
        limits: &QueueLimits,
    ) -> Vec<Result<Accept, AcceptError>> {
        join_all(runs.iter().map(|run| self.accept_with(run, limits))).await
    }

    /// Waits until some of the accepts are in a group that waits for a lock. The first of them may
    /// go by itself.
    async fn until_grouped<T: std::fmt::Debug>(&self, accepts: Pin<&mut impl Future<Output = T>>) {
        tokio::select! {
            answers = accepts => panic!("they did not wait: {answers:?}"),
            () = self.database.until_blocked("runs.accept_group") => {}
        }
    }

    /// Returns the number of the tenant's waiting runs among these, and of the commits that wrote
    /// them.
    async fn waiting_of(&self, tenant: TenantId, ids: &[RunId]) -> (i64, i64) {
        let waiting = "SELECT count(*), count(DISTINCT xmin::text) FROM runs
                       WHERE tenant_id = $1 AND id = ANY($2) AND status = 'queued'";
        let ids: Vec<_> = ids.iter().map(RunId::as_uuid).collect();
        let waiting = sqlx::query_as(waiting).bind(tenant.as_uuid()).bind(ids);
        waiting
            .fetch_one(&mut self.superuser().await)
            .await
            .unwrap()
    }

    /// Returns a run's row without its id and its times.
    async fn row(&self, run: RunId) -> String {
        let row = "SELECT jsonb_pretty(to_jsonb(r) - 'id' - 'created_at' - 'queued_at') FROM runs r
                   WHERE id = $1";
        let row = sqlx::query_scalar(row).bind(run.as_uuid());
        row.fetch_one(&mut self.superuser().await).await.unwrap()
    }
}

fn ids(count: usize) -> Vec<RunId> {
    (0..count).map(|_| run_id()).collect()
}

fn plain_runs(count: usize, spec: &RunSpec) -> Vec<NewRun<'_>> {
    (0..count).map(|_| new_run(run_id(), spec)).collect()
}

/// A specification with a request that says that its run is not to be kept.
fn unstored_spec() -> RunSpec {
    let settings = RawValue::from_string(r#"{"store":false}"#.into()).unwrap();
    RunSpec {
        response: Some(settings),
        ..spec()
    }
}

const fn is_created(accept: &Accept) -> bool {
    matches!(accept, Accept::Created { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_runs_accepted_at_once_are_a_few_commits() {
    let ledger = Ledger::new().await;
    let runs = ids(200);
    let accepted = ledger.accept_all(ledger.tenant, &runs).await;
    assert!(accepted.iter().all(is_created), "{accepted:?}");
    let (waiting, commits) = ledger.waiting_of(ledger.tenant, &runs).await;
    assert_eq!(waiting, 200);
    assert!(commits < 50, "{commits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_runs_of_several_tenants_stay_apart() {
    let ledger = Ledger::new().await;
    let other = tenant_id();
    let system = ledger.store.system();
    let other = system
        .ensure_tenant(other, &other.to_string())
        .await
        .unwrap()
        .id;
    let (ours, theirs) = (ids(40), ids(40));
    let (one, two) = tokio::join!(
        ledger.accept_all(ledger.tenant, &ours),
        ledger.accept_all(other, &theirs)
    );
    assert!(one.iter().chain(&two).all(is_created));
    assert_eq!(ledger.waiting_of(ledger.tenant, &ours).await.0, 40);
    assert_eq!(ledger.waiting_of(other, &theirs).await.0, 40);
    assert_eq!(ledger.waiting_of(other, &ours).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_spoils_no_other_of_its_group() {
    let ledger = Ledger::new().await;
    let spec = spec();
    let mut runs = plain_runs(8, &spec);
    runs[3].id = ledger.queued().await;
    runs[4].created_by = Some("a\0b");
    let crowd = ledger.crowded().await;
    let mut group = pin!(ledger.accept_each(&runs, &ROOMY));
    ledger.until_grouped(group.as_mut()).await;
    drop(crowd);
    for (place, answer) in group.await.into_iter().enumerate() {
        match (place, answer) {
            (4, Err(AcceptError::Store(error))) => assert!(error.is_bad_value(), "{error:?}"),
            (3, Ok(Accept::Refused(Refusal::IdTaken)))
            | (0..=2 | 5.., Ok(Accept::Created { .. })) => {}
            (place, answer) => panic!("{place}: {answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_waits_to_see_how_many_places_another_leaves() {
    let ledger = Ledger::new().await;
    let spec = spec();
    for _ in 0..3 {
        ledger.queued().await;
    }
    let limits = QueueLimits { tenant: 8, ..ROOMY };
    let mut other = ledger.store.tenant(ledger.tenant).await.unwrap();
    let accepted = other.accept_run(&new_run(run_id(), &spec), &limits).await;
    assert!(is_created(&accepted.unwrap()));
    let runs = plain_runs(60, &spec);
    let mut group = pin!(ledger.accept_each(&runs, &limits));
    ledger.until_grouped(group.as_mut()).await;
    other.commit().await.unwrap();

    let accepted: Vec<_> = group.await.into_iter().map(Result::unwrap).collect();
    let created = accepted.iter().filter(|accept| is_created(accept)).count();
    assert_eq!(created, 4);
    let full = Refusal::TenantQueueFull { limit: 8 };
    let refused = |accept: &&Accept| matches!(accept, Accept::Refused(refusal) if *refusal == full);
    assert_eq!(accepted.iter().filter(refused).count(), 56);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_in_the_middle_of_a_group_loses_no_run() {
    let ledger = Ledger::new().await;
    let spec = spec();
    let runs = plain_runs(8, &spec);
    let halt = ledger.inserting(runs[4].id).await;
    let mut group = pin!(ledger.accept_each(&runs, &ROOMY));
    ledger.until_grouped(group.as_mut()).await;

    let kill = "
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND strpos(query, '-- runs.accept_group') > 0
          AND pid <> pg_backend_pid() AND state = 'active'";
    let killed: i64 = sqlx::query_scalar(kill)
        .fetch_one(&mut ledger.superuser().await)
        .await
        .unwrap();
    assert!(
        killed > 0,
        "after a moment a second group follows the first"
    );
    drop(halt);
    for answer in group.await {
        assert!(is_created(&answer.unwrap()));
    }
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    assert_eq!(ledger.waiting_of(ledger.tenant, &ids).await.0, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_accepts_writes_what_the_statement_for_one_run_writes() {
    let ledger = Ledger::new().await;
    let spec = spec();
    let metadata = RawValue::from_string(r#"{"ticket": "7"}"#.into()).unwrap();
    let rich = || NewRun {
        lane: Lane::Background,
        metadata: Some(&metadata),
        cancel_on_disconnect: true,
        created_by: Some("user:anna"),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..new_run(run_id(), &spec)
    };
    let unstored = unstored_spec();
    let passing = || new_run(run_id(), &unstored);
    let alone = [new_run(run_id(), &spec), rich(), passing()];
    for run in &alone {
        assert!(is_created(&ledger.accept_with(run, &ROOMY).await.unwrap()));
    }
    let mut together = plain_runs(6, &spec);
    together.extend([rich(), passing(), rich(), passing()]);
    let crowd = ledger.crowded().await;
    let mut group = pin!(ledger.accept_each(&together, &ROOMY));
    ledger.until_grouped(group.as_mut()).await;
    drop(crowd);
    for answer in group.await {
        assert!(is_created(&answer.unwrap()));
    }
    let mut rows = Vec::new();
    for run in &alone {
        rows.push(ledger.row(run.id).await);
    }
    let kinds = [0, 0, 0, 0, 0, 0, 1, 2, 1, 2];
    for (run, kind) in together.iter().zip(kinds) {
        assert_eq!(ledger.row(run.id).await, rows[kind]);
    }
    let is_stored = |row: &String| row.contains(r#""stored": true"#);
    assert_eq!(
        rows.iter().map(is_stored).collect::<Vec<_>>(),
        [true, true, false]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_not_to_be_kept_share_a_commit_and_are_never_written_as_kept() {
    let ledger = Ledger::new().await;
    // Refuses the whole commit if any statement of it updates a run.
    let guard = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'a second write of an accepted run'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON runs EXECUTE FUNCTION refuse()";
    let mut superuser = ledger.superuser().await;
    sqlx::raw_sql(guard).execute(&mut superuser).await.unwrap();
    let spec = unstored_spec();
    let runs = plain_runs(40, &spec);
    let crowd = ledger.crowded().await;
    let mut group = pin!(ledger.accept_each(&runs, &ROOMY));
    ledger.until_grouped(group.as_mut()).await;
    drop(crowd);
    for answer in group.await {
        assert!(is_created(&answer.unwrap()));
    }
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    let (waiting, commits) = ledger.waiting_of(ledger.tenant, &ids).await;
    assert_eq!(waiting, 40);
    assert!(commits < 10, "{commits}");
    let key = IdempotencyKey {
        key: "k".into(),
        fingerprint: [1; 32],
    };
    let keyed = NewRun {
        idempotency: Some(&key),
        ..new_run(run_id(), &spec)
    };
    assert!(is_created(
        &ledger.accept_with(&keyed, &ROOMY).await.unwrap()
    ));
    let kept = "SELECT count(*) FROM runs WHERE stored";
    let kept: i64 = sqlx::query_scalar(kept)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(kept, 0);
}
