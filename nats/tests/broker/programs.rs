//! Programs with API keys at a server with the delivered configuration: their admission, the
//! subjects they reach, and the closing of their connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use baton_nats::{
    BadQuestion, Bus, CalloutBus, CurveKey, EventFollower, Program, Reach, SealError, SystemBus,
    provision,
};
use baton_protocol::{ApiKeyId, TenantId};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::permissions::{Delivered, Stranger};
use crate::{Writer, options, run, soon, tenant, until};

/// The callout part of an ingress: it admits the keys that it knows.
pub(crate) struct Door {
    pub(crate) delivered: Delivered,
    pub(crate) ingress: Bus,
    known: Arc<Mutex<Vec<(&'static str, Program)>>>,
    seen: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicUsize>,
    _answering: JoinSet<()>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a server writes is real time"
)]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

pub(crate) fn all(tenant: TenantId) -> Reach {
    Reach {
        tenant,
        key: ApiKeyId::from_uuid(Uuid::new_v4()),
        write: true,
        read: true,
        decide: true,
    }
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::open_at(Delivered::start().await, None).await
    }

    async fn open_at(delivered: Delivered, curve: Option<CurveKey>) -> Self {
        let migrate = delivered.connect_as("migrate").await;
        provision(&migrate, &options()).await.unwrap();
        let ingress = delivered.connect_as("ingress").await;
        let callout = CalloutBus::connect(delivered.options("callout"))
            .await
            .unwrap();
        let mut requests = callout.connect_requests(curve).await.unwrap();
        let known: Arc<Mutex<Vec<(&str, Program)>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let refused: Arc<AtomicUsize> = Arc::default();
        let issuer = baton_nats::Issuer::from_seed(&delivered.issuer.seed().unwrap()).unwrap();
        let mut answering = JoinSet::new();
        answering.spawn({
            let (bus, refused) = (callout, Arc::clone(&refused));
            let (known, seen) = (Arc::clone(&known), Arc::clone(&seen));
            async move {
                while let Some(request) = requests.next(now).await {
                    let request = request.unwrap();
                    seen.lock().unwrap().push(request.client.clone());
                    assert!(request.address.unwrap().is_loopback());
                    let token = request.token.clone().unwrap_or_default();
                    let found = known
                        .lock()
                        .unwrap()
                        .iter()
                        .find_map(|(key, program)| (*key == token).then_some(*program));
                    let answered = if let Some(program) = found {
                        bus.admit(&request, &program, &issuer, now()).await
                    } else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        bus.refuse(&request, "unknown key", &issuer, now()).await
                    };
                    answered.unwrap();
                }
            }
        });
        let door = Self {
            delivered,
            ingress,
            known,
            seen,
            refused,
            _answering: answering,
        };
        // The subscription exists once the server asked about a connection.
        until(async || {
            let probe = ConnectOptions::with_token("probe".into());
            let _refused = Box::pin(probe.connect(door.delivered.server.url())).await;
            door.refused.load(Ordering::Relaxed) > 0
        })
        .await;
        door.refused.store(0, Ordering::Relaxed);
        door.seen.lock().unwrap().clear();
        door
    }

    pub(crate) fn know(&self, token: &'static str, reach: Reach, life: Duration) -> Uuid {
        let program = Program {
            reach,
            until: now() + life,
        };
        self.known.lock().unwrap().push((token, program));
        reach.key.as_uuid()
    }

    fn forget(&self, token: &str) {
        self.known.lock().unwrap().retain(|(key, _)| *key != token);
    }

    /// Waits until a connection was refused.
    async fn until_refused(&self) {
        until(async || self.refused.load(Ordering::Relaxed) > 0).await;
    }

    async fn program(&self, token: &str, tenant: TenantId) -> Stranger {
        let inbox = format!("_INBOX_{tenant}");
        let options = ConnectOptions::with_token(token.into()).custom_inbox_prefix(inbox);
        Stranger::connect(options, self.delivered.server.url()).await
    }
}

/// Subscribes as this user of the ingress, with a plain client.
/// Returns a role's client, its subscription, and the server's later error messages to it.
async fn hear(
    door: &Door,
    user: &str,
    subject: &str,
) -> (Client, Subscriber, UnboundedReceiver<String>) {
    let password = door.delivered.accounts.password_of(user);
    let (client, mut errors) = Stranger::connect(
        ConnectOptions::with_user_and_password(user.into(), password),
        door.delivered.server.url(),
    )
    .await
    .into_parts();
    let subscription = client.subscribe(subject.to_owned()).await.unwrap();
    // The server reports the next error only after it has processed the subscription.
    client.publish("nobody.may", "".into()).await.unwrap();
    soon(errors.recv()).await.unwrap();
    (client, subscription, errors)
}

pub(crate) const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_program_reaches_its_tenants_subjects_and_nothing_else() {
    let door = Door::open().await;
    let (mine, other) = (tenant(), tenant());
    let key = door.know("mine", all(mine), HOUR);
    let same_tenant = Uuid::new_v4();
    let mut program = door.program("mine", mine).await;
    assert!(door.seen.lock().unwrap()[0].contains("rust"));
    let run = run();
    program
        .may(
            &[
                &format!("jobs.{mine}.{key}.interactive"),
                &format!("jobs.{mine}.{key}.background"),
                &format!("control.{mine}.{key}.cancel"),
                &format!("control.{mine}.{key}.decide"),
                &format!("history.{mine}.{key}"),
            ],
            &[
                &format!("live.{mine}.{run}"),
                &format!("live.{mine}.*"),
                &format!("replies.{mine}.{run}"),
                &format!("_INBOX_{mine}.x.*"),
                &format!("past.{mine}.*"),
            ],
        )
        .await;
    program
        .may_not(
            &[
                &format!("jobs.{mine}.interactive"),
                &format!("jobs.{other}.{key}.interactive"),
                &format!("jobs.{mine}.{same_tenant}.interactive"),
                &format!("jobs.{mine}.{key}.fast"),
                &format!("jobs.{mine}.{key}.interactive\u{3000}17"),
                &format!("jobs.{mine}.{key}.\u{3000}17"),
                &format!("control.{other}.{key}.cancel"),
                &format!("control.{mine}.{same_tenant}.cancel"),
                &format!("control.{mine}.{key}.own"),
                &format!("control.{mine}.{key}.cancel\u{a0}17"),
                &format!("history.{other}.{key}"),
                &format!("history.{mine}.{same_tenant}"),
                &format!("history.{mine}.{key}\u{2028}17"),
                &format!("history.{mine}.x\u{b}17"),
                &format!("live.{mine}.{run}"),
                &format!("events.{mine}.{run}"),
                &format!("replies.{mine}.{run}"),
                &format!("past.{mine}.{run}"),
                &format!("submit.{mine}.{key}.interactive"),
                &format!("resubmit.{mine}.{key}.interactive"),
                &format!("dead.submit.{mine}.{key}.interactive"),
                &format!("worker.{run}.cancel"),
                &format!("limits.{mine}.{key}"),
                &format!("_INBOX_{mine}.x"),
                "ingress.revoked",
                "workers.hello",
                "_R_.x",
                "$JS.API.INFO",
                "$JS.API.STREAM.LIST",
                "$JS.API.DIRECT.GET.EVENTS",
                "$JS.API.STREAM.MSG.GET.EVENTS",
                "$JS.ACK.JOBS.a",
                "$SYS.REQ.USER.INFO",
                "$SYS.REQ.USER.AUTH",
                "$SYS.REQ.SERVER.PING.CONNZ",
            ],
            &[
                ">",
                "*.*.*",
                "live.>",
                "live.*.*",
                &format!("live.{other}.*"),
                &format!("live.{other}.{run}"),
                "replies.*.*",
                &format!("replies.{other}.*"),
                "past.*.*",
                &format!("past.{other}.*"),
                "_INBOX.>",
                "_INBOX_*.>",
                &format!("_INBOX_{other}.>"),
                "_INBOX_ingress.>",
                &format!("events.{mine}.*"),
                &format!("jobs.{mine}.*"),
                "_R_.>",
                "$SYS.>",
                "$SYS.REQ.USER.AUTH",
                "$JS.>",
            ],
        )
        .await;
}

#[tokio::test]
async fn a_key_without_a_scope_does_not_reach_what_the_scope_is_for() {
    let door = Door::open().await;
    let (mine, run) = (tenant(), run());
    let key = ApiKeyId::from_uuid(Uuid::new_v4());
    let none = Reach {
        tenant: mine,
        key,
        write: false,
        read: false,
        decide: false,
    };
    let jobs = format!("jobs.{mine}.{key}.background");
    let cancel = format!("control.{mine}.{key}.cancel");
    let decide = format!("control.{mine}.{key}.decide");
    let history = format!("history.{mine}.{key}");
    let live = format!("live.{mine}.*");
    let replies = format!("replies.{mine}.{run}");
    let past = format!("past.{mine}.{run}");
    let inbox = format!("_INBOX_{mine}.>");
    for (token, reach, may, may_not, may_hear, may_not_hear) in [
        (
            "writer",
            Reach {
                write: true,
                ..none
            },
            vec![&*jobs, &cancel],
            vec![&*decide, &history],
            vec![&*replies, &inbox],
            vec![&*live, &past],
        ),
        (
            "reader",
            Reach { read: true, ..none },
            vec![&history],
            vec![&jobs, &cancel, &decide],
            vec![&replies, &live, &past, &inbox],
            vec![],
        ),
        (
            "approver",
            Reach {
                decide: true,
                ..none
            },
            vec![&decide],
            vec![&jobs, &cancel, &history],
            vec![&replies, &inbox],
            vec![&live, &past],
        ),
        (
            "nobody",
            none,
            vec![],
            vec![&jobs, &cancel, &decide, &history],
            vec![],
            vec![&replies, &live, &past, &inbox],
        ),
    ] {
        door.know(token, reach, HOUR);
        let mut program = door.program(token, mine).await;
        program.may(&may, &may_hear).await;
        program.may_not(&may_not, &may_not_hear).await;
    }
}

/// Guards the proof of a message's publisher: the ingress sees the subject that the program was
/// allowed to publish to, and never its headers.
#[tokio::test]
async fn an_ingress_hears_a_message_under_the_subject_of_its_key_and_without_its_headers() {
    let door = Door::open().await;
    let mine = tenant();
    let key = door.know("mine", all(mine), HOUR);
    let (_ingress, mut submitted, _) = hear(&door, "programs", "submit.*.*.*").await;
    let program = door.program("mine", mine).await.client;
    let mut headers = async_nats::HeaderMap::new();
    let forged = r#"{"acc":"PROGRAMS","user":"somebody else"}"#;
    headers.insert("Nats-Request-Info", forged);
    program
        .publish_with_headers(
            format!("jobs.{mine}.{key}.background"),
            headers,
            "job".into(),
        )
        .await
        .unwrap();
    let heard = soon(submitted.next()).await.unwrap();
    assert_eq!(
        heard.subject.as_str(),
        format!("submit.{mine}.{key}.background")
    );
    assert_eq!(heard.payload, "job");
}

/// A program chooses the reply subject, and the broker does not check whether it may publish there.
/// So the user that reads programs' messages may not publish at all, and the ingress's user not
/// there.
#[tokio::test]
async fn an_ingress_cannot_be_led_to_write_where_a_program_may_not() {
    let door = Door::open().await;
    let (mine, other) = (tenant(), tenant());
    let key = door.know("mine", all(mine), HOUR);
    door.know("other", all(other), HOUR);
    let (hearing, mut asked, mut to_hearing) = hear(&door, "programs", "history.*.*").await;
    let (answering, _, mut to_answering) = hear(&door, "ingress", "ingress.attached").await;
    let program = door.program("mine", mine).await.client;
    let mut victim = door.program("other", other).await;
    let replies = format!("replies.{other}.*");
    let mut heard = victim.client.subscribe(replies).await.unwrap();
    victim.may(&[], &[]).await;
    let history = format!("history.{mine}.{key}");
    let (run, theirs) = (run(), format!("replies.{other}.{}", run()));
    program
        .publish_with_reply(history, theirs, "".into())
        .await
        .unwrap();
    let reply = soon(asked.next()).await.unwrap().reply.unwrap();
    for (client, errors) in [(&hearing, &mut to_hearing), (&answering, &mut to_answering)] {
        client.publish(reply.clone(), "led".into()).await.unwrap();
        let refused = soon(errors.recv()).await.unwrap();
        assert!(refused.contains("permissions violation"), "{refused}");
    }
    let honest = format!("replies.{other}.{run}");
    answering.publish(honest, "honest".into()).await.unwrap();
    assert_eq!(soon(heard.next()).await.unwrap().payload, "honest");
}

#[tokio::test]
async fn a_program_follows_the_runs_of_its_tenant() {
    let door = Door::open().await;
    let (mine, other) = (tenant(), tenant());
    let key = door.know("mine", all(mine), HOUR);
    let program = door.program("mine", mine).await.client;
    let mut live = program.subscribe(format!("live.{mine}.*")).await.unwrap();
    let mut replies = program
        .subscribe(format!("replies.{mine}.*"))
        .await
        .unwrap();
    // The server would answer a refused publish only after it had processed the subscriptions.
    let asked = program.request(format!("history.{mine}.{key}"), "".into());
    assert!(asked.await.is_err(), "nobody answers");
    let run = run();
    let worker = door.delivered.connect_as("worker").await;
    Writer::new(&worker, other, self::run()).texts(1).await;
    let _ingress_follows = EventFollower::subscribe(&door.ingress, mine, run, crate::any_attempt())
        .await
        .unwrap();
    Writer::new(&worker, mine, run).texts(1).await;
    let heard = soon(live.next()).await.unwrap();
    assert_eq!(heard.subject.as_str(), format!("live.{mine}.{run}"));
    let headers = heard.headers.unwrap();
    assert!(headers.get("Nats-Sequence").is_some());
    let (ingress, ..) = hear(&door, "ingress", "live.*.*").await;
    for tenant in [other, mine] {
        let subject = format!("replies.{tenant}.{run}");
        ingress.publish(subject, "reply".into()).await.unwrap();
    }
    let heard = soon(replies.next()).await.unwrap();
    assert_eq!(heard.subject.as_str(), format!("replies.{mine}.{run}"));
}

#[tokio::test]
async fn a_key_that_nobody_knows_opens_nothing_and_neither_does_anothers_answer() {
    let door = Door::open().await;
    let url = door.delivered.server.url();
    let unknown = ConnectOptions::with_token("unknown".into()).connect(url);
    assert!(soon(unknown).await.is_err());
    assert!(soon(async_nats::connect(url)).await.is_err(), "no token");
    // Role passwords open no account of programs, and keys open none of the roles.
    let mine = tenant();
    door.know("mine", all(mine), HOUR);
    let both = ConnectOptions::with_user_and_password("ingress".into(), "mine".into());
    assert!(soon(both.connect(url)).await.is_err());
}

#[tokio::test]
async fn a_session_ends_with_its_time() {
    let door = Door::open().await;
    let mine = tenant();
    door.know("short", all(mine), Duration::from_secs(2));
    let mut program = door.program("short", mine).await;
    door.forget("short");
    program.until_disconnected().await;
    door.until_refused().await;
}

#[tokio::test]
async fn the_connections_of_a_key_are_closed_and_no_others() {
    let door = Door::open().await;
    let mine = tenant();
    let key = door.know("mine", all(mine), HOUR);
    let others = door.know("other", all(mine), HOUR);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(door.program("mine", mine).await);
    }
    let other = door.program("other", mine).await.client;
    door.forget("mine");
    let system = SystemBus::connect(door.delivered.options("system"))
        .await
        .unwrap();
    let closed = soon(async {
        loop {
            // It connects in the background.
            if let Ok(closed) = system.close_connections(key).await {
                return closed;
            }
        }
    });
    assert_eq!(closed.await.connections, 2);
    for program in &mut open {
        program.until_disconnected().await;
    }
    door.until_refused().await;
    let again = system.close_connections(key).await.unwrap();
    assert_eq!(again.connections, 0);
    assert_eq!(
        other
            .statistics()
            .connects
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    let asked = other
        .request(format!("history.{mine}.{others}"), "".into())
        .await;
    assert_eq!(
        asked.unwrap_err().kind(),
        async_nats::RequestErrorKind::NoResponders,
        "it is connected as ever"
    );
}

/// Returns the bytes that a subscriber in the account sees of a connecting program.
async fn overheard(door: &Door) -> Vec<u8> {
    let (_client, mut questions, _) = hear(door, "callout", "$SYS.REQ.USER.AUTH").await;
    let mine = tenant();
    door.know("very-secret-key", all(mine), HOUR);
    let mut program = door.program("very-secret-key", mine).await;
    program.may(&[], &[&format!("live.{mine}.*")]).await;
    soon(questions.next()).await.unwrap().payload.to_vec()
}

#[tokio::test]
async fn with_a_curve_key_nobody_but_ingresses_reads_the_keys_of_programs() {
    let token = |question: &[u8]| {
        let claims = question.split(|byte| *byte == b'.').nth(1)?;
        let claims = data_encoding::BASE64URL_NOPAD.decode(claims).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
        Some(claims["nats"]["connect_opts"]["auth_token"].to_string())
    };
    let open = overheard(&Door::open().await).await;
    assert_eq!(token(&open).as_deref(), Some("\"very-secret-key\""));

    let curve = CurveKey::generate();
    let sealing = Delivered::start_sealing(&curve).await;
    let door = Door::open_at(sealing, Some(curve)).await;
    let sealed = overheard(&door).await;
    assert!(sealed.starts_with(b"xkv1"));
    assert_eq!(token(&sealed), None);
    let url = door.delivered.server.url();
    let unknown = ConnectOptions::with_token("unknown".into()).connect(url);
    assert!(soon(unknown).await.is_err());
    door.until_refused().await;
}

#[tokio::test]
async fn a_question_that_is_not_sealed_as_it_should_be_lets_nobody_in() {
    let (curve, other) = (CurveKey::generate(), CurveKey::generate());
    for (delivered, own, why) in [
        (Delivered::start().await, Some(curve.clone()), "Open"),
        (Delivered::start_sealing(&curve).await, None, "Sealed"),
        (
            Delivered::start_sealing(&curve).await,
            Some(other),
            "Unsealable",
        ),
    ] {
        let callout = CalloutBus::connect(delivered.options("callout"))
            .await
            .unwrap();
        let mut requests = callout.connect_requests(own).await.unwrap();
        // The server asks nobody until the subscription exists.
        let connecting = async {
            loop {
                let program = ConnectOptions::with_token("key".into());
                let connected = Box::pin(program.connect(delivered.server.url())).await;
                assert!(connected.is_err(), "{why}");
            }
        };
        let asked = tokio::select! {
            asked = soon(requests.next(now)) => asked,
            () = connecting => None,
        };
        let refused = asked.unwrap().unwrap_err();
        let matched = match &refused {
            BadQuestion::Seal(SealError::Open) => "Open",
            BadQuestion::Seal(SealError::Sealed) => "Sealed",
            BadQuestion::Seal(SealError::Unsealable(_)) => "Unsealable",
            _ => "another",
        };
        assert_eq!(matched, why, "{refused}");
    }
}

/// Opens a connection that stays idle.
async fn sit(door: &Door, token: &str) -> BufStream<TcpStream> {
    let port = door.delivered.server.port();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = BufStream::new(stream);
    let hello = serde_json::json!({"auth_token": token, "verbose": false});
    let frames = format!("CONNECT {hello}\r\nPING\r\n");
    stream.write_all(frames.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "let in");
    }
    stream
}

#[tokio::test]
async fn more_connections_of_a_key_than_a_server_names_at_a_time_are_all_closed() {
    let door = Door::open().await;
    let mine = tenant();
    let key = door.know("mine", all(mine), HOUR);
    door.know("other", all(mine), HOUR);
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(sit(&door, "mine").await);
    }
    let mut other = sit(&door, "other").await;
    door.forget("mine");
    let system = SystemBus::connect(door.delivered.options("system"))
        .await
        .unwrap()
        .with_page(3);
    let closed = soon(async {
        loop {
            // It connects in the background.
            if let Ok(closed) = system.close_connections(key).await {
                return closed;
            }
        }
    });
    assert_eq!(closed.await.connections, 10);
    for stream in &mut open {
        let mut rest = Vec::new();
        // The connection may end in either way.
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    other.write_all(b"PING\r\n").await.unwrap();
    other.flush().await.unwrap();
    let mut line = String::new();
    soon(other.read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("PONG"), "another key's is open: {line}");

    // The server lists as many at a time as the request says.
    let password = door.delivered.accounts.password_of("system");
    let client = ConnectOptions::with_user_and_password("system".into(), password)
        .custom_inbox_prefix("_INBOX_system")
        .connect(door.delivered.server.url())
        .await
        .unwrap();
    let question = serde_json::json!({"limit": SystemBus::PAGE}).to_string();
    let subject = "$SYS.REQ.SERVER.PING.CONNZ";
    let answer = soon(client.request(subject, question.into())).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert_eq!(answer["data"]["limit"], SystemBus::PAGE);
}

/// Guards the limits of one connection: a larger message ends it, many smaller ones do not, and a
/// subscription beyond the limit is refused.
#[tokio::test]
async fn a_connection_has_limits_of_its_own() {
    let door = Door::open().await;
    let mine = tenant();
    let key = door.know("mine", all(mine), HOUR);
    let mut program = door.program("mine", mine).await;
    let history = format!("history.{mine}.{key}");
    let largest = bytes::Bytes::from(vec![b'x'; 256 << 10]);
    for _ in 0..8 {
        let published = program.client.publish(history.clone(), largest.clone());
        published.await.unwrap();
    }
    program.may(&[], &[]).await;
    let mut held = Vec::new();
    for _ in 0..128 {
        let live = format!("live.{mine}.{}", run());
        held.push(program.client.subscribe(live).await.unwrap());
    }
    program.may(&[], &[]).await;
    let one_more = program.client.subscribe(format!("live.{mine}.*")).await;
    let _refused = one_more.unwrap();
    let refused = program.next_error().await;
    assert!(refused.contains("maximum subscriptions"), "{refused}");

    let mut stream = sit(&door, "mine").await;
    let size = (256 << 10) + 1;
    let head = format!("PUB {history} {size}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut said = Vec::new();
    // The connection may end in either way.
    let _ = soon(stream.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said).to_lowercase();
    assert!(said.contains("maximum payload"), "{said}");
}
