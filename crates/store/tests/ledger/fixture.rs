//! A migrated database with one tenant, and the shortest way to each of a run's states.

use std::time::Duration;

use baton_protocol::{
    AgentRef, Charge, ClaimToken, EventId, Fence, FinishReason, Lane, Nanos, Outcome, RunId,
    RunLimits, RunSpec, TenantId, ThreadId, Usage, WorkerId,
};
use baton_store::{
    Accept, Claim, ClaimOutcome, ClaimedRun, FenceError, FinalTurn, FinishCommit, IdempotencyKey,
    NewRun, QueueLimits, Renewal, Store,
};
use baton_test_ledger::TestDatabase;
use serde_json::value::RawValue;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

pub(crate) const ROOMY: QueueLimits = QueueLimits {
    tenant: 1_000,
    system: 10_000,
};
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// The length of a lease that has expired as soon as it is granted.
pub(crate) const OVER: Duration = Duration::ZERO;
pub(crate) const MAX_FAILURES: u32 = 2;

pub(crate) const CHARGE: Charge = Charge {
    input_tokens: 3,
    cached_tokens: 1,
    output_tokens: 4,
    cost: Some(Nanos(11)),
};

pub(crate) const DONE: Outcome = Outcome::Completed(FinishReason::Stop);
pub(crate) const ANSWER: &str = r#"{"role":"assistant","content":"42"}"#;

pub(crate) struct Ledger {
    pub(crate) store: Store,
    pub(crate) tenant: TenantId,
    // Declared last, because fields are dropped in order.
    pub(crate) database: TestDatabase,
}

pub(crate) fn tenant_id() -> TenantId {
    TenantId::from_uuid(Uuid::now_v7())
}

pub(crate) fn run_id() -> RunId {
    RunId::from_uuid(Uuid::now_v7())
}

pub(crate) fn token() -> ClaimToken {
    ClaimToken::from_random(rand::random())
}

pub(crate) fn usage(prompt: u64, completion: u64) -> Usage {
    Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        estimated: false,
    }
}

pub(crate) fn spec() -> RunSpec {
    RunSpec {
        v: RunSpec::VERSION,
        agent: AgentRef {
            name: "default".into(),
            version: 0,
        },
        model: "m".into(),
        fallbacks: Vec::new(),
        instructions: None,
        messages: RawValue::from_string(r#"[{"role":"user","content":"6 times 7?"}]"#.into())
            .unwrap(),
        tools: None,
        server_tools: vec![],
        params: baton_protocol::RawFields::default(),
        calls: vec![],
        shown_for_good: false,
        response: None,
        compaction: None,
        request_id: None,
        limits: RunLimits::of_turns(8),
    }
}

pub(crate) fn new_run(id: RunId, spec: &RunSpec) -> NewRun<'_> {
    NewRun {
        id,
        lane: Lane::Interactive,
        spec,
        thread_id: None,
        on_busy: baton_store::OnBusy::Queue,
        titles: None,
        api_key_id: None,
        created_by: None,
        metered: None,
        metadata: None,
        cancel_on_disconnect: false,
        traceparent: None,
        idempotency: None,
    }
}

/// The terminal event of each run: later than all others.
pub(crate) const END: EventId = EventId::new(99, 9);

pub(crate) fn finish(outcome: &Outcome) -> FinishCommit<'_> {
    FinishCommit {
        unless_inputs_wait: false,
        outcome,
        last_event_id: END,
        usage_total: usage(3, 4),
        turn: None,
        cut: None,
    }
}

pub(crate) fn answer(outcome: &Outcome) -> FinishCommit<'_> {
    FinishCommit {
        unless_inputs_wait: false,
        turn: Some(FinalTurn {
            answer_fields: None,
            charged_model: None,
            times: baton_store::TurnTimes::default(),
            step: 1,
            message: ANSWER,
            usage: usage(3, 4),
            charge: CHARGE,
            finish_reason: FinishReason::Stop,
            last_event_id: EventId::new(1, 8),
        }),
        ..finish(outcome)
    }
}

impl Ledger {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let tenant = store
            .system()
            .ensure_tenant(tenant_id(), "acme")
            .await
            .unwrap()
            .id;
        Self {
            store,
            tenant,
            database,
        }
    }

    /// Opens a connection that no policy applies to.
    pub(crate) async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.database.superuser_url)
            .await
            .unwrap()
    }

    pub(crate) async fn accept_with(
        &self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, baton_store::AcceptError> {
        self.store.accept_run(self.tenant, run, limits).await
    }

    pub(crate) async fn accept_keyed(&self, run: RunId, key: &str, body: u8) -> Accept {
        let spec = spec();
        let key = IdempotencyKey {
            key: key.into(),
            fingerprint: [body; 32],
        };
        let run = NewRun {
            idempotency: Some(&key),
            ..new_run(run, &spec)
        };
        self.accept_with(&run, &ROOMY).await.unwrap()
    }

    pub(crate) async fn queued(&self) -> RunId {
        self.queued_in(None).await
    }

    pub(crate) async fn queued_in(&self, thread_id: Option<ThreadId>) -> RunId {
        let id = run_id();
        let spec = spec();
        let run = NewRun {
            thread_id,
            ..new_run(id, &spec)
        };
        let accepted = self.accept_with(&run, &ROOMY).await.unwrap();
        assert!(matches!(accepted, Accept::Created { .. }));
        id
    }

    pub(crate) fn wish(&self, run: RunId, lease: Duration) -> Claim {
        Claim {
            tenant: self.tenant,
            run,
            worker: WorkerId::from_uuid(Uuid::now_v7()),
            token: token(),
            lease,
            job_seq: 7,
            max_failures: MAX_FAILURES,
        }
    }

    pub(crate) async fn try_claim(&self, run: RunId) -> ClaimOutcome {
        let claim = self.wish(run, LONG);
        self.store.system().claim_run(&claim).await.unwrap()
    }

    pub(crate) async fn claimed(&self, run: RunId, lease: Duration) -> ClaimedRun {
        let claim = self.wish(run, lease);
        match self.store.system().claim_run(&claim).await.unwrap() {
            ClaimOutcome::Claimed(claimed) => *claimed,
            other => panic!("not claimed: {other:?}"),
        }
    }

    pub(crate) async fn fence(&self, run: RunId, lease: Duration) -> Fence {
        self.claimed(run, lease).await.fence
    }

    /// Renews one run and returns the answer about it.
    pub(crate) async fn renew(
        &self,
        fence: &Fence,
        lease: Option<Duration>,
    ) -> Result<Renewal, FenceError> {
        let mut answers = self.store.system().renew_leases(&[*fence], lease).await?;
        answers.remove(0).ok_or(FenceError::Lost)
    }
}
