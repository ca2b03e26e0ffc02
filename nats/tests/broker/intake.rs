//! The connection for programs' messages at a real server: encrypted, lost and made again, full of
//! a stranger's bytes, and stopped.

use std::sync::{Arc, Mutex};

use baton_nats::{EventFollower, Heard, Intake, IntakeEvent, IntakeOptions, Tls};
use baton_protocol::{ApiKeyId, RunId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::permissions::Delivered;
use crate::programs::{Door, HOUR, all};
use crate::tls::{Authority, install_crypto};
use crate::{Writer, follow_to, id, ids, run, soon, tenant, until};

/// An intake with its observed events.
struct Ear {
    intake: Intake,
    heard: Heard,
    seen: Arc<Mutex<Vec<IntakeEvent>>>,
    tasks: JoinSet<()>,
}

impl Ear {
    fn open(options: IntakeOptions) -> Self {
        let seen: Arc<Mutex<Vec<IntakeEvent>>> = Arc::default();
        let observe = {
            let seen = Arc::clone(&seen);
            Arc::new(move |event| seen.lock().unwrap().push(event))
        };
        let (intake, heard, task) = Intake::open(options, observe).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        Self {
            intake,
            heard,
            seen,
            tasks,
        }
    }

    async fn until_connected(&self) {
        let mut connected = self.intake.connected();
        soon(connected.wait_for(|connected| *connected))
            .await
            .unwrap();
    }

    async fn until_lost(&self) {
        let mut connected = self.intake.connected();
        soon(connected.wait_for(|connected| !*connected))
            .await
            .unwrap();
    }

    fn saw(&self, event: IntakeEvent) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|one| **one == event).count()
    }
}

fn as_programs(delivered: &Delivered, tls: Tls) -> IntakeOptions {
    let password = delivered.accounts.password_of("programs");
    IntakeOptions {
        login: Some(("programs".to_owned(), password)),
        tls,
        ..IntakeOptions::new(delivered.server.url(), "programs")
    }
}

/// Publishes a submission on its subject in the account of the roles, as a user who may do
/// everything there. Returns once the server has routed it.
async fn submit(url: &str, run: RunId) -> (String, ApiKeyId) {
    let (tenant, key) = (tenant(), ApiKeyId::from_uuid(Uuid::new_v4()));
    let client = async_nats::connect(url).await.unwrap();
    let subject = format!("submit.{tenant}.{key}.background");
    let payload = run.to_string();
    client.publish(subject, payload.into()).await.unwrap();
    // The server reads a connection in order, so its answer proves that it has read the publish. A
    // flush waits for the socket only.
    let unheard = client.request("nobody.listens", "".into()).await;
    assert!(unheard.is_err(), "nobody answers");
    (tenant.to_string(), key)
}

#[tokio::test]
async fn the_reader_encrypts_as_the_main_connection_does() {
    install_crypto();
    let (right, wrong) = (Authority::new(), Authority::new());
    let delivered = Delivered::start_with(&right.block(true)).await;
    Ear::open(as_programs(&delivered, right.with_certificate()))
        .until_connected()
        .await;
    for tls in [right.trusted(), wrong.with_certificate(), Tls::default()] {
        let ear = Ear::open(as_programs(&delivered, tls));
        until(async || ear.saw(IntakeEvent::Lost) >= 2).await;
        assert_eq!(ear.saw(IntakeEvent::Connected), 0);
    }
    // If encryption is required, nothing is sent to a server without it.
    let plain = Delivered::start().await;
    let ear = Ear::open(as_programs(&plain, right.trusted()));
    until(async || ear.saw(IntakeEvent::Lost) >= 2).await;
    assert_eq!(ear.saw(IntakeEvent::Connected), 0);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_another_address_is_tried() {
    let mut server = baton_devstack::test_support::test_nats().await.unwrap();
    let url = format!("nats://127.0.0.1:1, {}", server.url());
    let mut ear = Ear::open(IntakeOptions::new(url, "programs"));
    ear.until_connected().await;
    server.kill().await;
    ear.until_lost().await;
    server.restart().await.unwrap();
    ear.until_connected().await;
    let run = run();
    let (tenant, key) = submit(server.url(), run).await;
    let heard = soon(ear.heard.submissions.next()).await.unwrap();
    assert_eq!((heard.tenant.to_string(), heard.key), (tenant, key));
    assert_eq!(heard.payload, run.to_string());
    assert!(ear.saw(IntakeEvent::Connected) >= 2 && ear.saw(IntakeEvent::Lost) >= 1);
}

/// Guards the end of an ingress: messages that the server had delivered before are still to be
/// read.
#[tokio::test]
async fn a_stopped_reader_ends_after_what_it_was_handed() {
    let server = baton_devstack::test_support::test_nats().await.unwrap();
    let mut ear = Ear::open(IntakeOptions::new(server.url(), "programs"));
    ear.until_connected().await;
    let runs = [run(), run()];
    for run in runs {
        submit(server.url(), run).await;
    }
    let first = soon(ear.heard.submissions.next()).await.unwrap();
    ear.intake.stop();
    let second = soon(ear.heard.submissions.next()).await.unwrap();
    assert_eq!(first.payload, runs[0].to_string());
    assert_eq!(second.payload, runs[1].to_string());
    assert!(soon(ear.heard.submissions.next()).await.is_none());
    assert!(soon(ear.heard.controls.next()).await.is_none());
    soon(ear.tasks.join_next()).await.unwrap().unwrap();
}

/// A program that writes raw protocol lines.
struct Hand(BufStream<TcpStream>);

impl Hand {
    async fn connect(port: u16, token: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut hand = Self(BufStream::new(stream));
        let hello = serde_json::json!({"auth_token": token, "verbose": false, "headers": true});
        hand.0
            .write_all(format!("CONNECT {hello}\r\n").as_bytes())
            .await
            .unwrap();
        hand.settle().await;
        hand
    }

    async fn say(&mut self, parts: &[&[u8]]) {
        for part in parts {
            // The server may have closed the connection, which is also correct.
            let _closed = self.0.write_all(part).await;
        }
    }

    async fn settle(&mut self) {
        self.say(&[b"PING\r\n"]).await;
        let _closed = self.0.flush().await;
        let mut line = Vec::new();
        while !line.starts_with(b"PONG") {
            line.clear();
            let read = soon(self.0.read_until(b'\n', &mut line)).await;
            if read.unwrap_or(0) == 0 {
                return;
            }
        }
    }
}

/// Tokens without the bytes that separate tokens for the server, each with a header block.
fn strange() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let odd = prop::sample::select(vec![
        "\u{3000}17",
        "\u{a0}3",
        "\u{2028}1",
        "\u{b}2",
        "\u{c}9",
        "\u{85}5",
        "x\u{3000}2 ",
        ".",
        "*",
    ]);
    let token = prop_oneof![
        odd.prop_map(|odd| odd.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..40),
    ]
    .prop_map(|token| {
        let parts = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        token.into_iter().filter(parts).collect::<Vec<u8>>()
    });
    let block = prop_oneof![
        Just(b"NATS/1.0\r\nX: a\rb\r\n\r\n".to_vec()),
        Just(b"NATS/1.0\r\nNats-Request-Info: {}\r\nZ: zzAB".to_vec()),
        prop::collection::vec(any::<u8>(), 1..60),
    ];
    prop::collection::vec((token, block), 1..12)
}

/// Guards the whole intake: with any bytes as the last token, any header block and many publishers,
/// the runs of two tenants are followed completely and nothing crosses over.
#[test]
fn whatever_programs_send_two_tenants_streams_are_whole_and_the_reader_stays() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (door, ear, keys, ingress) = runtime.block_on(async {
        let door = Box::pin(Door::open()).await;
        let ear = Ear::open(as_programs(&door.delivered, Tls::default()));
        ear.until_connected().await;
        let keys = ["one", "two", "three", "four"].map(|token| {
            let mine = tenant();
            (token, mine, door.know(token, all(mine), HOUR))
        });
        let ingress = door.delivered.connect_as("ingress").await;
        (door, ear, keys, ingress)
    });
    let ear = tokio::sync::Mutex::new(ear);
    let config = ProptestConfig::with_cases(24);
    let mut runner = TestRunner::new(config);
    let told = runner.run(&strange(), |messages| {
        runtime.block_on(async {
            let port = door.delivered.server.port();
            let worker = door.delivered.connect_as("worker").await;
            let mut streams = Vec::new();
            for (_, tenant, _) in &keys[..2] {
                let run = run();
                let attempts = crate::any_attempt();
                let subscribed = EventFollower::subscribe(&ingress, *tenant, run, attempts)
                    .await
                    .unwrap();
                let follower = subscribed.from_start_of_new_run();
                streams.push((Writer::new(&worker, *tenant, run), follower));
            }
            let floods = keys.iter().map(|(token, mine, key)| {
                let messages = &messages;
                async move {
                    let mut hand = Hand::connect(port, token).await;
                    for (last, block) in messages {
                        for first in [
                            format!("jobs.{mine}.{key}."),
                            format!("control.{mine}.{key}."),
                            format!("history.{mine}."),
                        ] {
                            let line = [first.as_bytes(), last].concat();
                            hand.say(&[b"PUB ", &line, b" 2\r\nhi\r\n"]).await;
                        }
                        let open = format!("history.{mine}.{key}");
                        let (head, size) = (block.len(), block.len() + 2);
                        let line = format!("HPUB {open} {head} {size}\r\n");
                        hand.say(&[line.as_bytes(), block, b"hi\r\n"]).await;
                    }
                    hand.settle().await;
                }
            });
            let talk = async {
                for (writer, _) in &mut streams {
                    writer.texts(3).await;
                    writer.finish().await;
                }
            };
            tokio::join!(futures_util::future::join_all(floods), talk);
            for (_, follower) in &mut streams {
                assert_eq!(follow_to(follower, id(1, 4)).await, ids(1, 4));
            }
            // Every message on a valid subject came under the key that sent it, and no other did.
            let mut ear = ear.lock().await;
            for _ in 0..keys.len() * messages.len() {
                let question = soon(ear.heard.questions.next()).await.unwrap();
                let sender = (question.tenant, question.key.as_uuid());
                assert!(
                    keys.iter()
                        .any(|(_, tenant, key)| (*tenant, *key) == sender)
                );
            }
        });
        Ok(())
    });
    told.unwrap();
    let ear = ear.into_inner();
    assert_eq!(ear.saw(IntakeEvent::Connected), 1, "it was never lost");
    assert_eq!(ear.saw(IntakeEvent::Lost), 0);
    assert_eq!(ear.saw(IntakeEvent::Stray), 0);
    assert_eq!(ingress.link().borrow().down, 0);
}
