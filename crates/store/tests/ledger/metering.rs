//! The recorded usage, and the limits of a key.

use std::time::Duration;

use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, Decision, EventId, Nanos, Outcome, RunId,
};
use baton_store::{
    Accept, CancelRequest, ClaimOutcome, FreshKey, IdempotencyKey, KeyLimits, NewApiKey,
    NewApproval, NewRun, ParkCommit, Refusal, TurnWish, UsageBearer, UsageFilter, UsageGroups,
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{
    DONE, LONG, Ledger, MAX_FAILURES, OVER, ROOMY, answer, new_run, run_id, spec,
};

impl Ledger {
    pub(crate) async fn limited_key(&self, hash: u8, limits: KeyLimits) -> ApiKeyId {
        let key = NewApiKey {
            limits,
            ..crate::isolation::key(hash)
        };
        let mut tx = self.store.tenant(self.tenant).await.unwrap();
        tx.create_api_key(&key).await.unwrap();
        tx.commit().await.unwrap();
        key.id
    }

    async fn submit(&self, key: ApiKeyId) -> (RunId, Accept) {
        let spec = spec();
        let run = NewRun {
            api_key_id: Some(key),
            created_by: None,
            metered: Some(TurnWish::default()),
            ..new_run(run_id(), &spec)
        };
        (run.id, self.accept_with(&run, &ROOMY).await.unwrap())
    }

    pub(crate) async fn submitted(&self, key: ApiKeyId) -> RunId {
        let (run, accept) = self.submit(key).await;
        assert!(matches!(accept, Accept::Created { .. }));
        run
    }

    /// Counts the queued and running runs of the key, by the reservations and by the runs, which must
    /// agree.
    async fn running(&self, key: ApiKeyId) -> i64 {
        let (counted, true_count): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM reservations WHERE limits_of = $1 AND running),
                    (SELECT count(*) FROM runs
                     WHERE api_key_id = $1 AND status IN ('queued', 'running'))",
        )
        .bind(key.as_uuid())
        .fetch_one(&mut self.superuser().await)
        .await
        .unwrap();
        assert_eq!(counted, true_count);
        counted
    }
}

const fn at_a_time(runs: u32) -> KeyLimits {
    KeyLimits {
        per_minute: None,
        per_day: None,
        concurrent_runs: Some(runs),
        monthly_tokens: None,
        monthly_cost_micros: None,
    }
}

fn is_full(accept: &Accept) -> bool {
    matches!(accept, Accept::Refused(Refusal::TooManyRuns { limit: 3 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_runs_submitted_at_once_exactly_as_many_are_accepted_as_the_key_may_have() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, at_a_time(3)).await;
    let answers = join_all((0..16).map(|_| ledger.submit(key))).await;
    let created = answers
        .iter()
        .filter(|(_, accept)| matches!(accept, Accept::Created { .. }));
    assert_eq!(created.count(), 3);
    assert!(answers.iter().all(|(_, accept)| matches!(
        accept,
        Accept::Created { .. } | Accept::Refused(Refusal::TooManyRuns { limit: 3 })
    )));
    assert_eq!(ledger.running(key).await, 3);
    // Another key of the tenant has a limit of its own; a key without a limit has no rows here.
    let other = ledger.limited_key(2, at_a_time(1)).await;
    ledger.submitted(other).await;
    ledger.queued().await;
    let traces: i64 = sqlx::query_scalar("SELECT count(*) FROM reservations")
        .fetch_one(&mut ledger.superuser().await)
        .await
        .unwrap();
    assert_eq!(traces, 4);
}

#[tokio::test]
async fn every_end_of_a_run_makes_room_and_so_does_waiting_for_a_person() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, at_a_time(3)).await;
    let system = ledger.store.system();
    let (first, second, third) = (
        ledger.submitted(key).await,
        ledger.submitted(key).await,
        ledger.submitted(key).await,
    );
    // A claim, a loss and another claim change nothing.
    let fence = ledger.fence(first, LONG).await;
    system.hand_over(&fence, EventId::new(1, 1)).await.unwrap();
    assert!(is_full(&ledger.submit(key).await.1));

    let fence = ledger.fence(first, LONG).await;
    system.finish_run(&fence, &answer(&DONE)).await.unwrap();
    let fourth = ledger.submitted(key).await;
    assert!(is_full(&ledger.submit(key).await.1));

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let cancelled = tx.request_cancel(second, "enough").await.unwrap();
    assert!(matches!(cancelled, CancelRequest::Ended(_)));
    let early = ledger.submit(key).await.1;
    assert!(is_full(&early), "not before it is committed");
    tx.commit().await.unwrap();
    ledger.submitted(key).await;

    for _ in 0..MAX_FAILURES {
        ledger.claimed(third, OVER).await;
    }
    assert!(is_full(&ledger.submit(key).await.1));
    let poisoned = ledger.try_claim(third).await;
    assert!(
        matches!(&poisoned, ClaimOutcome::Ended(ended) if matches!(ended.outcome, Outcome::Failed(_))),
        "{poisoned:?}"
    );
    ledger.submitted(key).await;

    let fence = ledger.fence(fourth, LONG).await;
    let approval = ApprovalId::from_uuid(Uuid::now_v7());
    let park = ParkCommit {
        approvals: &[NewApproval {
            id: approval,
            step: 2,
            reason: ApprovalReason::OutcomeUnknown,
            parameters: None,
            reached: None,
            input: None,
        }],
        expire_after: LONG,
        last_event_id: EventId::new(1, 2),
    };
    system.park_run(&fence, &park).await.unwrap();
    ledger.submitted(key).await;
    assert_eq!(ledger.running(key).await, 3);
    // A decision is no submission: the run resumes, and counts again.
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let retry = Decision::Retry {};
    tx.decide(fourth, approval, &retry, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ledger.running(key).await, 4);
    assert!(is_full(&ledger.submit(key).await.1));
}

#[tokio::test]
async fn a_rotated_key_and_its_successors_share_one_limit() {
    let ledger = Ledger::new().await;
    let first = ledger.limited_key(1, at_a_time(3)).await;
    let mut keys = vec![first];
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    for hash in [2, 3] {
        let fresh = FreshKey {
            id: ApiKeyId::from_uuid(Uuid::now_v7()),
            hash: [hash; 32],
            prefix: "baton_".into(),
            expires_at: None,
            created_by: None,
        };
        let hour = Duration::from_hours(1);
        let old = *keys.last().unwrap();
        assert!(tx.rotate_api_key(old, &fresh, hour).await.unwrap());
        keys.push(fresh.id);
    }
    tx.commit().await.unwrap();
    for key in &keys {
        ledger.submitted(*key).await;
    }
    for key in keys {
        assert!(is_full(&ledger.submit(key).await.1));
    }
}

#[tokio::test]
async fn a_repetition_is_answered_however_many_runs_there_are_and_a_refusal_leaves_nothing() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, at_a_time(1)).await;
    let spec = spec();
    let submit = async |name: &str| {
        let idempotency = IdempotencyKey {
            key: name.into(),
            fingerprint: [1; 32],
        };
        let run = NewRun {
            api_key_id: Some(key),
            created_by: None,
            metered: Some(TurnWish::default()),
            idempotency: Some(&idempotency),
            ..new_run(run_id(), &spec)
        };
        (run.id, ledger.accept_with(&run, &ROOMY).await.unwrap())
    };
    let (first, accept) = submit("a").await;
    assert!(matches!(accept, Accept::Created { .. }));
    assert_eq!(submit("a").await.1.replayed(), Some(first));
    assert!(matches!(
        submit("b").await.1,
        Accept::Refused(Refusal::TooManyRuns { limit: 1 })
    ));
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(first, "enough").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(submit("a").await.1.replayed(), Some(first));
    assert_eq!(ledger.running(key).await, 0, "a repetition takes nothing");
    assert!(matches!(submit("b").await.1, Accept::Created { .. }));
}

fn usage_filter(day: bool, key: bool, model: bool) -> UsageFilter {
    // The range covers today, no matter when the test runs.
    let date = |text: &str| text.parse().unwrap();
    UsageFilter {
        from: date("2000-01-01"),
        to: date("2999-12-31"),
        by: UsageGroups { day, key, model },
    }
}

#[tokio::test]
async fn a_turn_s_usage_is_entered_once_and_outlives_its_run() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, KeyLimits::default()).await;
    let system = ledger.store.system();
    let spec = spec();
    let (by_key, by_person) = (run_id(), ledger.queued().await);
    let run = NewRun {
        api_key_id: Some(key),
        created_by: None,
        ..new_run(by_key, &spec)
    };
    ledger.accept_with(&run, &ROOMY).await.unwrap();
    for run in [by_key, by_person] {
        let fence = ledger.fence(run, LONG).await;
        let turn = crate::steps::turn(&[]);
        for _ in 0..2 {
            system.commit_turn(&fence, &turn).await.unwrap();
        }
        let mut end = answer(&DONE);
        let last = end.turn.as_mut().unwrap();
        last.step = 2;
        last.usage.estimated = true;
        last.charge.cost = None;
        for _ in 0..2 {
            system.finish_run(&fence, &end).await.unwrap();
        }
    }
    let ended: i64 =
        sqlx::query_scalar("WITH gone AS (DELETE FROM runs RETURNING 1) SELECT count(*) FROM gone")
            .fetch_one(&mut ledger.superuser().await)
            .await
            .unwrap();
    assert_eq!(ended, 2);

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let all = tx
        .usage(&usage_filter(false, false, false), None, 10)
        .await
        .unwrap();
    let [sum] = all.data.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((sum.runs, sum.turns, sum.estimated_turns), (2, 4, 2));
    assert_eq!(
        (sum.input_tokens, sum.cached_tokens, sum.output_tokens),
        (12, 4, 16)
    );
    assert_eq!((sum.cost, sum.unpriced_turns), (Nanos(22), 2));
    assert_eq!((sum.day, sum.key, sum.model.clone()), (None, None, None));

    // The pages together equal one large page, with any grouping.
    for (day, by, model) in [(false, true, false), (true, true, true)] {
        let filter = usage_filter(day, by, model);
        let whole = tx.usage(&filter, None, 10).await.unwrap();
        assert_eq!(whole.data.len(), 2);
        assert_eq!(whole.next_cursor, None);
        let first = tx.usage(&filter, None, 1).await.unwrap();
        let rest = tx
            .usage(&filter, first.next_cursor.as_ref(), 1)
            .await
            .unwrap();
        assert_eq!(rest.next_cursor, None);
        assert_eq!([first.data, rest.data].concat(), whole.data);
        assert_eq!(whole.data[0].key, Some(UsageBearer::People));
        assert_eq!(whole.data[1].key, Some(UsageBearer::Key(key)));
        assert!(
            whole
                .data
                .iter()
                .all(|sum| sum.turns == 2 && sum.day.is_some() == day)
        );
        assert_eq!(whole.data[1].model.as_deref(), model.then_some("m"));
    }
    let none = UsageFilter {
        to: "2000-01-02".parse().unwrap(),
        ..usage_filter(false, false, false)
    };
    assert!(tx.usage(&none, None, 10).await.unwrap().data.is_empty());
}
