//! A running ingress with a client; the test plays the worker.

mod door;
mod made;
mod sse;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use baton_devstack::test_support::{test_nats, test_nats_options};
use baton_devstack::{NatsConfig, NatsOptions, NatsServer};
use baton_identity::ApiKey;
use baton_ingress::{IngressDeps, ProgramDoor};
use baton_nats::{
    Bus, BusOptions, EventFollower, IntakeOptions, JobSource, LedgerAttempts, StreamOptions,
    StreamSeq, provision,
};
use baton_protocol::event::RunStarted;
use baton_protocol::{
    AnswerOrder, ApiKeyId, Charge, ClaimToken, Event, EventData, EventId, Lane, Nanos, RunId,
    RunStatus, TenantId, Usage, WorkerId,
};
use baton_service::config::{Registration, Secret};
use baton_service::{
    Clock as _, Config, LiveConfig, Readiness, SharedClock, Shutdown, SystemClock,
};
use baton_store::{Claim, ClaimOutcome, NewApiKey, RunRecord, Store};
use baton_test_ledger::TestDatabase;
use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::door::{Door, TEST, intake};
pub(crate) use self::sse::{Sse, SseEvent};
pub(crate) use self::worker::Worker;

/// A time-out far longer than any step takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

const JWT_SECRET: &str = "7f-Kq2xw9ZbTn4Rv8yLmA1cE6uGdHs3J";
/// The password of registered people.
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) const CHARGE: Charge = Charge {
    input_tokens: 10,
    cached_tokens: 4,
    output_tokens: 5,
    cost: Some(Nanos(1_500_000_000)),
};

pub(crate) const USAGE: Usage = Usage {
    prompt_tokens: 10,
    completion_tokens: 5,
    total_tokens: 15,
    estimated: false,
};

/// An ingress with its servers.
pub(crate) struct Fixture {
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) tenant: TenantId,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    /// The ingress's own connection.
    at_broker: Bus,
    pub(crate) shutdown: Shutdown,
    pub(crate) nats: NatsServer,
    door: Option<Door>,
    client: Client,
    served: Option<JoinHandle<anyhow::Result<()>>>,
    pub(crate) database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let (database, nats) = tokio::join!(TestDatabase::create(), test_nats());
        Self::start_on(database, nats.unwrap(), None, configure).await
    }

    /// Starts a broker with the delivered accounts, and an ingress with a door for programs.
    pub(crate) async fn start_with_door(configure: impl FnOnce(&mut Config)) -> Self {
        let door = Door::new();
        let options = NatsOptions {
            config: NatsConfig::Own {
                extra: door.accounts.text(),
            },
            ..test_nats_options().await.unwrap()
        };
        let (database, nats) = tokio::join!(TestDatabase::create(), NatsServer::start(options));
        Self::start_on(database, nats.unwrap(), Some(door), configure).await
    }

    async fn start_on(
        database: TestDatabase,
        nats: NatsServer,
        door: Option<Door>,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let store = database.store().await;
        let bus = connect(&nats, door.as_ref(), TEST).await;
        provision(&bus, &stream_options()).await.unwrap();

        let mut config = Config::default();
        config.http.lame_duck = Duration::from_millis(100);
        config.http.drain = Duration::from_secs(2);
        config.http.heartbeat = Duration::from_millis(300);
        config.llm.default_model = Some("house".into());
        config.auth.jwt_secret = Some(Secret::new(JWT_SECRET.into()));
        config.auth.registration = Registration::Open;
        configure(&mut config);
        let shutdown = Shutdown::new();
        let (at_broker, programs) = match &door {
            Some(opened) => (
                connect(&nats, door.as_ref(), "ingress").await,
                Some(opened.open(&nats, &config.nats).await),
            ),
            None => (bus.clone(), None),
        };
        let (base, served) = serve(
            &config,
            &store,
            &at_broker,
            &shutdown,
            (programs, intake(&nats, door.as_ref())),
            SystemClock::shared(),
        )
        .await;
        let tenant = store
            .system()
            .ensure_tenant(TenantId::new(SystemClock.now()), "test")
            .await
            .unwrap()
            .id;
        let client = client();
        let served = Some(served);
        let mut fixture = Self {
            base,
            key: String::new(),
            tenant,
            store,
            bus,
            at_broker,
            shutdown,
            nats,
            door,
            client,
            served,
            database,
        };
        fixture.key = fixture.make_key(7, &["*"], None).await;
        Box::pin(fixture.until_programs_are_heard()).await;
        fixture
    }

    /// Waits until the ingress receives programs' messages, because it connects in the background.
    async fn until_programs_are_heard(&self) {
        let client = connect_plain(&self.nats, self.door.as_ref()).await;
        let (tenant, nobody) = (
            TenantId::new(SystemClock.now()),
            ApiKeyId::new(SystemClock.now()),
        );
        let mut answers = client.subscribe(format!("past.{tenant}.*")).await.unwrap();
        let ask = format!("history.{tenant}.{nobody}");
        soon(async {
            loop {
                client.publish(ask.clone(), "{}".into()).await.unwrap();
                let patience = Duration::from_millis(50);
                if tokio::time::timeout(patience, answers.next()).await.is_ok() {
                    return;
                }
            }
        })
        .await;
    }

    /// Starts another ingress on the same servers; returns its base URL.
    pub(crate) async fn another_ingress(&self) -> (String, Shutdown) {
        self.another_ingress_by(SystemClock::shared()).await
    }

    /// Like [`Fixture::another_ingress`], on a machine with this clock.
    pub(crate) async fn another_ingress_by(&self, clock: SharedClock) -> (String, Shutdown) {
        let bus = connect(&self.nats, self.door.as_ref(), "ingress").await;
        let shutdown = Shutdown::new();
        let mut config = Config::default();
        config.http.heartbeat = Duration::from_millis(300);
        config.auth.jwt_secret = Some(Secret::new(JWT_SECRET.into()));
        let programs = match &self.door {
            Some(door) => Some(door.open(&self.nats, &config.nats).await),
            None => None,
        };
        let heard = (programs, intake(&self.nats, self.door.as_ref()));
        let (base, _) = serve(&config, &self.store, &bus, &shutdown, heard, clock).await;
        (base, shutdown)
    }

    /// Starts another ingress with this configuration, and waits until it serves.
    pub(crate) async fn another_ingress_with(&self, configure: impl FnOnce(&mut Config)) {
        let bus = connect(&self.nats, self.door.as_ref(), "ingress").await;
        let mut config = Config::default();
        configure(&mut config);
        let (base, _) = serve(
            &config,
            &self.store,
            &bus,
            &Shutdown::new(),
            (None, intake(&self.nats, None)),
            SystemClock::shared(),
        )
        .await;
        let answer = self.get_from(&base, "/v1/agents").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Like [`Fixture::another_ingress`], with this connection to the ledger.
    pub(crate) async fn another_ingress_on(&self, store: &Store) -> (String, Shutdown) {
        let bus = connect(&self.nats, self.door.as_ref(), "ingress").await;
        let shutdown = Shutdown::new();
        let mut config = Config::default();
        config.auth.jwt_secret = Some(Secret::new(JWT_SECRET.into()));
        let clock = SystemClock::shared();
        let (base, _) = serve(
            &config,
            store,
            &bus,
            &shutdown,
            (None, intake(&self.nats, None)),
            clock,
        )
        .await;
        (base, shutdown)
    }

    pub(crate) async fn make_key(
        &self,
        random: u8,
        scopes: &[&str],
        models: Option<&[&str]>,
    ) -> String {
        self.make_key_of(self.tenant, random, scopes, models).await
    }

    pub(crate) async fn make_key_of(
        &self,
        tenant: TenantId,
        random: u8,
        scopes: &[&str],
        models: Option<&[&str]>,
    ) -> String {
        let key = ApiKey::from_random("test", [random; 32]).unwrap();
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut tx = self.store.tenant(tenant).await.unwrap();
        tx.create_api_key(&NewApiKey {
            id: ApiKeyId::new(SystemClock.now()),
            hash: key.hash(),
            name: format!("key {random}"),
            prefix: key.hint().to_owned(),
            scopes: owned(scopes),
            allowed_models: models.map(owned),
            allowed_tools: None,
            expires_at: None,
            limits: baton_store::KeyLimits::default(),
            created_by: None,
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
        key.expose().to_owned()
    }

    /// Returns the id of the key with this secret.
    pub(crate) async fn id_of_key(&self, tenant: TenantId, secret: &str) -> String {
        let hash = ApiKey::parse(secret).unwrap().hash();
        let found = self.store.system().find_api_key(&hash).await.unwrap();
        let key = found.expect("a key");
        assert_eq!(key.tenant, tenant);
        key.id.to_string()
    }

    /// Counts the times that the ingress has lost its connection to the broker.
    pub(crate) fn lost_connections(&self) -> u64 {
        self.at_broker.link().borrow().down
    }

    pub(crate) fn request(&self, method: reqwest::Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Returns a request without the fixture's credential.
    pub(crate) fn plain(&self, method: &str, path: &str, body: &Value) -> RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.base));
        if body.is_null() {
            request
        } else {
            request.body(body.to_string())
        }
    }

    /// Sends [`Fixture::plain`] with a credential; returns the status and the answer or null.
    pub(crate) async fn ask(
        &self,
        credential: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = self.plain(method, path, &body).bearer_auth(credential);
        answer(request.send().await.unwrap()).await
    }

    /// Registers a person in a tenant of their own, and returns their tokens.
    pub(crate) async fn register(&self, email: &str) -> Value {
        let body = json!({"email": email, "password": PASSWORD});
        let request = self.plain("POST", "/v1/auth/register", &body);
        let (status, tokens) = answer(request.send().await.unwrap()).await;
        assert_eq!(status, 201, "{tokens}");
        tokens
    }

    pub(crate) async fn key_of_another_tenant(&self, random: u8) -> String {
        let fresh = TenantId::new(SystemClock.now());
        let tenant = self
            .store
            .system()
            .ensure_tenant(fresh, "another")
            .await
            .unwrap()
            .id;
        assert_ne!(tenant, self.tenant);
        self.make_key_of(tenant, random, &["*"], None).await
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.post_to(&self.base, path, body)
    }

    pub(crate) fn post_to(&self, base: &str, path: &str, body: &Value) -> RequestBuilder {
        self.client
            .post(format!("{base}{path}"))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.get_from(&self.base, path)
    }

    pub(crate) fn get_from(&self, base: &str, path: &str) -> RequestBuilder {
        self.client
            .get(format!("{base}{path}"))
            .bearer_auth(&self.key)
    }

    pub(crate) fn chat(&self, stream: bool) -> RequestBuilder {
        self.chat_at(&self.base, stream)
    }

    pub(crate) fn chat_at(&self, base: &str, stream: bool) -> RequestBuilder {
        let mut body = json!({
            "model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": stream,
        });
        if stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        self.post_to(base, "/v1/chat/completions", &body)
    }

    /// Takes this many jobs and acknowledges them without any work; returns their number.
    pub(crate) async fn settle_jobs(&self, most: usize) -> usize {
        let mut jobs = JobSource::open(&self.bus, Lane::Interactive).await.unwrap();
        let mut settled = 0;
        while settled < most {
            let supply = soon(jobs.pull(most - settled, Duration::from_secs(10))).await;
            for delivery in supply.unwrap() {
                delivery.ack_confirmed().await.unwrap();
                settled += 1;
            }
        }
        settled
    }

    /// Takes the next job and claims its run, as a worker would.
    pub(crate) async fn take_job(&self) -> Worker {
        let mut jobs = JobSource::open(&self.bus, Lane::Interactive).await.unwrap();
        let supply = soon(jobs.pull(1, Duration::from_secs(10))).await.unwrap();
        let delivery = supply.into_iter().next().expect("a job");
        let run = delivery.job.as_ref().unwrap().run_id();
        assert_eq!(delivery.tenant, self.tenant);
        let worker = WorkerId::new(SystemClock.now());
        let claim = Claim {
            tenant: self.tenant,
            run,
            worker,
            token: ClaimToken::from_random(u128::from(delivery.stream_seq) + 1),
            lease: Duration::from_mins(1),
            job_seq: delivery.stream_seq,
            max_failures: 3,
        };
        let outcome = self.store.system().claim_run(&claim).await.unwrap();
        let ClaimOutcome::Claimed(claimed) = outcome else {
            panic!("not claimed: {outcome:?}")
        };
        delivery.ack_confirmed().await.unwrap();
        jobs.stop(Duration::ZERO).await;
        let mut worker = Worker {
            store: self.store.clone(),
            bus: self.bus.clone(),
            id: worker,
            fence: claimed.fence,
            position: StreamSeq::NONE,
            last: EventId::ORIGIN,
            step: 1,
            text: String::new(),
            reasoning: String::new(),
            order: AnswerOrder::default(),
            usage: USAGE,
        };
        let started = RunStarted {
            model: "m".into(),
            agent: "default".into(),
        };
        worker.append(EventData::RunStarted(started)).await;
        worker
    }

    pub(crate) async fn record(&self, run: RunId) -> RunRecord {
        self.store
            .tenant(self.tenant)
            .await
            .unwrap()
            .run(run)
            .await
            .unwrap()
            .expect("a run")
    }

    /// Waits until the run's row has this status.
    pub(crate) async fn until_status(&self, run: RunId, status: RunStatus) {
        soon(async {
            while self.record(run).await.status != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Returns all events of a run up to its terminal one, straight from the broker.
    pub(crate) async fn all_events(&self, run: RunId) -> Vec<Event> {
        let attempts = LedgerAttempts::new(|_, _| std::future::ready(Some(u32::MAX)));
        let subscribed = EventFollower::subscribe(&self.bus, self.tenant, run, attempts)
            .await
            .unwrap();
        let mut follower = subscribed.resume(EventId::ORIGIN).await.unwrap();
        let mut events: Vec<Event> = Vec::new();
        while !events.last().is_some_and(|event| event.data.is_terminal()) {
            let batch = soon(follower.next()).await.unwrap();
            events.extend(batch.into_iter().map(|followed| followed.event));
        }
        events
    }

    /// Makes the broker lose its disk and restart empty.
    pub(crate) async fn lose_all_events(&mut self) {
        self.nats.kill().await;
        std::fs::remove_dir_all(self.nats.store_dir()).unwrap();
        self.nats.restart().await.unwrap();
        soon(async {
            while self.bus.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        provision(&self.bus, &stream_options()).await.unwrap();
        Box::pin(self.until_programs_are_heard()).await;
    }

    /// Waits until the ingress has returned.
    pub(crate) async fn stopped(&mut self) {
        let served = self.served.take().expect("asked once");
        soon(served).await.unwrap().unwrap();
    }
}

fn stream_options() -> StreamOptions {
    StreamOptions {
        jobs_max_bytes: 8 << 20,
        events_max_bytes: 64 << 20,
        dead_max_bytes: 1 << 20,
        ..StreamOptions::default()
    }
}

/// Returns the status and the body.
pub(crate) async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Connects as the user of that name on a server with the delivered accounts, else without a user.
async fn connect(nats: &NatsServer, door: Option<&Door>, user: &str) -> Bus {
    let options = match door {
        Some(door) => door.options(nats, user),
        None => BusOptions::new(nats.url(), user),
    };
    Bus::connect(options).await.unwrap()
}

/// Connects a plain client that may do everything in the account of the roles.
async fn connect_plain(nats: &NatsServer, door: Option<&Door>) -> async_nats::Client {
    let options = match door {
        Some(door) => async_nats::ConnectOptions::with_user_and_password(
            TEST.into(),
            door.accounts.password_of(TEST),
        ),
        None => async_nats::ConnectOptions::new(),
    };
    options.connect(nats.url()).await.unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test waits for the task, or ends with it"
)]
async fn serve(
    config: &Config,
    store: &Store,
    bus: &Bus,
    shutdown: &Shutdown,
    (programs, intake): (Option<ProgramDoor>, IntakeOptions),
    clock: SharedClock,
) -> (String, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let deps = IngressDeps {
        config: LiveConfig::fixed(config.clone()),
        store: store.clone(),
        bus: bus.clone(),
        clock,
        shutdown: shutdown.clone(),
        readiness: Readiness::new(),
        programs,
        intake: Some(intake),
    };
    (base, tokio::spawn(baton_ingress::run(deps, listener)))
}

/// Returns a client that trusts no certificates: all requests here are plain HTTP.
fn client() -> Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

/// Waits for a future, up to [`LONG`].
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what)
        .await
        .expect("it takes too long")
}

pub(crate) fn run_of(response: &Response) -> RunId {
    response.headers()["x-run-id"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap()
}
