//! Programs that send bytes which no client library would, to a broker with the delivered accounts.
//! Other tenants' streams, the ingress and the audit log are unaffected.

use std::time::Duration;

use baton_protocol::event::{AttemptReset, RunCompleted, Text};
use baton_protocol::{Event, EventData, EventId, FinishReason, RunId, TenantId};
use baton_service::{Clock as _, SystemClock};
use baton_store::AuditFilter;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, Sse, USAGE, soon};

/// A program that speaks the broker's protocol by hand.
struct Hostile {
    tenant: TenantId,
    key: String,
    stream: BufStream<TcpStream>,
}

impl Hostile {
    /// Connects with a key of a tenant of its own.
    async fn of_another_tenant(f: &Fixture, random: u8, scopes: &[&str]) -> Self {
        let fresh = TenantId::new(SystemClock.now());
        let tenant = f.store.system().ensure_tenant(fresh, "hostile").await;
        let tenant = tenant.unwrap().id;
        assert_ne!(tenant, f.tenant);
        let key = f.make_key_of(tenant, random, scopes, None).await;
        Self::with_key(f, tenant, &key).await
    }

    async fn with_key(f: &Fixture, tenant: TenantId, secret: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", f.nats.port())).await;
        let key = f.id_of_key(tenant, secret).await;
        let mut program = Self {
            tenant,
            key,
            stream: BufStream::with_capacity(1 << 16, 1 << 16, stream.unwrap()),
        };
        let hello = json!({
            "auth_token": secret, "verbose": false, "pedantic": false, "headers": true,
            "name": "hostile", "lang": "bytes", "version": "0",
        });
        program.say(format!("CONNECT {hello}\r\n").as_bytes()).await;
        let refused = program.settle().await;
        assert!(refused.is_empty(), "{refused:?}");
        program
    }

    async fn say(&mut self, bytes: &[u8]) {
        // The server may have closed the connection, which is one of the correct answers.
        let _closed = self.stream.write_all(bytes).await;
    }

    async fn publish(&mut self, subject: &str, payload: &[u8]) {
        let line = format!("PUB {subject} {}\r\n", payload.len());
        self.say(line.as_bytes()).await;
        self.say(payload).await;
        self.say(b"\r\n").await;
    }

    async fn publish_with_headers(&mut self, subject: &str, headers: &[u8], payload: &[u8]) {
        let (head, all) = (headers.len(), headers.len() + payload.len());
        let line = format!("HPUB {subject} {head} {all}\r\n");
        self.say(line.as_bytes()).await;
        self.say(headers).await;
        self.say(payload).await;
        self.say(b"\r\n").await;
    }

    /// Waits until the server has processed everything or closed the connection. Returns its
    /// errors.
    async fn settle(&mut self) -> Vec<String> {
        self.say(b"PING\r\n").await;
        let _closed = self.stream.flush().await;
        let mut refused = Vec::new();
        loop {
            let mut line = String::new();
            let read = soon(self.stream.read_line(&mut line)).await;
            match line.trim() {
                "PONG" => return refused,
                "PING" => self.say(b"PONG\r\n").await,
                error if error.starts_with("-ERR") => refused.push(error.to_owned()),
                _ => {}
            }
            if read.unwrap_or(0) == 0 {
                return refused;
            }
        }
    }

    /// Returns every subject on which an ingress listens to programs, as far as a program may
    /// choose it.
    fn doors(&self) -> Vec<String> {
        let (tenant, key) = (self.tenant, &self.key);
        vec![
            format!("jobs.{tenant}.interactive"),
            format!("history.{tenant}.x"),
            format!("control.{tenant}.x.cancel"),
            format!("jobs.{tenant}.{key}.interactive"),
            format!("history.{tenant}.{key}"),
            format!("control.{tenant}.{key}.cancel"),
        ]
    }
}

/// Returns event lines that withdraw all text, add other text, and end the run.
fn forged() -> Vec<u8> {
    let run_id = RunId::new(SystemClock.now());
    let data = [
        EventData::AttemptReset(AttemptReset {
            resume_after: EventId::ORIGIN,
            continues: false,
        }),
        EventData::TextDelta(Text {
            text: "forged".into(),
        }),
        EventData::RunCompleted(RunCompleted {
            finish_reason: FinishReason::Stop,
            usage: USAGE,
        }),
    ];
    let mut lines = Vec::new();
    let mut prev = EventId::ORIGIN;
    for (n, data) in (1..).zip(data) {
        let id = EventId::new(7, n);
        let event = Event {
            id,
            prev,
            run_id,
            step: 1,
            at: SystemClock.now(),
            data,
        };
        event.encode_into(&mut lines);
        prev = id;
    }
    lines
}

/// Reads a streamed chat to its end, and returns its text.
async fn text_of(sse: &mut Sse) -> String {
    let mut text = String::new();
    for event in sse.rest().await {
        if event.data == "[DONE]" {
            return text;
        }
        let chunk: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert!(chunk["error"].is_null(), "{chunk}");
        text.push_str(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
    }
    panic!("the stream broke off after {text:?}")
}

/// Runs `meanwhile` in the middle of a streamed chat, which must end well.
async fn chat_through(f: &Fixture, meanwhile: impl AsyncFnOnce()) {
    let (response, mut worker) = tokio::join!(f.chat(true).send(), async {
        let mut worker = f.take_job().await;
        worker.say("one ").await;
        worker
    });
    let mut sse = Sse::of(response.unwrap());
    meanwhile().await;
    worker.say("two").await;
    worker.complete().await;
    assert_eq!(text_of(&mut sse).await, "one two");
}

/// Guards every subscription of an ingress: a client library that splits protocol lines at more
/// characters than the server would read a subscription's number from a subject.
#[tokio::test]
async fn a_wide_space_in_a_subject_reaches_nobodys_stream() {
    let f = Fixture::start_with_door(|_| {}).await;
    let mut hostile = Hostile::of_another_tenant(&f, 9, &["*"]).await;
    let forged = forged();
    // The headers that a stream adds to a republished message.
    let stored = b"NATS/1.0\r\nNats-Stream: EVENTS\r\nNats-Sequence: 1000000\r\n\r\n";
    chat_through(&f, async || {
        for space in ['\u{3000}', '\u{a0}', '\u{2028}', '\u{b}'] {
            for sid in 1..=120 {
                for door in hostile.doors() {
                    let (head, _) = door.rsplit_once('.').unwrap();
                    for subject in [
                        format!("{door}{space}{sid}"),
                        format!("{head}.x{space}{sid}"),
                    ] {
                        hostile
                            .publish_with_headers(&subject, stored, &forged)
                            .await;
                    }
                }
            }
        }
        hostile.settle().await;
    })
    .await;
}

/// Guards the connection to the broker: no block of headers ends it, or the readers on it.
#[tokio::test]
async fn no_header_block_takes_the_broker_from_an_ingress() {
    let f = Fixture::start_with_door(|_| {}).await;
    let mut hostile = Hostile::of_another_tenant(&f, 9, &["*"]).await;
    for block in [
        &b"NATS/1.0\r\nX: a\rb\r\n\r\n"[..],
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
        b"NATS/9.9\r\nX: y\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"nothing like it",
        b"\r\n\r\n",
    ] {
        for door in hostile.doors() {
            hostile.publish_with_headers(&door, block, b"{}").await;
        }
    }
    hostile.settle().await;
    chat_through(&f, async || {}).await;
    assert_eq!(f.lost_connections(), 0);
}

/// Guards the recorded actor: a publisher writes the headers of a message, so they prove nothing
/// about the publisher.
#[tokio::test]
async fn nobody_acts_as_another_key_by_what_a_message_says() {
    let f = Fixture::start_with_door(|_| {}).await;
    let limited = f.make_key(9, &["runs:write"], None).await;
    let mut hostile = Hostile::with_key(&f, f.tenant, &limited).await;
    let victim = f.id_of_key(f.tenant, &f.key).await;
    let stamp = json!({"acc": "PROGRAMS", "user": victim, "host": "6.6.6.6"});
    let run = RunId::new(SystemClock.now());
    let request = json!({"model": "m", "input": "x"});
    let submission = json!({"v": 1, "kind": "submit", "run_id": run, "request": request});
    let cancel = json!({"v": 1, "run_id": run});
    let said = |subject: &str, payload: &Value| {
        if subject.contains(&run.to_string()) {
            "{}".to_owned()
        } else {
            payload.to_string()
        }
    };
    let blocks = [
        "NATS/1.0\r\nX: y\nNats-Request-Info: %\r\nZ: zzAB",
        "NATS/1.0\r\nNats-Request-Info: %\r\n\r\n",
    ];
    for block in blocks {
        let block = block.replace('%', &stamp.to_string());
        for (door, payload) in [("jobs", &submission), ("control", &cancel)] {
            for subject in hostile.doors() {
                let subject = subject.replace(".x.", &format!(".{run}."));
                if subject.starts_with(door) {
                    let payload = said(&subject, payload);
                    hostile
                        .publish_with_headers(&subject, block.as_bytes(), payload.as_bytes())
                        .await;
                }
            }
        }
    }
    hostile.settle().await;
    // The last request is valid, and is processed after all others: its actor is its own key.
    let filter = AuditFilter {
        action: Some("run.cancelled".into()),
        limit: 10,
        ..AuditFilter::default()
    };
    let log = soon(async {
        loop {
            let log = f.store.system().audit_log(&filter).await.unwrap();
            if !log.is_empty() {
                return log;
            }
            let (tenant, key) = (hostile.tenant, hostile.key.clone());
            for control in [
                format!("control.{tenant}.{key}.cancel"),
                format!("control.{tenant}.{run}.cancel"),
            ] {
                let payload = said(&control, &cancel);
                hostile.publish(&control, payload.as_bytes()).await;
            }
            hostile.settle().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(
        f.record(run).await.api_key_id.unwrap().to_string(),
        hostile.key
    );
    for entry in log {
        assert_eq!(entry.actor.as_deref(), Some(&*hostile.key));
        assert_ne!(entry.ip.as_deref(), Some("6.6.6.6"));
    }
}

/// Guards the connection against volume: the broker disconnects a client that reads too slowly.
#[tokio::test]
async fn a_flood_of_large_messages_cuts_off_no_ingress() {
    let f = Fixture::start_with_door(|_| {}).await;
    let mut hostile = Vec::new();
    for random in 9..13 {
        hostile.push(Hostile::of_another_tenant(&f, random, &["*"]).await);
    }
    let large = vec![b'x'; 1_000_000];
    let allowed = vec![b'x'; 250_000];
    chat_through(&f, async || {
        let floods = hostile.iter_mut().map(|program| {
            let (large, allowed) = (&large, &allowed);
            async move {
                for _ in 0..300 {
                    for door in program.doors() {
                        program.publish(&door, allowed).await;
                    }
                }
                program.settle().await;
                for _ in 0..100 {
                    for door in program.doors() {
                        program.publish(&door, large).await;
                    }
                }
                program.settle().await;
            }
        });
        futures_util::future::join_all(floods).await;
    })
    .await;
    assert_eq!(f.lost_connections(), 0);
}
