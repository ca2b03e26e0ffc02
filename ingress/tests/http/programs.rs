//! Programs that connect to the broker with their API keys: admitted, refused, disconnected.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use baton_identity::ApiKey;
use baton_protocol::{ApiKeyId, TenantId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{AuditFilter, AuditRecord, NewApiKey};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fixture::{Fixture, soon};

/// A connected program.
struct Program {
    key: String,
    client: Client,
    lost: mpsc::UnboundedReceiver<()>,
}

impl Program {
    async fn connect(fixture: &Fixture, key: &str) -> Result<Self, async_nats::ConnectError> {
        let (sender, lost) = mpsc::unbounded_channel();
        let client = ConnectOptions::with_token(key.to_owned())
            .custom_inbox_prefix(format!("_INBOX_{}", fixture.tenant))
            .name("a program")
            .event_callback(move |event| {
                if event == Event::Disconnected {
                    let _gone = sender.send(());
                }
                std::future::ready(())
            })
            .connect(fixture.nats.url())
            .await?;
        let hash = ApiKey::parse(key).unwrap().hash();
        let found = fixture.store.system().find_api_key(&hash).await.unwrap();
        let key = found.expect("a key").id.to_string();
        Ok(Self { key, client, lost })
    }

    /// Waits until the server has processed all subscriptions: an ingress answers a later question.
    async fn round_trip(&self, tenant: TenantId) {
        let past = format!("past.{tenant}.*");
        let mut answers = self.client.subscribe(past).await.unwrap();
        let history = format!("history.{tenant}.{}", self.key);
        self.client.publish(history, "{}".into()).await.unwrap();
        soon(answers.next()).await.unwrap();
    }

    async fn until_lost(&mut self) {
        soon(self.lost.recv()).await.unwrap();
    }
}

async fn is_refused(fixture: &Fixture, key: &str) -> bool {
    soon(Program::connect(fixture, key)).await.is_err()
}

/// Returns the audit entries about connections, once there are at least `least`.
async fn connections(fixture: &Fixture, least: usize) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        action: Some("bus.".into()),
        limit: 100,
        ..AuditFilter::default()
    };
    soon(async {
        loop {
            let log = fixture.store.system().audit_log(&filter).await.unwrap();
            if log.len() >= least {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_api_key_opens_the_broker_and_that_is_recorded() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let program = Program::connect(&fixture, &fixture.key).await.unwrap();
    let live = format!("live.{}.*", fixture.tenant);
    let mut live = program.client.subscribe(live).await.unwrap();
    program.round_trip(fixture.tenant).await;

    let run = json!({"model": "m", "input": "x"});
    let (status, run) = fixture.ask(&fixture.key, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202);
    let cancel = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
    fixture.ask(&fixture.key, "POST", &cancel, json!({})).await;
    let heard = soon(live.next()).await.unwrap();
    assert!(heard.subject.ends_with(run["id"].as_str().unwrap()));

    let log = connections(&fixture, 1).await;
    assert_eq!(log[0].actor_kind, "api_key");
    assert_eq!(log[0].result, "done");
    assert_eq!(log[0].tenant, Some(fixture.tenant));
    assert_eq!(log[0].ip.as_deref(), Some("127.0.0.1"));
    assert!(log[0].user_agent.as_ref().unwrap().contains("a program"));
}

#[tokio::test]
async fn whoever_has_no_good_key_is_refused_and_that_is_recorded() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let unknown = ApiKey::from_random("test", [99; 32]).unwrap();
    let scopeless = fixture.make_key(8, &["models:read"], None).await;
    let expired = make_expiring(&fixture, 9, -1).await;
    let token = fixture.register("anna@example.org").await;
    let token = token["access_token"].as_str().unwrap().to_owned();
    for (key, why, whose) in [
        (unknown.expose(), "unknown", "nobody"),
        ("", "missing", "nobody"),
        ("bt_test_nonsense", "malformed", "nobody"),
        (&token, "malformed", "nobody"),
        (&scopeless, "scope", "api_key"),
        (&expired, "ended", "api_key"),
    ] {
        assert!(is_refused(&fixture, key).await, "{why}");
        let filter = AuditFilter {
            action: Some("bus.connected".into()),
            limit: 1,
            ..AuditFilter::default()
        };
        let log = fixture.store.system().audit_log(&filter).await.unwrap();
        assert_eq!(log[0].detail.as_deref(), Some(why));
        assert_eq!(log[0].result, "refused");
        assert_eq!(log[0].actor_kind, whose);
    }
}

#[tokio::test]
async fn strangers_cannot_fill_the_audit_log() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    for _ in 0..30 {
        assert!(is_refused(&fixture, "bt_test_nonsense").await);
    }
    let log = connections(&fixture, 1).await;
    assert!(log.len() < 30, "{}", log.len());
}

/// Creates a key with this many seconds left.
async fn make_expiring(fixture: &Fixture, random: u8, seconds: i64) -> String {
    let key = ApiKey::from_random("test", [random; 32]).unwrap();
    let mut tx = fixture.store.tenant(fixture.tenant).await.unwrap();
    tx.create_api_key(&NewApiKey {
        id: ApiKeyId::new(SystemClock.now()),
        hash: key.hash(),
        name: "short".into(),
        prefix: key.hint().to_owned(),
        scopes: vec!["*".into()],
        allowed_models: None,
        allowed_tools: None,
        expires_at: Some(SystemClock.now() + chrono::Duration::seconds(seconds)),
        limits: baton_store::KeyLimits::default(),
        created_by: None,
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    key.expose().to_owned()
}

#[tokio::test]
async fn a_connection_ends_with_its_key() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let key = make_expiring(&fixture, 9, 3).await;
    let mut program = Program::connect(&fixture, &key).await.unwrap();
    program.until_lost().await;
    // The broker counts in whole seconds: it may close the connection up to a second before the key
    // ends.
    Box::pin(soon(async { while !is_refused(&fixture, &key).await {} })).await;
}

async fn short_key(fixture: &Fixture) -> (String, String) {
    let key = fixture.new_key(json!({"name": "short"})).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

#[tokio::test]
async fn a_key_that_is_revoked_at_another_ingress_is_put_out_and_stays_out() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let (base, _) = fixture.another_ingress().await;
    let (id, key) = short_key(&fixture).await;
    let mut programs = Vec::new();
    for _ in 0..3 {
        programs.push(Program::connect(&fixture, &key).await.unwrap());
    }
    let mut other = Program::connect(&fixture, &fixture.key).await.unwrap();
    let url = format!("{base}/v1/api-keys/{id}");
    let request = fixture.request(reqwest::Method::DELETE, &url);
    let revoked = request.bearer_auth(&fixture.key).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    for program in &mut programs {
        program.until_lost().await;
    }
    assert!(is_refused(&fixture, &key).await);
    assert!(other.lost.try_recv().is_err(), "others stay");
}

#[tokio::test]
async fn a_key_whose_end_nobody_announced_is_put_out_all_the_same() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let (id, key) = short_key(&fixture).await;
    let mut program = Program::connect(&fixture, &key).await.unwrap();
    // As if the ingress died before the announcement.
    let mut tx = fixture.store.tenant(fixture.tenant).await.unwrap();
    assert!(tx.revoke_api_key(id.parse().unwrap()).await.unwrap());
    tx.commit().await.unwrap();
    program.until_lost().await;
    // For a moment the look-up is still cached. A program that is admitted then is disconnected
    // again.
    Box::pin(soon(async { while !is_refused(&fixture, &key).await {} })).await;
}

#[tokio::test]
async fn connections_count_as_requests_of_their_address() {
    let fixture = Fixture::start_with_door(|config| config.limits.per_ip_per_minute = 3).await;
    for _ in 0..3 {
        Program::connect(&fixture, &fixture.key).await.unwrap();
    }
    assert!(is_refused(&fixture, &fixture.key).await);
    let (status, body) = fixture
        .ask(&fixture.key, "GET", "/v1/runs", Value::Null)
        .await;
    assert_eq!(status, 429, "{body}");
}

#[tokio::test]
async fn another_tenants_key_hears_nothing_of_this_one() {
    let fixture = Fixture::start_with_door(|_| {}).await;
    let stranger = fixture
        .store
        .system()
        .ensure_tenant(TenantId::new(SystemClock.now()), "stranger")
        .await
        .unwrap()
        .id;
    let key = fixture.make_key_of(stranger, 9, &["*"], None).await;
    let program = Program::connect(&fixture, &key).await.unwrap();
    let theirs = format!("live.{}.*", fixture.tenant);
    let mut theirs = program.client.subscribe(theirs).await.unwrap();
    let own = format!("live.{stranger}.*");
    let mut own = program.client.subscribe(own).await.unwrap();
    program.round_trip(stranger).await;
    for key in [&fixture.key, &key] {
        let run = json!({"model": "m", "input": "x"});
        let (_, run) = fixture.ask(key, "POST", "/v1/runs", run).await;
        let cancel = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
        fixture.ask(key, "POST", &cancel, json!({})).await;
    }
    soon(own.next()).await.unwrap();
    let heard = tokio::time::timeout(Duration::ZERO, theirs.next()).await;
    assert!(heard.is_err());
}

/// Guards the number of connections of one key: the next one is refused, until one is closed.
#[tokio::test]
async fn a_key_has_no_more_connections_than_it_may() {
    let fixture = Fixture::start_with_door(|config| config.nats.callout_connections = 3).await;
    let key = fixture.make_key(9, &["*"], None).await;
    let mut programs = Vec::new();
    for _ in 0..3 {
        programs.push(Program::connect(&fixture, &key).await.unwrap());
    }
    assert!(is_refused(&fixture, &key).await);
    let log = connections(&fixture, 4).await;
    let refused = log.iter().filter(|entry| entry.result == "refused");
    let whys: Vec<_> = refused.map(|entry| entry.detail.as_deref()).collect();
    assert_eq!(whys, [Some("too_many")]);
    // Another key is not affected.
    Program::connect(&fixture, &fixture.key).await.unwrap();
    drop(programs.pop());
    let again = Box::pin(soon(async {
        loop {
            if let Ok(program) = Program::connect(&fixture, &key).await {
                return program;
            }
        }
    }))
    .await;
    assert!(is_refused(&fixture, &key).await, "that is the third again");
    drop(again);
}
