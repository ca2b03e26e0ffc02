//! The base of the worker's internal tests: a ledger, a broker, a tenant, and jobs.

use std::time::Duration;

use baton_devstack::NatsServer;
use baton_devstack::test_support::test_nats;
use baton_nats::{Bus, BusOptions, Delivery, JobHeaders, JobSource, StreamOptions, provision};
use baton_protocol::{AgentRef, ApiKeyId, Job, Lane, RunId, RunLimits, RunSpec, TenantId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{NewRun, QueueLimits, Store, TurnWish};
use baton_test_ledger::TestDatabase;
use serde_json::value::RawValue;

const ROOMY: QueueLimits = QueueLimits {
    tenant: 100,
    system: 100,
};

pub(crate) struct Ground {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) tenant: TenantId,
    pub(crate) source: JobSource,
    pub(crate) server: NatsServer,
    // Dropped last.
    pub(crate) database: TestDatabase,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let (server, database) = tokio::join!(test_nats(), TestDatabase::create());
        let server = server.unwrap();
        let bus = Bus::connect(BusOptions::new(server.url(), "test"))
            .await
            .unwrap();
        provision(&bus, &StreamOptions::default()).await.unwrap();
        let store = database.store().await;
        let tenant = TenantId::new(SystemClock.now());
        let tenant = store.system().ensure_tenant(tenant, "acme").await.unwrap();
        let source = JobSource::open(&bus, Lane::Interactive).await.unwrap();
        Self {
            tenant: tenant.id,
            store,
            bus,
            source,
            server,
            database,
        }
    }

    /// Accepts a run.
    pub(crate) async fn accept(&self) -> RunId {
        self.accept_of(None).await
    }

    /// Accepts a run of this key, which has limits.
    pub(crate) async fn accept_of(&self, key: Option<ApiKeyId>) -> RunId {
        self.accept_with(key, |_| {}).await
    }

    /// Like [`Ground::accept_of`], with a changed request.
    pub(crate) async fn accept_with(
        &self,
        key: Option<ApiKeyId>,
        change: impl FnOnce(&mut RunSpec),
    ) -> RunId {
        let messages = r#"[{"role":"user","content":"Please."}]"#;
        let mut spec = RunSpec {
            v: RunSpec::VERSION,
            agent: AgentRef {
                name: "default".into(),
                version: 0,
            },
            model: "m".into(),
            fallbacks: Vec::new(),
            instructions: None,
            messages: RawValue::from_string(messages.into()).unwrap(),
            tools: None,
            server_tools: vec![],
            params: baton_protocol::RawFields::default(),
            calls: vec![],
            shown_for_good: false,
            response: None,
            compaction: None,
            request_id: None,
            limits: RunLimits::of_turns(8),
        };
        change(&mut spec);
        let run = NewRun {
            id: RunId::new(SystemClock.now()),
            lane: Lane::Interactive,
            spec: &spec,
            thread_id: None,
            on_busy: baton_store::OnBusy::Reject,
            titles: None,
            api_key_id: key,
            created_by: None,
            metered: key.map(|_| TurnWish::default()),
            metadata: None,
            cancel_on_disconnect: false,
            traceparent: None,
            idempotency: None,
        };
        let accepted = self.store.accept_run(self.tenant, &run, &ROOMY).await;
        accepted.unwrap();
        run.id
    }

    /// Publishes a job for the run, and pulls it.
    pub(crate) async fn job(&mut self, run_id: RunId) -> Delivery {
        let (job, headers) = (Job::Run { run_id }, JobHeaders::default());
        self.bus
            .publish_job(self.tenant, Lane::Interactive, &job, &headers)
            .await
            .unwrap();
        let jobs = self.source.pull(1, Duration::from_secs(5)).await;
        jobs.unwrap().remove(0)
    }
}
