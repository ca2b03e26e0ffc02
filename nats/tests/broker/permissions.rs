//! The delivered `nats.conf`: a server accepts it, and under it each role can do its work and
//! nothing else.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use baton_devstack::test_support::test_nats_options;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer};
use baton_nats::accounts::inbox_prefix;
use baton_nats::{
    AccountsConf, Auth, Bus, BusOptions, CurveKey, EventFollower, Issuer, JobHeaders, JobSource,
    Limited, Nudge, Presence, StreamSeq, provision, restore_missing,
};
use baton_protocol::{
    EventId, Job, Lane, LogLevelAnswer, LogLevelChange, ToolsAnswer, ToolsQuestion, WorkerId,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{Writer, completed, follow_to, id, ids, options, payload, run, soon, tenant, until};

/// A server with the delivered configuration.
pub(crate) struct Delivered {
    pub(crate) server: NatsServer,
    pub(crate) accounts: AccountsConf,
    pub(crate) issuer: Issuer,
    _folder: TempDir,
}

impl Delivered {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts with `extra` before everything else in the file.
    pub(crate) async fn start_with(extra: &str) -> Self {
        Self::start_as(extra, None).await
    }

    /// Starts with sealed questions.
    pub(crate) async fn start_sealing(curve: &CurveKey) -> Self {
        Self::start_as("", Some(curve.public_key())).await
    }

    async fn start_as(extra: &str, xkey: Option<String>) -> Self {
        let issuer = Issuer::generate();
        let accounts = AccountsConf {
            issuer: issuer.public_key(),
            xkey,
            password: "secret".into(),
            unlimited: Vec::new(),
        };
        // The test chooses the store by arguments instead.
        let server = include_str!("../../nats.conf").replace("  store_dir: /data\n", "");
        let folder = readable_folder();
        let path = folder.path().join("nats.conf");
        std::fs::write(&path, format!("{extra}\n{server}")).unwrap();
        std::fs::write(folder.path().join("accounts.conf"), accounts.text()).unwrap();
        let server = NatsServer::start(NatsOptions {
            config: NatsConfig::File(path),
            ..test_nats_options().await.unwrap()
        })
        .await
        .unwrap();
        Self {
            server,
            accounts,
            issuer,
            _folder: folder,
        }
    }

    fn auth(&self, user: &str) -> Auth {
        Auth::UserPassword {
            user: user.into(),
            password: self.accounts.password_of(user),
        }
    }

    pub(crate) fn options(&self, user: &str) -> BusOptions {
        BusOptions {
            auth: self.auth(user),
            inbox_prefix: Some(inbox_prefix(user)),
            ..BusOptions::new(self.server.url(), user)
        }
    }

    pub(crate) async fn connect_as(&self, user: &str) -> Bus {
        Bus::connect(self.options(user)).await.unwrap()
    }

    /// Connects a plain client with a role's password.
    async fn stranger_as(&self, user: &str) -> Stranger {
        let password = self.accounts.password_of(user);
        let options = ConnectOptions::with_user_and_password(user.into(), password);
        Stranger::connect(options, self.server.url()).await
    }
}

/// Makes a folder that the server's account can read.
pub(crate) fn readable_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).unwrap();
    folder
}

/// A plain client, and the server's error messages to it.
pub(crate) struct Stranger {
    pub(crate) client: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

/// The event of a lost connection.
const DISCONNECTED: &str = "disconnected";
/// A subject that every user is refused.
const SENTINEL: &str = "nobody.may.publish.this";

impl Stranger {
    pub(crate) async fn connect(options: ConnectOptions, url: &str) -> Self {
        let (sender, errors) = mpsc::unbounded_channel();
        let client = options
            .event_callback(move |event| {
                let said = match event {
                    Event::ServerError(error) => error.to_string().to_lowercase(),
                    Event::Disconnected => DISCONNECTED.to_owned(),
                    _ => String::new(),
                };
                if !said.is_empty() {
                    let _closed = sender.send(said);
                }
                std::future::ready(())
            })
            .connect(url)
            .await
            .unwrap();
        Self { client, errors }
    }

    /// Returns the client, and the server's error messages to it.
    pub(crate) fn into_parts(self) -> (Client, mpsc::UnboundedReceiver<String>) {
        (self.client, self.errors)
    }

    pub(crate) async fn next_error(&mut self) -> String {
        soon(self.errors.recv()).await.unwrap()
    }

    pub(crate) async fn until_disconnected(&mut self) {
        while self.next_error().await != DISCONNECTED {}
    }

    /// Checks that each of these is refused.
    pub(crate) async fn may_not(&mut self, publish: &[&str], subscribe: &[&str]) {
        for subject in publish {
            let subject = (*subject).to_owned();
            self.client
                .publish(subject.clone(), "x".into())
                .await
                .unwrap();
            let refused = self.next_error().await;
            // The server escapes invisible characters in its own way.
            let visible = subject
                .split(|c: char| !c.is_ascii_graphic())
                .next()
                .unwrap();
            let end = if visible.len() == subject.len() {
                "\""
            } else {
                "\\"
            };
            let expected = format!("publish to \"{}{end}", visible.to_lowercase());
            assert!(refused.contains(&expected), "{subject}: {refused}");
        }
        for subject in subscribe {
            let subject = (*subject).to_owned();
            let _subscription = self.client.subscribe(subject.clone()).await.unwrap();
            let refused = self.next_error().await;
            let expected = format!("subscription to \"{}\"", subject.to_lowercase());
            assert!(refused.contains(&expected), "{subject}: {refused}");
        }
    }

    /// Checks that none of these is refused: the server's next error is about the subject after
    /// them.
    pub(crate) async fn may(&mut self, publish: &[&str], subscribe: &[&str]) {
        for subject in publish {
            let subject = (*subject).to_owned();
            self.client.publish(subject, "x".into()).await.unwrap();
        }
        for subject in subscribe {
            let subject = (*subject).to_owned();
            let _subscription = self.client.subscribe(subject).await.unwrap();
        }
        self.may_not(&[SENTINEL], &[]).await;
    }
}

#[tokio::test]
async fn each_role_can_do_its_work_with_the_permissions_of_the_delivered_configuration() {
    let delivered = Delivered::start().await;
    let migrate = delivered.connect_as("migrate").await;
    let ingress = delivered.connect_as("ingress").await;
    let worker = delivered.connect_as("worker").await;
    let scheduler = delivered.connect_as("scheduler").await;
    let operator = delivered.connect_as("operator").await;
    for bus in [&migrate, &ingress, &worker, &scheduler, &operator] {
        bus.ping().await.unwrap();
    }
    assert_eq!(provision(&migrate, &options()).await.unwrap().len(), 6);
    assert_eq!(restore_missing(&scheduler, &options()).await.unwrap(), []);

    let (tenant, run) = (tenant(), run());
    let subscribed = EventFollower::subscribe(&ingress, tenant, run, crate::any_attempt())
        .await
        .unwrap();
    let mut follower = subscribed.from_start_of_new_run();
    let mut source = JobSource::open(&worker, Lane::Interactive).await.unwrap();
    for publisher in [&ingress, &scheduler, &worker] {
        let job = Job::Run { run_id: run };
        let headers = JobHeaders::default();
        publisher
            .publish_job(tenant, Lane::Interactive, &job, &headers)
            .await
            .unwrap();
        let jobs = soon(source.pull(1, Duration::from_secs(5))).await.unwrap();
        worker.quarantine(&jobs[0], "for the test").await.unwrap();
        jobs[0]
            .in_progress_handle()
            .in_progress_confirmed()
            .await
            .unwrap();
        jobs[0].ack_confirmed().await.unwrap();
    }
    scheduler.job_backlog(Lane::Interactive).await.unwrap();
    let publisher = delivered.stranger_as("ingress").await.client;
    let nowhere = format!("jobs.{tenant}.nowhere");
    publisher.publish(nowhere, "x".into()).await.unwrap();
    until(async || scheduler.stranded_jobs(1).await.unwrap().jobs.len() == 1).await;
    let stranded = scheduler.stranded_jobs(1).await.unwrap().jobs;
    scheduler.quarantine_stranded(&stranded[0]).await.unwrap();
    for reader in [&scheduler, &operator] {
        assert!(reader.dead_letters().await.unwrap() > 1);
        assert!(reader.dead_letter(1).await.unwrap().is_some());
    }

    let mut writer = Writer::new(&worker, tenant, run);
    writer.texts(2).await;
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(1, 3)).await, ids(1, 3));
    assert_eq!(worker.count_events(tenant, run).await.unwrap(), 2);
    assert_eq!(worker.count_events(tenant, self::run()).await.unwrap(), 0);
    assert!(scheduler.events_state().await.unwrap().last_seq >= 2);
    let again = EventFollower::subscribe(&ingress, tenant, run, crate::any_attempt())
        .await
        .unwrap();
    let mut again = again.resume(id(1, 1)).await.unwrap();
    assert_eq!(follow_to(&mut again, id(1, 3)).await, ids(1, 3)[1..]);
    for ender in [&ingress, &scheduler] {
        let run = self::run();
        assert!(ender.event_tip(tenant, run).await.unwrap().is_none());
        let terminal = payload(&[completed(run, id(1, 1), EventId::ORIGIN)]);
        ender
            .append_events(tenant, run, StreamSeq::NONE, terminal)
            .await
            .unwrap();
    }

    let caller = Limited::Caller {
        tenant,
        caller: Uuid::new_v4(),
    };
    let keep = Duration::from_mins(1);
    let stored = ingress
        .replace_rate_log(caller, StreamSeq::NONE, keep, "{}".into())
        .await
        .unwrap();
    assert_eq!(ingress.rate_log(caller).await.unwrap().unwrap().seq, stored);

    let me = WorkerId::from_uuid(Uuid::new_v4());
    let mut nudges = worker.worker_nudges(me).await.unwrap();
    worker.ping().await.unwrap();
    ingress.nudge_worker(me, tenant, run).await.unwrap();
    assert_eq!(
        soon(nudges.next()).await,
        Some(Nudge::Cancel { tenant, run })
    );

    let mut hellos = scheduler.hellos().await.unwrap();
    scheduler.ping().await.unwrap();
    worker.say_hello(me).await.unwrap();
    assert_eq!(soon(hellos.next()).await, Some(me));
    let patience = Duration::from_secs(20);
    let asked = scheduler.ask_worker(me, Uuid::new_v4(), patience);
    let (presence, ()) = tokio::join!(asked, async {
        let Some(Nudge::AreYouThere(question)) = soon(nudges.next()).await else {
            panic!("not asked")
        };
        worker.say_here(question).await.unwrap();
    });
    assert_eq!(presence, Presence::Here);

    for (name, role) in [
        ("ingress", &ingress),
        ("worker", &worker),
        ("scheduler", &scheduler),
    ] {
        let mut changes = role.log_level_changes(name).await.unwrap();
        role.ping().await.unwrap();
        let change = LogLevelChange {
            filter: "debug".to_owned(),
            for_seconds: Some(600),
        };
        let answer = LogLevelAnswer {
            role: name.to_owned(),
            admin: "127.0.0.1:9465".to_owned(),
            filter: "debug".to_owned(),
            error: None,
        };
        let asked = operator.change_log_level(name, &change, Duration::from_secs(2));
        let (answers, ()) = tokio::join!(asked, async {
            let request = soon(changes.next()).await.unwrap();
            assert_eq!(request.change, change);
            role.answer_log_level(request, &answer).await.unwrap();
        });
        assert_eq!(answers.unwrap(), [answer]);
    }

    let mut questions = worker.tool_questions().await.unwrap();
    worker.ping().await.unwrap();
    let question = ToolsQuestion {
        names: vec!["calculator".to_owned()],
    };
    let answer = ToolsAnswer {
        left_out: question.names.clone(),
        ..ToolsAnswer::default()
    };
    let (described, ()) = tokio::join!(ingress.describe_tools(&question), async {
        let asked = soon(questions.next()).await.unwrap();
        assert_eq!(asked.asked, question);
        asked.answer(&answer).await.unwrap();
    });
    assert_eq!(described.unwrap().left_out, question.names);

    let other = delivered.connect_as("ingress").await;
    let mut questions = other.attachment_questions().await.unwrap();
    other.ping().await.unwrap();
    let (attached, ()) = tokio::join!(ingress.is_attached_elsewhere(run, patience), async {
        soon(questions.next()).await.unwrap().yes().await.unwrap();
    });
    assert!(attached);
}

#[tokio::test]
async fn no_role_can_do_what_is_not_its_work() {
    let delivered = Delivered::start().await;
    let migrate = delivered.connect_as("migrate").await;
    provision(&migrate, &options()).await.unwrap();
    // No user may do these: nobody needs them, and they would allow reading or being another user.
    let nobody_publishes = [
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING",
        "$JS.API.STREAM.DELETE.JOBS",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$JS.API.STREAM.UPDATE.JOBS",
        "$JS.API.CONSUMER.DELETE.JOBS.worker-interactive",
        "$JS.API.STREAM.RESTORE.JOBS",
        "$JS.API.STREAM.MSG.DELETE.EVENTS",
        "live.a.b",
        "submit.a.b.c",
        "history.a.b",
        "control.a.b.cancel",
        "_R_.anything",
    ];
    let nobody_subscribes = [
        ">", "*.>", "_INBOX.>", "events.>", "jobs.>", "limits.>", "$JS.>", "$SYS.>", "dead.>",
    ];
    for (role, publish, subscribe) in [
        (
            "ingress",
            &[
                "log-level.worker",
                "workers.hello",
                "worker.a.ask",
                "dead.jobs.a.b",
                "resubmit.a.b.c",
                "$SYS._INBOX.a",
                "$JS.API.STREAM.CREATE.MINE",
                "$JS.API.STREAM.MSG.GET.JOBS",
                "$JS.API.STREAM.MSG.GET.DEAD",
                "$JS.API.CONSUMER.CREATE.EVENTS.mine",
                "$JS.API.CONSUMER.MSG.NEXT.JOBS.worker-interactive",
                "$JS.ACK.JOBS.a",
            ][..],
            &[
                "_INBOX_worker.>",
                "worker.*.*",
                "workers.hello",
                "tools.describe",
                "submit.*.*.*",
                "control.*.*.*",
                "history.*.*",
                "$SYS.REQ.USER.AUTH",
            ][..],
        ),
        (
            "worker",
            &[
                "log-level.ingress",
                "limits.a.b",
                "replies.a.b",
                "ingress.revoked",
                "ingress.attached",
                "dead.submit.a.b.c",
                "resubmit.a.b.c",
                "worker.a.ask",
                "worker.a.cancel",
                "tools.describe",
                "$JS.API.STREAM.CREATE.MINE",
                "$JS.API.STREAM.MSG.GET.JOBS",
                "$JS.API.STREAM.MSG.GET.LIMITS",
                "$JS.API.STREAM.MSG.DELETE.JOBS",
                "$JS.API.CONSUMER.CREATE.JOBS.mine",
            ],
            &[
                "_INBOX_ingress.>",
                "submit.*.*.*",
                "resubmit.*.*.*",
                "control.*.*.*",
                "history.*.*",
                "live.*.*",
                "replies.*.*",
                "ingress.revoked",
                "$SYS.REQ.USER.AUTH",
            ],
        ),
        (
            "scheduler",
            &[
                "log-level.worker",
                "limits.a.b",
                "replies.a.b",
                "ingress.revoked",
                "dead.submit.a.b.c",
                "resubmit.a.b.c",
                "worker.a.cancel",
                "workers.hello",
                "$JS.API.CONSUMER.MSG.NEXT.JOBS.worker-interactive",
                "$JS.ACK.JOBS.a",
            ],
            &[
                "_INBOX_migrate.>",
                "submit.*.*.*",
                "control.*.*.*",
                "history.*.*",
                "live.*.*",
                "worker.*.*",
                "$SYS.REQ.USER.AUTH",
            ],
        ),
        (
            "migrate",
            &[
                "jobs.a.b",
                "events.a.b",
                "limits.a.b",
                "dead.jobs.a.b",
                "resubmit.a.b.c",
                "replies.a.b",
                "worker.a.ask",
                "$JS.API.STREAM.MSG.GET.EVENTS",
                "$JS.API.DIRECT.GET.EVENTS",
                "$JS.API.STREAM.MSG.DELETE.JOBS",
                "$JS.API.CONSUMER.MSG.NEXT.JOBS.worker-interactive",
                "$JS.ACK.JOBS.a",
            ],
            &[
                "_INBOX_scheduler.>",
                "submit.*.*.*",
                "live.*.*",
                "workers.hello",
                "$SYS.REQ.USER.AUTH",
            ],
        ),
        (
            "operator",
            &[
                "events.a.b",
                "limits.a.b",
                "dead.jobs.a.b",
                "replies.a.b",
                "worker.a.ask",
                "$JS.API.STREAM.CREATE.MINE",
                "$JS.API.STREAM.MSG.GET.JOBS",
                "$JS.API.STREAM.MSG.GET.EVENTS",
                "$JS.API.STREAM.MSG.DELETE.JOBS",
                "$JS.API.STREAM.MSG.GET.LIMITS",
            ],
            &[
                "log-level.worker",
                "_INBOX_ingress.>",
                "submit.*.*.*",
                "resubmit.*.*.*",
                "live.*.*",
                "workers.hello",
                "$SYS.REQ.USER.AUTH",
            ],
        ),
        (
            "system",
            &[
                "jobs.a.b",
                "$SYS.REQ.SERVER.x.RELOAD",
                "$SYS.REQ.SERVER.PING.VARZ",
                "$SYS.REQ.ACCOUNT.BATON.CONNZ",
                "$SYS.REQ.CLAIMS.UPDATE",
                "$JS.API.INFO",
            ],
            &["$SYS.REQ.USER.AUTH", "$SYS.ACCOUNT.>", "_INBOX_ingress.>"],
        ),
    ] {
        let mut stranger = delivered.stranger_as(role).await;
        stranger
            .may_not(&nobody_publishes, &nobody_subscribes)
            .await;
        stranger.may_not(publish, subscribe).await;
        let inbox = format!("{}.x.>", inbox_prefix(role));
        stranger.may(&[], &[&inbox]).await;
    }
    // An ingress reads strangers' messages as these users: each has its own subjects and nothing
    // else, not even an inbox.
    for (user, publish, subscribe) in [
        (
            "programs",
            &[][..],
            &["submit.*.*.*", "control.*.*.*", "history.*.*"][..],
        ),
        ("callout", &["$SYS._INBOX.a"], &["$SYS.REQ.USER.AUTH"]),
    ] {
        let mut stranger = delivered.stranger_as(user).await;
        stranger.may(publish, subscribe).await;
        stranger
            .may_not(&nobody_publishes, &nobody_subscribes)
            .await;
        let also = [
            "$SYS._INBOX.a",
            "replies.a.b",
            "past.a.b",
            "jobs.a.b",
            "resubmit.a.b.c",
        ];
        let others: Vec<&str> = also
            .into_iter()
            .filter(|one| !publish.contains(one))
            .collect();
        stranger.may_not(&others, &[]).await;
        let also = [
            "submit.*.*.*",
            "submit.>",
            "control.*.*.*",
            "history.*.*",
            "resubmit.*.*.*",
            "live.*.*",
            "ingress.revoked",
            "_INBOX_ingress.>",
            "$SYS.REQ.USER.AUTH",
        ];
        let others: Vec<&str> = also
            .into_iter()
            .filter(|one| !subscribe.contains(one))
            .collect();
        stranger.may_not(&[], &others).await;
    }
}

#[tokio::test]
async fn whoever_has_no_password_and_no_key_is_refused() {
    let delivered = Delivered::start().await;
    let stranger = BusOptions::new(delivered.server.url(), "stranger");
    assert!(Bus::connect(stranger).await.is_err());
    let wrong = BusOptions {
        auth: Auth::UserPassword {
            user: "ingress".into(),
            password: "wrong".into(),
        },
        ..BusOptions::new(delivered.server.url(), "stranger")
    };
    assert!(Bus::connect(wrong).await.is_err());
}
