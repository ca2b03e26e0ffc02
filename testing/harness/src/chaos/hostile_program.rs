//! A hostile program: it speaks the broker's protocol by hand, with a key of its own, and sends
//! bytes that no client library would send.
//!
//! Nothing is expected of the answers. The judgement is about the other participants: the events
//! that they are shown, and whether the roles survive.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_protocol::event::{AttemptReset, RunCompleted, Text};
use baton_protocol::{Event, EventData, EventId, FinishReason, RunId, Usage};
use baton_service::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::outside::Prompt;
use super::program::Bearer;
use super::record::Recorder;
use crate::checker::{FORGED, What};

/// Limit of one attack.
const LIMIT: Duration = Duration::from_secs(5);
/// Spaces that end a subject for a client library, but not for the server.
const WIDE_SPACES: [&str; 5] = ["\u{3000}", "\u{a0}", "\u{2028}", "\u{b}", "\u{85}"];
/// The number of subscriptions that one attack tries; their numbers begin at 1.
const SUBSCRIPTIONS: u32 = 120;
/// The longest message, in bytes, that the server accepts.
const LARGE: usize = 1_000_000;

/// The kinds of attack; each is counted by its name.
pub const ATTACKS: [&str; 9] = [
    "program: wide space in a subject",
    "program: malformed headers",
    "program: forged stamp",
    "program: another key's subject",
    "program: large messages",
    "program: many connections",
    "program: huge traceparent",
    "program: no protocol",
    "program: many subscriptions",
];

/// A hostile program.
#[derive(Debug)]
pub struct HostileProgram {
    /// The address of the broker.
    pub broker: SocketAddr,
    /// A key of a tenant without other clients.
    pub stranger: Bearer,
    /// A second key of the load's tenant, which pretends to be the first.
    pub impostor: Bearer,
    /// The key that it pretends to be.
    pub victim: Bearer,
    /// The recorder of attacks.
    pub recorder: Arc<Recorder>,
}

impl HostileProgram {
    /// Attacks until it is stopped.
    pub async fn rage(self, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let raging = async {
            loop {
                let attack = random.random_range(0..ATTACKS.len());
                // A refused connection is no attack: the broker is away, or no ingress answers for
                // it.
                if let Ok(Ok(())) = timeout(LIMIT, self.attack(attack, &mut random)).await {
                    let kind = ATTACKS[attack].to_owned();
                    self.recorder.note(What::Attack { kind });
                }
                let pause = random.random_range(200..1_200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        };
        stop.run_until_cancelled(raging).await;
    }

    async fn attack(&self, attack: usize, random: &mut StdRng) -> io::Result<()> {
        match attack {
            0 => self.forge_messages(random).await,
            1 => self.malform_headers(random).await,
            2 => self.forge_stamp(random).await,
            3 => self.borrow_subject(random).await,
            4 => self.flood().await,
            5 => self.connect_often().await,
            6 => self.trace_at_length().await,
            7 => self.babble(random).await,
            _ => self.subscribe_often().await,
        }
    }

    /// Sends event lines in a message that a client library might deliver to any of its
    /// subscriptions.
    async fn forge_messages(&self, random: &mut StdRng) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.stranger).await?;
        let lines = forged_events();
        let space = WIDE_SPACES[random.random_range(0..WIDE_SPACES.len())];
        // The older an ingress, the higher the numbers of its subscriptions.
        let first = SUBSCRIPTIONS * random.random_range(0..12) + 1;
        for door in self.stranger.doors() {
            for sid in first..first + SUBSCRIPTIONS {
                wire.publish(&format!("{door}x{space}{sid}"), &[], &lines)
                    .await?;
            }
        }
        wire.settle().await
    }

    async fn malform_headers(&self, random: &mut StdRng) -> io::Result<()> {
        let blocks: [&[u8]; 9] = [
            b"NATS/1.0\r\nX: a\rb\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
            b"NATS/1.0\r\n\xc0\xaf: x\r\n\r\n",
            b"NATS/9.9\r\nX: y\r\n\r\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"NATS/1.0 99999999999\r\n\r\n",
            b"NATS/1.0\r\n: empty\r\n\r\n",
            b"NATS/1.0\r\nX:\r\n folded\r\n\r\n",
        ];
        let mut wire = Wire::connect(self.broker, &self.stranger).await?;
        for door in self.stranger.doors() {
            let block = blocks[random.random_range(0..blocks.len())];
            wire.publish(&format!("{door}interactive"), block, b"{}")
                .await?;
        }
        let (subject, payload) = self.stranger.submission(run(), &prompt(random));
        let block = blocks[random.random_range(0..blocks.len())];
        wire.publish(&subject, block, &payload).await?;
        wire.settle().await
    }

    /// Publishes a submission that pretends to come from another key. The ledger shows the key that
    /// it was accepted for.
    async fn forge_stamp(&self, random: &mut StdRng) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.impostor).await?;
        let run = run();
        let (subject, payload) = self.impostor.submission(run, &prompt(random));
        let victim = json!({"acc": "PROGRAMS", "user": self.victim.key, "host": "6.6.6.6"});
        let block = format!(
            "NATS/1.0\r\nX: y\nNats-Request-Info: {victim}\r\nNats-Request-Info: {victim}\r\n\
             Z: zzAB\r\n\r\n"
        );
        // Recorded before it may be accepted.
        self.recorder.note(What::Submitted {
            run,
            key: self.impostor.key,
        });
        wire.publish(&subject, block.as_bytes(), &payload).await?;
        wire.settle().await
    }

    /// Publishes a submission on a subject that only another key of the tenant may use.
    async fn borrow_subject(&self, random: &mut StdRng) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.impostor).await?;
        let run = run();
        let (subject, payload) = self.victim.submission(run, &prompt(random));
        self.recorder.note(What::Submitted {
            run,
            key: self.impostor.key,
        });
        wire.publish(&subject, &[], &payload).await?;
        wire.settle().await
    }

    /// Sends as much as four connections can send at once, within a bound.
    async fn flood(&self) -> io::Result<()> {
        const CONNECTIONS: usize = 4;
        const MESSAGES: usize = 8;

        let mut floods = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (broker, stranger) = (self.broker, self.stranger.clone());
            floods.spawn(async move {
                let mut wire = Wire::connect(broker, &stranger).await?;
                let large = vec![b'x'; LARGE];
                let door = &stranger.doors()[0];
                for _ in 0..MESSAGES {
                    wire.publish(&format!("{door}interactive"), &[], &large)
                        .await?;
                }
                wire.settle().await
            });
        }
        let over = floods.join_all().await;
        // The server closes a connection that sends more than it may.
        over.into_iter().find(Result::is_ok).unwrap_or(Ok(()))
    }

    async fn connect_often(&self) -> io::Result<()> {
        const CONNECTIONS: usize = 60;

        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            match Wire::connect(self.broker, &self.stranger).await {
                Ok(wire) => held.push(wire),
                // The server refuses more connections, as it should.
                Err(_) if !held.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn trace_at_length(&self) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.stranger).await?;
        let trace = "0".repeat(60_000);
        let block = format!("NATS/1.0\r\ntraceparent: {trace}\r\n\r\n");
        let request = json!({"model": "chaos", "input": "nothing"});
        let (subject, payload) = self.stranger.submission(run(), &request);
        wire.publish(&subject, block.as_bytes(), &payload).await?;
        wire.settle().await
    }

    async fn babble(&self, random: &mut StdRng) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.stranger).await?;
        let words: [&[u8]; 5] = [
            b"HPUB jobs.x 99999999999 1\r\n",
            b"PUB jobs.x.y -1\r\n\r\n",
            b"SUB > 1\r\nSUB $SYS.> 2\r\nSUB live.> 3\r\n",
            b"CONNECT {\"auth_token\":1}\r\n",
            b"\0\0\0\0\r\n",
        ];
        for _ in 0..8 {
            wire.say(words[random.random_range(0..words.len())]).await?;
        }
        // The server may close the connection: that is one of the right answers.
        let _closed = wire.settle().await;
        Ok(())
    }

    async fn subscribe_often(&self) -> io::Result<()> {
        let mut wire = Wire::connect(self.broker, &self.stranger).await?;
        for sid in 1..=1_000 {
            let line = format!("SUB live.{}.{} {sid}\r\n", self.stranger.tenant, run());
            wire.say(line.as_bytes()).await?;
        }
        let _closed = wire.settle().await;
        Ok(())
    }
}

fn run() -> RunId {
    RunId::new(SystemClock.now())
}

fn prompt(random: &mut StdRng) -> serde_json::Value {
    let prompt = Prompt {
        id: random.random_range(1 << 40..1 << 50),
        words: 3,
        gap_ms: 5,
        tool_turns: 0,
    };
    json!({"model": "chaos", "input": prompt.text()})
}

/// Returns event lines that withdraw all text, show another text, and end the run.
fn forged_events() -> Vec<u8> {
    let run_id = run();
    let data = [
        EventData::AttemptReset(AttemptReset {
            resume_after: EventId::ORIGIN,
            continues: false,
        }),
        EventData::TextDelta(Text {
            text: FORGED.into(),
        }),
        EventData::RunCompleted(RunCompleted {
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
        }),
    ];
    let mut lines = Vec::new();
    let mut prev = EventId::ORIGIN;
    for (n, data) in (1..).zip(data) {
        let id = EventId::new(7, n);
        let (step, at) = (1, SystemClock.now());
        let event = Event {
            id,
            prev,
            run_id,
            step,
            at,
            data,
        };
        event.encode_into(&mut lines);
        prev = id;
    }
    lines
}

/// A connection to the broker, byte by byte.
struct Wire(BufStream<TcpStream>);

impl Wire {
    async fn connect(broker: SocketAddr, bearer: &Bearer) -> io::Result<Self> {
        let mut wire = Self(BufStream::new(TcpStream::connect(broker).await?));
        let hello = json!({
            "auth_token": bearer.secret, "verbose": false, "pedantic": false, "headers": true,
            "name": "hostile", "lang": "bytes", "version": "0",
        });
        wire.say(format!("CONNECT {hello}\r\n").as_bytes()).await?;
        wire.settle().await?;
        Ok(wire)
    }

    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    async fn publish(&mut self, subject: &str, headers: &[u8], payload: &[u8]) -> io::Result<()> {
        let (head, all) = (headers.len(), headers.len() + payload.len());
        let line = if head == 0 {
            format!("PUB {subject} {all}\r\n")
        } else {
            format!("HPUB {subject} {head} {all}\r\n")
        };
        self.say(line.as_bytes()).await?;
        self.say(headers).await?;
        self.say(payload).await?;
        self.say(b"\r\n").await
    }

    /// Waits until the server has taken all bytes. An error means that it has closed the
    /// connection.
    async fn settle(&mut self) -> io::Result<()> {
        self.say(b"PING\r\n").await?;
        self.0.flush().await?;
        loop {
            let mut line = Vec::new();
            if self.0.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_ascii() {
                b"PONG" => return Ok(()),
                b"PING" => {
                    self.say(b"PONG\r\n").await?;
                    self.0.flush().await?;
                }
                _ => {}
            }
        }
    }
}
