use baton_protocol::{
    AgentRef, ClaimToken, EventId, Lane, Outcome, RawFields, RunLimits, RunSpec, WorkerId,
};
use baton_service::SystemClock;
use baton_store::{
    Accept, AuditFilter, Claim, ClaimOutcome, FinishCommit, NewRun, OnBusy, QueueLimits,
};
use baton_test_ledger::TestDatabase;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::*;

const ROOMY: QueueLimits = QueueLimits {
    tenant: 100,
    system: 100,
};

struct Ledger {
    store: Store,
    tenant: TenantId,
    database: TestDatabase,
}

impl Ledger {
    async fn new() -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let tenant = TenantId::new(SystemClock.now());
        let tenant = store.system().ensure_tenant(tenant, "acme").await.unwrap();
        Self {
            tenant: tenant.id,
            store,
            database,
        }
    }

    /// Accepts a response that is kept or not.
    async fn accept(&self, stored: bool) -> RunId {
        let spec = RunSpec {
            v: RunSpec::VERSION,
            agent: AgentRef {
                name: "default".into(),
                version: 0,
            },
            model: "m".into(),
            fallbacks: vec![],
            instructions: None,
            messages: RawValue::from_string("[]".into()).unwrap(),
            tools: None,
            server_tools: vec![],
            params: RawFields::default(),
            calls: vec![],
            shown_for_good: false,
            response: Some(to_raw_value(&json!({ "store": stored })).unwrap()),
            compaction: None,
            request_id: None,
            limits: RunLimits::of_turns(1),
        };
        let run = NewRun {
            id: RunId::new(SystemClock.now()),
            lane: Lane::Interactive,
            spec: &spec,
            thread_id: None,
            on_busy: OnBusy::Reject,
            titles: None,
            api_key_id: None,
            created_by: None,
            metered: None,
            metadata: None,
            cancel_on_disconnect: false,
            traceparent: None,
            idempotency: None,
        };
        let accepted = self.store.accept_run(self.tenant, &run, &ROOMY).await;
        assert!(
            matches!(accepted, Ok(Accept::Created { .. })),
            "{accepted:?}"
        );
        run.id
    }

    async fn end(&self, run: RunId) {
        let claim = Claim {
            tenant: self.tenant,
            run,
            worker: WorkerId::new(SystemClock.now()),
            token: ClaimToken::from_random(rand::random()),
            lease: Duration::from_mins(1),
            job_seq: 1,
            max_failures: 3,
        };
        let system = self.store.system();
        let ClaimOutcome::Claimed(claimed) = system.claim_run(&claim).await.unwrap() else {
            panic!("not claimed")
        };
        let end = FinishCommit {
            unless_inputs_wait: false,
            outcome: &Outcome::Cancelled("enough".into()),
            last_event_id: EventId::new(1, 1),
            usage_total: baton_protocol::Usage::default(),
            turn: None,
            cut: None,
        };
        system.finish_run(&claimed.fence, &end).await.unwrap();
    }

    async fn ended(&self, stored: bool) -> RunId {
        let run = self.accept(stored).await;
        self.end(run).await;
        run
    }

    /// Returns the numbers of runs that are to be removed: not kept, and expired.
    async fn doomed(&self) -> (usize, usize) {
        let system = self.store.system();
        let unstored = system.unstored_runs(Duration::ZERO, 10).await.unwrap();
        (unstored.len(), system.expired_runs(10).await.unwrap().len())
    }

    async fn is_found(&self, run: RunId) -> bool {
        let mut tx = self.store.tenant(self.tenant).await.unwrap();
        tx.run(run).await.unwrap().is_some()
    }

    async fn look(&self, readable: Duration, most: u32) {
        purge(&self.store, &*SystemClock::shared(), readable, most)
            .await
            .unwrap();
    }

    async fn expired(&self) -> Vec<String> {
        let filter = AuditFilter {
            tenant: Some(self.tenant),
            action: Some("response.expired".to_owned()),
            limit: 100,
            ..AuditFilter::default()
        };
        let entries = self.store.system().audit_log(&filter).await.unwrap();
        let targets = entries.into_iter().filter_map(|entry| entry.target);
        let mut targets: Vec<_> = targets.collect();
        targets.sort();
        targets
    }
}

#[tokio::test]
async fn runs_that_are_not_kept_go_a_while_after_their_end_and_others_stay() {
    let ledger = Ledger::new().await;
    let kept = ledger.ended(true).await;
    let gone = [ledger.ended(false).await, ledger.ended(false).await];
    let works = ledger.accept(false).await;
    ledger.look(READABLE, RUNS).await;
    assert_eq!(
        ledger.doomed().await,
        (2, 0),
        "their answers are still read"
    );
    ledger.look(Duration::ZERO, 1).await;
    assert_eq!(
        ledger.doomed().await,
        (1, 0),
        "one look takes no more than it may"
    );
    ledger.look(Duration::ZERO, RUNS).await;
    assert_eq!(ledger.doomed().await, (0, 0));
    for run in gone {
        assert!(!ledger.is_found(run).await);
    }
    assert!(ledger.is_found(kept).await && ledger.is_found(works).await);
    assert_eq!(ledger.expired().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_response_that_was_kept_for_its_time_is_not_found_and_is_removed_and_audited_once() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let before = ledger.ended(true).await;
    let time = Some(Duration::from_hours(1));
    assert!(system.keep_responses(ledger.tenant, time).await.unwrap());
    let tenant = system.tenant(ledger.tenant).await.unwrap().unwrap();
    assert_eq!(tenant.responses_kept, time);
    let [first, second] = [ledger.ended(true).await, ledger.ended(true).await];
    let works = ledger.accept(true).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let record = tx.run(first).await.unwrap().unwrap();
    let kept = record.expires_at.unwrap() - record.created_at;
    assert_eq!((kept.num_seconds() + 30) / 60, 60);
    assert_eq!(tx.run(before).await.unwrap().unwrap().expires_at, None);
    drop(tx);
    ledger.look(READABLE, RUNS).await;
    assert!(ledger.is_found(first).await, "its time has not come");

    for run in [first, second, works] {
        ledger.database.expire(run.as_uuid()).await;
    }
    assert_eq!(ledger.doomed().await, (0, 2));
    assert!(!ledger.is_found(first).await, "before it is removed");
    assert!(
        ledger.is_found(works).await,
        "one that works is kept until it ends"
    );
    ledger.look(READABLE, 1).await;
    assert_eq!(
        ledger.doomed().await,
        (0, 1),
        "one look takes no more than it may"
    );
    let both = [SystemClock::shared(), SystemClock::shared()];
    let looks = both.iter().map(|clock| purge_runs(&ledger.store, &**clock));
    for look in futures_util::future::join_all(looks).await {
        look.unwrap();
    }
    assert_eq!(ledger.doomed().await, (0, 0));
    let mut removed = [first, second].map(|run| format!("run:{run}"));
    removed.sort();
    assert_eq!(ledger.expired().await, removed);
    ledger.end(works).await;
    ledger.look(READABLE, RUNS).await;
    assert_eq!(ledger.expired().await.len(), 3);
    assert!(ledger.is_found(before).await);

    assert!(system.keep_responses(ledger.tenant, None).await.unwrap());
    let later = ledger.ended(true).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert_eq!(tx.run(later).await.unwrap().unwrap().expires_at, None);
    let nobody = TenantId::new(SystemClock.now());
    assert!(!system.keep_responses(nobody, time).await.unwrap());
}
