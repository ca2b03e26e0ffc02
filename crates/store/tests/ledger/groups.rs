//! Statements that wait for each other are executed together, and each row gets its own answer.

mod accepts;
mod claims;
mod steps;

use std::pin::{Pin, pin};
use std::time::Duration;

use baton_protocol::{EventId, Fence, Outcome, RunError, RunId, TenantId, Usage};
use baton_store::{
    Accept, Claim, ClaimOutcome, CutTurn, FenceError, FinishCommit, Finished, TurnTimes,
};
use futures_util::future::join_all;
use futures_util::poll;
use sqlx::PgConnection;

use crate::fixture::{
    ANSWER, CHARGE, DONE, LONG, Ledger, OVER, ROOMY, answer, finish, new_run, run_id, spec,
    tenant_id, usage,
};

impl Ledger {
    /// Claims fresh runs of this many tenants in turn.
    async fn fences(&self, count: usize, tenants: usize) -> Vec<Fence> {
        let mut owners = vec![self.tenant];
        for _ in 1..tenants {
            let id = tenant_id();
            let name = format!("t{}", id.as_uuid().simple());
            let tenant = self.store.system().ensure_tenant(id, &name).await.unwrap();
            owners.push(tenant.id);
        }
        let mut fences = Vec::new();
        for owner in owners.iter().cycle().take(count) {
            fences.push(self.fence_of(*owner).await);
        }
        fences
    }

    async fn fence_of(&self, tenant: TenantId) -> Fence {
        let (run, spec) = (run_id(), spec());
        let run = new_run(run, &spec);
        let accepted = self.store.accept_run(tenant, &run, &ROOMY);
        assert!(matches!(accepted.await.unwrap(), Accept::Created { .. }));
        let claim = Claim {
            tenant,
            ..self.wish(run.id, LONG)
        };
        match self.store.system().claim_run(&claim).await.unwrap() {
            ClaimOutcome::Claimed(claimed) => claimed.fence,
            other => panic!("not claimed: {other:?}"),
        }
    }

    async fn finish(
        &self,
        fence: &Fence,
        commit: &FinishCommit<'_>,
    ) -> Result<Finished, FenceError> {
        self.store.system().finish_run(fence, commit).await
    }

    /// Returns the number of commits that have last written these runs.
    async fn commits_of(&self, fences: &[Fence]) -> i64 {
        let commits = "SELECT count(DISTINCT xmin::text) FROM runs WHERE id = ANY($1)";
        self.count(commits, fences).await
    }

    /// Returns the number of these runs that are completed with their answer and all that belongs
    /// to it.
    async fn completed_of(&self, fences: &[Fence]) -> i64 {
        let completed = "
            SELECT count(*) FROM runs
            JOIN steps ON steps.tenant_id = runs.tenant_id AND steps.run_id = runs.id
            JOIN messages ON messages.tenant_id = runs.tenant_id AND messages.run_id = runs.id
            JOIN usage_entries ON usage_entries.tenant_id = runs.tenant_id
                              AND usage_entries.run_id = runs.id
            WHERE runs.id = ANY($1) AND runs.status = 'completed' AND runs.finished_at IS NOT NULL
              AND runs.finish_reason = 'stop' AND steps.finish_reason = 'stop'
              AND steps.step = 1 AND messages.step = 1 AND usage_entries.step = 1
              AND runs.total_tokens = 7 AND steps.total_tokens = 7 AND cost_nanos = 11
              AND usage_entries.model = 'm' AND message::text = $2";
        let mut superuser = self.superuser().await;
        let count = sqlx::query_scalar(completed).bind(ids(fences)).bind(ANSWER);
        count.fetch_one(&mut superuser).await.unwrap()
    }

    async fn count(&self, statement: &'static str, fences: &[Fence]) -> i64 {
        let mut superuser = self.superuser().await;
        let count = sqlx::query_scalar(statement).bind(ids(fences));
        count.fetch_one(&mut superuser).await.unwrap()
    }

    /// Returns all that the commits of a run have written, without ids and times of day.
    async fn written(&self, fence: &Fence) -> String {
        let written = "
            SELECT jsonb_pretty(jsonb_build_array(
                (SELECT to_jsonb(r) || jsonb_build_object('ended', r.finished_at IS NOT NULL)
                 FROM runs r WHERE id = $1),
                (SELECT jsonb_agg(to_jsonb(s) || jsonb_build_object(
                     'took', s.finished_at - s.started_at >= '1.4 s' AND s.started_at IS NOT NULL))
                 FROM steps s WHERE run_id = $1),
                (SELECT jsonb_agg(to_jsonb(m)) FROM messages m WHERE run_id = $1),
                (SELECT jsonb_agg(to_jsonb(u)) FROM usage_entries u WHERE run_id = $1)))";
        let mut superuser = self.superuser().await;
        let written: String = sqlx::query_scalar(written)
            .bind(fence.run.as_uuid())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let differs = |line: &&str| {
            ["id\": ", "at\": ", "_token\": "]
                .iter()
                .any(|name| line.contains(name) && !line.contains("null"))
                && !line.contains("event_id")
        };
        let lines = written.lines().filter(|line| !differs(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Makes the statement that records the run's answer wait, until the connection is dropped.
    async fn halted(&self, fence: &Fence) -> PgConnection {
        let mut superuser = self.superuser().await;
        sqlx::query("BEGIN").execute(&mut superuser).await.unwrap();
        let occupy = "INSERT INTO messages (tenant_id, run_id, step, message)
                      VALUES ($1, $2, 1, '{}')";
        let occupy = sqlx::query(occupy)
            .bind(fence.tenant.as_uuid())
            .bind(fence.run.as_uuid());
        occupy.execute(&mut superuser).await.unwrap();
        superuser
    }

    /// Locks a run's row, until the connection is dropped.
    async fn locked(&self, run: RunId) -> PgConnection {
        let mut superuser = self.superuser().await;
        sqlx::query("BEGIN").execute(&mut superuser).await.unwrap();
        let lock = sqlx::query("SELECT FROM runs WHERE id = $1 FOR UPDATE").bind(run.as_uuid());
        lock.execute(&mut superuser).await.unwrap();
        superuser
    }
}

fn finish_all<'f>(
    ledger: &'f Ledger,
    fences: &'f [Fence],
    commit: &'f FinishCommit<'f>,
) -> impl Future<Output = Vec<Result<Finished, FenceError>>> + 'f {
    join_all(fences.iter().map(|fence| ledger.finish(fence, commit)))
}

fn ids(fences: &[Fence]) -> Vec<uuid::Uuid> {
    fences.iter().map(|fence| fence.run.as_uuid()).collect()
}

/// Brings a future to its first wait.
async fn begin<F: Future>(future: Pin<&mut F>) {
    assert!(poll!(future).is_pending());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_answers_each_row_and_passes_over_one_that_is_fenced_or_locked() {
    let ledger = Ledger::new().await;
    let fences = ledger.fences(8, 3).await;
    let stale = ledger.queued().await;
    let stale = (
        ledger.fence(stale, OVER).await,
        ledger.fence(stale, LONG).await,
    );
    let (first, locked, together) = (fences[0], fences[1], &fences[2..]);
    let commit = answer(&DONE);

    // The first is under way until its row is free; meanwhile the others arrive.
    let held = ledger.locked(first.run).await;
    let neighbour = ledger.locked(locked.run).await;
    let mut first = pin!(ledger.finish(&first, &commit));
    begin(first.as_mut()).await;
    ledger.database.until_blocked("runs.finish").await;
    let mut fenced = pin!(ledger.finish(&stale.0, &commit));
    let mut locked_one = pin!(ledger.finish(&locked, &commit));
    let mut others = pin!(finish_all(&ledger, together, &commit));
    begin(fenced.as_mut()).await;
    begin(locked_one.as_mut()).await;
    begin(others.as_mut()).await;
    drop(held);

    first.await.unwrap();
    for answer in others.await {
        answer.unwrap();
    }
    assert!(matches!(fenced.await, Err(FenceError::Lost)));
    begin(locked_one.as_mut()).await;
    assert_eq!(ledger.completed_of(&[locked, stale.1]).await, 0);
    assert_eq!(ledger.completed_of(together).await, 6);
    assert_eq!(ledger.commits_of(together).await, 1);

    drop(neighbour);
    locked_one.await.unwrap();
    assert_eq!(ledger.completed_of(&fences).await, 8);
    // The holder of the run with the stale fence can still end it.
    ledger.finish(&stale.1, &commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_database_refuses_fails_its_own_row_only() {
    let ledger = Ledger::new().await;
    let fences = ledger.fences(6, 2).await;
    let (bad, good) = (fences[1], [&fences[..1], &fences[2..]].concat());
    let commit = answer(&DONE);
    for (message, good) in [("\"\0\"", &good[..2]), ("{not json", &good[2..])] {
        let mut refused = answer(&DONE);
        refused.turn.as_mut().unwrap().message = message;
        let held = ledger.locked(good[0].run).await;
        let mut first = pin!(ledger.finish(&good[0], &commit));
        begin(first.as_mut()).await;
        ledger.database.until_blocked("runs.finish").await;
        let mut bad_one = pin!(ledger.finish(&bad, &refused));
        begin(bad_one.as_mut()).await;
        let mut others = pin!(finish_all(&ledger, &good[1..], &commit));
        begin(others.as_mut()).await;
        drop(held);
        for answer in others.await {
            answer.unwrap();
        }
        first.await.unwrap();
        match bad_one.await {
            Err(FenceError::Store(error)) => assert!(error.is_bad_value(), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ledger.completed_of(&good).await, 5);
    assert_eq!(ledger.completed_of(&[bad]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_gives_up_in_the_middle_of_a_group_takes_nobody_with_it() {
    let ledger = Ledger::new().await;
    let fences = ledger.fences(4, 1).await;
    let commit = answer(&DONE);
    let (held, halt) = (
        ledger.locked(fences[0].run).await,
        ledger.halted(&fences[1]).await,
    );
    let mut first = pin!(ledger.finish(&fences[0], &commit));
    begin(first.as_mut()).await;
    ledger.database.until_blocked("runs.finish").await;
    let mut gone = Box::pin(ledger.finish(&fences[1], &commit));
    begin(gone.as_mut()).await;
    let mut others = pin!(finish_all(&ledger, &fences[2..], &commit));
    begin(others.as_mut()).await;
    drop(held);
    first.await.unwrap();
    ledger.database.until_blocked("runs.finish_group").await;

    drop(gone);
    drop(halt);
    for answer in others.await {
        answer.unwrap();
    }
    // Its row was written all the same, and its repetition finds that.
    assert_eq!(ledger.completed_of(&fences).await, 4);
    ledger.finish(&fences[1], &commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_in_the_middle_of_a_group_leaves_no_row_in_doubt() {
    let ledger = Ledger::new().await;
    let fences = ledger.fences(4, 1).await;
    let commit = answer(&DONE);
    let (held, halt) = (
        ledger.locked(fences[0].run).await,
        ledger.halted(&fences[1]).await,
    );
    let mut first = pin!(ledger.finish(&fences[0], &commit));
    begin(first.as_mut()).await;
    ledger.database.until_blocked("runs.finish").await;
    let mut halted = pin!(ledger.finish(&fences[1], &commit));
    begin(halted.as_mut()).await;
    let mut others = pin!(finish_all(&ledger, &fences[2..], &commit));
    begin(others.as_mut()).await;
    drop(held);
    first.await.unwrap();
    ledger.database.until_blocked("runs.finish_group").await;

    let kill = "
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND strpos(query, '-- runs.finish_group') > 0
          AND pid <> pg_backend_pid() AND state = 'active'";
    let mut superuser = ledger.superuser().await;
    let killed: i64 = sqlx::query_scalar(kill)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(killed, 1);
    for answer in others.await {
        answer.unwrap();
    }
    assert_eq!(ledger.completed_of(&fences).await, 3);
    drop(halt);
    halted.await.unwrap();
    assert_eq!(ledger.completed_of(&fences).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_writes_what_the_statement_for_one_run_writes() {
    let ledger = Ledger::new().await;
    let times = TurnTimes {
        took: Some(Duration::from_millis(1_500)),
        first_token: Some(Duration::from_millis(70)),
    };
    let (failed, cancelled) = (
        Outcome::Failed(RunError {
            code: "broken".into(),
            message: "it broke".into(),
            upstream: Some(Box::default()),
        }),
        Outcome::Cancelled("enough".into()),
    );
    let mut whole = answer(&DONE);
    let turn = whole.turn.as_mut().unwrap();
    (turn.answer_fields, turn.charged_model) = (Some(r#"{"a":1}"#), Some("other"));
    turn.times = times;
    let cut = FinishCommit {
        unless_inputs_wait: false,
        cut: Some(CutTurn {
            step: 1,
            message: ANSWER,
            answer_fields: Some(r#"{"b":2}"#),
            charged_model: None,
            usage: Usage {
                estimated: true,
                ..usage(8, 9)
            },
            charge: CHARGE,
            times,
            last_event_id: EventId::new(1, 7),
        }),
        ..finish(&cancelled)
    };
    let commits = [whole, answer(&DONE), finish(&failed), cut];
    let fences = ledger.fences(2 * commits.len() + 1, 1).await;
    let (alone, together) = fences[1..].split_at(commits.len());
    for (fence, commit) in alone.iter().zip(&commits) {
        let one = ledger.store.one_commit().await.unwrap();
        one.system().finish_run(fence, commit).await.unwrap();
        one.commit().await.unwrap();
    }
    let held = ledger.locked(fences[0].run).await;
    let mut first = pin!(ledger.finish(&fences[0], &commits[1]));
    begin(first.as_mut()).await;
    ledger.database.until_blocked("runs.finish").await;
    let pairs = together.iter().zip(&commits);
    let mut group = pin!(join_all(
        pairs.map(|(fence, commit)| ledger.finish(fence, commit))
    ));
    begin(group.as_mut()).await;
    drop(held);
    first.await.unwrap();
    assert!(group.await.iter().all(Result::is_ok));
    assert_eq!(ledger.commits_of(together).await, 1);
    for (alone, together) in alone.iter().zip(together) {
        assert_eq!(ledger.written(alone).await, ledger.written(together).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_endings_at_once_are_a_few_commits() {
    let ledger = Ledger::new().await;
    let fences = ledger.fences(200, 3).await;
    let commit = answer(&DONE);
    let ended = finish_all(&ledger, &fences, &commit).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!(ledger.completed_of(&fences).await, 200);
    let commits = ledger.commits_of(&fences).await;
    assert!(commits < 50, "{commits}");
}
