//! Bytes that reach a consumer but are not for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use baton_nats::{EventFollower, JobSource, LedgerAttempts, Nudge, StreamSeq};
use baton_protocol::{Event, EventId, Lane, RunId, TenantId, WorkerId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{Broker, Writer, any_attempt, follow_to, id, ids, payload, run, soon, tenant, text};

const NEVER: Duration = Duration::from_hours(1);
/// More subscriptions than a test has.
const SUBSCRIPTIONS: u32 = 40;

/// Writes raw protocol frames and waits until the server has read them.
async fn send(broker: &Broker, frames: &[u8]) {
    let stream = TcpStream::connect(("127.0.0.1", broker.server.port())).await;
    let mut stream = BufStream::new(stream.unwrap());
    let connect = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n";
    stream.write_all(connect).await.unwrap();
    stream.write_all(frames).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

/// Builds a message on this subject with a wide space and a number after its last token. The server
/// reads both as part of the token, the client library reads the number as the subscription's.
fn smuggled(subject: &str, sid: u32, headers: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("NATS/1.0\r\n{headers}\r\n");
    let mut frame = format!(
        "HPUB {subject}\u{3000}{sid} {} {}\r\n{head}",
        head.len(),
        head.len() + payload.len()
    )
    .into_bytes();
    frame.extend_from_slice(payload);
    frame.extend_from_slice(b"\r\n");
    frame
}

/// Guards against a stranger who reaches any subscription by its number: each consumer drops
/// messages on other subjects. Red without the check in `Subscription::next`.
#[tokio::test]
async fn a_message_that_is_smuggled_into_a_subscription_is_dropped_and_counted() {
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&metrics);
    let broker = Broker::start().await;
    let bus = &broker.bus;
    let (tenant, run) = (tenant(), run());
    let me = WorkerId::from_uuid(Uuid::new_v4());
    let other = Uuid::new_v4().to_string();
    let mut nudges = bus.worker_nudges(me).await.unwrap();
    let mut hellos = bus.hellos().await.unwrap();
    let mut revoked = bus.revocations().await.unwrap();
    let mut questions = bus.attachment_questions().await.unwrap();
    let mut jobs = JobSource::open(bus, Lane::Interactive).await.unwrap();
    let subscribed = EventFollower::subscribe(bus, tenant, run, any_attempt());
    let mut follower = subscribed
        .await
        .unwrap()
        .look_every(NEVER)
        .from_start_of_new_run();
    bus.ping().await.unwrap();

    let forged = payload(&[crate::completed(run, id(1, 1), EventId::ORIGIN)]);
    let forged = [&forged[..], other.as_bytes()];
    let subject = format!("worker.{me}.x");
    let mut frames = Vec::new();
    for sid in 0..SUBSCRIPTIONS {
        for payload in forged {
            frames.extend(smuggled(&subject, sid, "Nats-Sequence: 5\r\n", payload));
        }
        let reply = "$JS.ACK.JOBS.worker-interactive.1.1.1.1.1";
        frames.extend(smuggled(&subject, sid, "", reply.as_bytes()));
    }
    send(&broker, &frames).await;

    let honest = WorkerId::from_uuid(Uuid::new_v4());
    let mut writer = Writer::new(bus, tenant, run);
    writer.texts(2).await;
    bus.say_hello(honest).await.unwrap();
    bus.announce_revoked(me.as_uuid()).await.unwrap();
    bus.nudge_worker(me, tenant, run).await.unwrap();
    let seen = soon(follower.next()).await.unwrap();
    assert!(
        !seen[0].event.data.is_terminal(),
        "the forged end: {seen:?}"
    );
    assert_eq!(soon(hellos.next()).await, Some(honest));
    assert_eq!(soon(revoked.next()).await, Some(me.as_uuid()));
    assert_eq!(
        soon(nudges.next()).await,
        Some(Nudge::Cancel { tenant, run })
    );
    assert!(questions.next().now_or_never().is_none());
    let pulled = jobs.pull(1, Duration::from_secs(5)).now_or_never();
    assert!(pulled.is_none(), "{pulled:?}");
    let counted = metrics.handle().render();
    for consumer in ["events", "hellos", "revocations", "attachments", "jobs"] {
        let none = format!("baton_bus_foreign_messages_total{{consumer=\"{consumer}\"}} 0");
        assert!(!counted.contains(&none), "{counted}");
    }
}

/// Publishes events on a follower's subject, as if the stream had stored them.
async fn tell(client: &async_nats::Client, tenant: TenantId, run: RunId, events: &[Event]) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Sequence", "900");
    let subject = format!("live.{tenant}.{run}");
    let sent = client.publish_with_headers(subject, headers, payload(events));
    sent.await.unwrap();
    crate::round_trip(client).await;
}

/// Makes a ledger with attempts up to `newest` that counts its calls.
fn ledger(newest: &Arc<AtomicU32>, asked: &Arc<AtomicU32>) -> LedgerAttempts {
    let (newest, asked) = (Arc::clone(newest), Arc::clone(asked));
    LedgerAttempts::new(move |_, _| {
        asked.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Some(newest.load(Ordering::SeqCst)))
    })
}

/// Guards the check of each event's run. Red without it: the forged text was passed on.
#[tokio::test]
async fn an_event_about_another_run_is_no_event_of_this_one() {
    let broker = Broker::start().await;
    let (tenant, run, other) = (tenant(), run(), crate::run());
    let subscribed = EventFollower::subscribe(&broker.bus, tenant, run, any_attempt()).await;
    let mut follower = subscribed
        .unwrap()
        .look_every(NEVER)
        .from_start_of_new_run();
    broker.bus.ping().await.unwrap();
    let forged = text(other, id(1, 1), EventId::ORIGIN);
    tell(&broker.client().await, tenant, run, &[forged]).await;
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(2).await;
    let seen = soon(follower.next()).await.unwrap();
    assert!(seen.iter().all(|one| one.event.run_id == run), "{seen:?}");
    assert_eq!(seen[0].event.id, id(1, 1));
}

/// Guards the check against the ledger: live and stored, a forged attempt withdraws and hides
/// nothing, and the honest one after it is followed. Red without the check: the forged reset was
/// passed on, and all later events of the holder were dropped.
#[tokio::test]
async fn an_attempt_that_the_ledger_does_not_have_is_no_attempt_of_the_run() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let (tenant, run) = (tenant(), run());
    let (newest, asked) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    let attempts = ledger(&newest, &asked);
    let subscribed = EventFollower::subscribe(&broker.bus, tenant, run, attempts.clone()).await;
    let often = Duration::from_millis(100);
    let mut follower = subscribed
        .unwrap()
        .look_every(often)
        .from_start_of_new_run();
    broker.bus.ping().await.unwrap();
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(2).await;
    assert_eq!(follow_to(&mut follower, id(1, 2)).await, ids(1, 2));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "once for the attempt");

    let forged = [crate::reset(run, id(7, 1), id(1, 2), EventId::ORIGIN)];
    for _ in 0..20 {
        tell(&client, tenant, run, &forged).await;
    }
    // The same event, stored by a client that may append.
    let stored = broker
        .bus
        .append_events(tenant, run, writer.seq, payload(&forged));
    writer.seq = soon(stored).await.unwrap();
    writer.texts(2).await;
    let seen = follow_to(&mut follower, id(1, 4)).await;
    assert_eq!(seen, [id(1, 3), id(1, 4)]);
    let so_far = asked.load(Ordering::SeqCst);
    assert!(so_far < 10, "a flood asks now and then: {so_far}");

    // An honest attempt begins while the answer about the forged one is cached.
    newest.store(2, Ordering::SeqCst);
    writer.reset(2, id(1, 4)).await;
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(2, 2)).await, ids(2, 2));

    // A later follower reads the same events from the log.
    let late = EventFollower::subscribe(&broker.bus, tenant, run, attempts).await;
    let late = late
        .unwrap()
        .look_every(often)
        .resume(EventId::ORIGIN)
        .await;
    let seen = follow_to(&mut late.unwrap(), id(2, 2)).await;
    assert_eq!(seen, [ids(1, 4), ids(2, 2)].concat());
}

/// Guards honest events: they wait while the ledger does not answer, and then none is missing.
#[tokio::test]
async fn an_event_waits_until_the_ledger_answers() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let down = Arc::new(AtomicU32::new(2));
    let outage = Arc::clone(&down);
    let attempts = LedgerAttempts::new(move |_, _| {
        let left = outage.load(Ordering::SeqCst);
        outage.store(left.saturating_sub(1), Ordering::SeqCst);
        std::future::ready((left == 0).then_some(1))
    });
    let subscribed = EventFollower::subscribe(&broker.bus, tenant, run, attempts).await;
    let mut follower = subscribed
        .unwrap()
        .look_every(NEVER)
        .from_start_of_new_run();
    broker.bus.ping().await.unwrap();
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(3).await;
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(1, 4)).await, ids(1, 4));
    assert_eq!(down.load(Ordering::SeqCst), 0);
}

/// Guards the end of a role: a connection is gone for good once its task has died, and one that
/// waits for its broker is not. Red without the check of the sender: `closed` never returned.
#[tokio::test]
async fn a_connection_whose_task_has_died_is_closed_and_one_without_a_broker_is_not() {
    let mut broker = Broker::start().await;
    let victim = broker.another_bus().await;
    let me = WorkerId::from_uuid(Uuid::new_v4());
    let mut nudges = victim.worker_nudges(me).await.unwrap();
    victim.ping().await.unwrap();

    broker.server.kill().await;
    let mut link = victim.link();
    soon(link.wait_for(|link| link.down == 1)).await.unwrap();
    broker.server.restart().await.unwrap();
    crate::until(async || victim.ping().await.is_ok()).await;
    assert!(victim.closed().now_or_never().is_none(), "an outage");

    let head = "NATS/1.0\r\nX: a\rb\r\n\r\n";
    let frame = format!("HPUB worker.{me}.x {0} {0}\r\n{head}\r\n", head.len());
    send(&broker, frame.as_bytes()).await;
    soon(victim.closed()).await;
    assert!(!victim.is_connected());
    assert!(victim.ping().await.is_err());
    assert_eq!(soon(nudges.next()).await, None);
    let append = victim.append_events(tenant(), run(), StreamSeq::NONE, Bytes::from_static(b"{}"));
    assert!(append.await.is_err());
}
