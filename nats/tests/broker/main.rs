//! The library against a real nats-server, one for each test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod appending;
mod cluster;
mod control;
mod following;
mod foreign;
mod intake;
mod jobs;
mod permissions;
mod programs;
mod provisioning;
mod rate_logs;
mod resuming;
mod tls;

use std::future::Future;
use std::time::Duration;

use baton_devstack::NatsServer;
use baton_devstack::test_support::test_nats;
use baton_nats::{
    Bus, BusOptions, EventFollower, Followed, LedgerAttempts, StreamOptions, StreamSeq, provision,
};
use baton_protocol::event::{AttemptReset, RunCompleted, Text};
use baton_protocol::{Event, EventData, EventId, FinishReason, RunId, TenantId, Usage};
use bytes::Bytes;
use chrono::DateTime;
use uuid::Uuid;

/// Far longer than any step takes: an event that is not here by then will not come.
const LONG: Duration = Duration::from_secs(20);

/// A server with the streams, and a connection to it.
struct Broker {
    server: NatsServer,
    bus: Bus,
}

impl Broker {
    async fn start() -> Self {
        Self::start_with(&options()).await
    }

    async fn start_with(options: &StreamOptions) -> Self {
        let server = test_nats().await.unwrap();
        let bus = connect(&server).await;
        provision(&bus, options).await.unwrap();
        Self { server, bus }
    }

    /// Connects as another process would.
    async fn another_bus(&self) -> Bus {
        connect(&self.server).await
    }

    /// Connects with subscriptions that hold two messages.
    async fn narrow_bus(&self) -> Bus {
        let options = BusOptions {
            subscription_capacity: 2,
            ..BusOptions::new(self.server.url(), "narrow")
        };
        Bus::connect(options).await.unwrap()
    }

    /// Connects a plain client, which inspects the server and does what Baton would not.
    async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.server.url()).await.unwrap()
    }
}

async fn connect(server: &NatsServer) -> Bus {
    Bus::connect(BusOptions::new(server.url(), "test"))
        .await
        .unwrap()
}

/// Waits until the server has processed everything that the client sent; a flush does not.
async fn round_trip(client: &async_nats::Client) {
    client.request("$JS.API.INFO", Bytes::new()).await.unwrap();
}

fn options() -> StreamOptions {
    StreamOptions {
        jobs_max_bytes: 1 << 20,
        events_max_bytes: 64 << 20,
        dead_max_bytes: 1 << 20,
        ack_wait: Duration::from_secs(2),
        ..StreamOptions::default()
    }
}

/// Makes a ledger that has every attempt.
fn any_attempt() -> LedgerAttempts {
    LedgerAttempts::new(|_, _| std::future::ready(Some(u32::MAX)))
}

fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::new_v4())
}

fn run() -> RunId {
    RunId::from_uuid(Uuid::new_v4())
}

/// Awaits a future, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what)
        .await
        .expect("it takes too long")
}

/// Polls until the condition holds.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    soon(async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn id(attempt: u32, n: u32) -> EventId {
    EventId::new(attempt, n)
}

fn event(run: RunId, id: EventId, prev: EventId, data: EventData) -> Event {
    let at = DateTime::from_timestamp_millis(1_780_000_000_000).unwrap();
    Event {
        id,
        prev,
        run_id: run,
        step: 1,
        at,
        data,
    }
}

fn text(run: RunId, id: EventId, prev: EventId) -> Event {
    event(
        run,
        id,
        prev,
        EventData::TextDelta(Text {
            text: format!("{id} "),
        }),
    )
}

fn reset(run: RunId, id: EventId, prev: EventId, resume_after: EventId) -> Event {
    event(
        run,
        id,
        prev,
        EventData::AttemptReset(AttemptReset {
            resume_after,
            continues: false,
        }),
    )
}

fn completed(run: RunId, id: EventId, prev: EventId) -> Event {
    let data = RunCompleted {
        finish_reason: FinishReason::Stop,
        usage: Usage::default(),
    };
    event(run, id, prev, EventData::RunCompleted(data))
}

fn payload(events: &[Event]) -> Bytes {
    let mut lines = Vec::new();
    for event in events {
        event.encode_into(&mut lines);
    }
    lines.into()
}

/// The holder of a run: it appends and keeps the chain.
struct Writer {
    bus: Bus,
    tenant: TenantId,
    run: RunId,
    last: EventId,
    seq: StreamSeq,
}

impl Writer {
    fn new(bus: &Bus, tenant: TenantId, run: RunId) -> Self {
        Self {
            bus: bus.clone(),
            tenant,
            run,
            last: EventId::ORIGIN,
            seq: StreamSeq::NONE,
        }
    }

    async fn append(&mut self, events: &[Event]) {
        self.seq = soon(
            self.bus
                .append_events(self.tenant, self.run, self.seq, payload(events)),
        )
        .await
        .unwrap();
        self.last = events.last().unwrap().id;
    }

    /// Appends one message with the next `n` text events.
    async fn texts(&mut self, n: u32) {
        let mut events = Vec::new();
        let mut last = self.last;
        for _ in 0..n {
            let next = if last == EventId::ORIGIN {
                id(1, 1)
            } else {
                last.next()
            };
            events.push(text(self.run, next, last));
            last = next;
        }
        self.append(&events).await;
    }

    async fn finish(&mut self) {
        self.append(&[completed(self.run, self.last.next(), self.last)])
            .await;
    }

    /// Begins a new attempt.
    async fn reset(&mut self, attempt: u32, resume_after: EventId) {
        self.append(&[reset(self.run, id(attempt, 1), self.last, resume_after)])
            .await;
    }
}

/// Returns the followed events up to this one.
async fn follow_to(follower: &mut EventFollower, last: EventId) -> Vec<EventId> {
    soon(async {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            seen.extend(follower.next().await.unwrap().iter().map(of));
        }
        seen
    })
    .await
}

fn of(followed: &Followed) -> EventId {
    followed.event.id
}

/// Returns the first `n` event ids of an attempt.
fn ids(attempt: u32, n: u32) -> Vec<EventId> {
    (1..=n).map(|n| id(attempt, n)).collect()
}
