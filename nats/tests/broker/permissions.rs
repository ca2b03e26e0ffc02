//! The delivered `nats.conf`: it is taken by a server, and each role can do its work under it and
//! nothing else.

use std::time::Duration;

use baton_devstack::test_support::test_nats_options;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer};
use baton_nats::{
    Auth, Bus, BusOptions, EventFollower, JobHeaders, JobSource, Limited, Nudge, Presence,
    StreamSeq, provision, restore_missing,
};
use baton_protocol::{EventId, Job, Lane, WorkerId};
use uuid::Uuid;

use crate::{
    Writer, completed, follow_to, id, ids, options, payload, run, soon, tenant, text, until,
};

const ROLES: [&str; 4] = ["ingress", "worker", "scheduler", "migrate"];

async fn start() -> (tempfile::TempDir, NatsServer) {
    use std::os::unix::fs::PermissionsExt as _;

    let mut text = include_str!("../../nats.conf").to_owned();
    for role in ROLES {
        let variable = format!("$BATON_NATS_{}_PASSWORD", role.to_uppercase());
        assert!(text.contains(&variable), "{variable}");
        text = text.replace(&variable, &format!("secret-{role}"));
    }
    // The store is chosen by the server's arguments here.
    text = text.replace("  store_dir: /data\n", "");
    let folder = tempfile::tempdir().unwrap();
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).unwrap();
    let path = folder.path().join("nats.conf");
    std::fs::write(&path, text).unwrap();
    let server = NatsServer::start(NatsOptions {
        config: NatsConfig::File(path),
        ..test_nats_options().await.unwrap()
    })
    .await
    .unwrap();
    (folder, server)
}

async fn connect_as(server: &NatsServer, role: &str) -> Bus {
    let auth = Auth::UserPassword {
        user: role.into(),
        password: format!("secret-{role}"),
    };
    let options = BusOptions {
        auth,
        ..BusOptions::new(server.url(), role)
    };
    Bus::connect(options).await.unwrap()
}

#[tokio::test]
async fn each_role_can_do_its_work_with_the_permissions_of_the_delivered_configuration() {
    let (_folder, server) = start().await;
    let migrate = connect_as(&server, "migrate").await;
    let ingress = connect_as(&server, "ingress").await;
    let worker = connect_as(&server, "worker").await;
    let scheduler = connect_as(&server, "scheduler").await;
    for bus in [&migrate, &ingress, &worker, &scheduler] {
        bus.ping().await.unwrap();
    }
    assert_eq!(provision(&migrate, &options()).await.unwrap().len(), 6);
    assert_eq!(restore_missing(&scheduler, &options()).await.unwrap(), []);

    let (tenant, run) = (tenant(), run());
    let subscribed = EventFollower::subscribe(&ingress, tenant, run)
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
    let publisher = async_nats::ConnectOptions::with_user_and_password(
        "ingress".into(),
        "secret-ingress".into(),
    );
    let publisher = publisher.connect(server.url()).await.unwrap();
    let nowhere = format!("jobs.{tenant}.nowhere");
    publisher.publish(nowhere, "x".into()).await.unwrap();
    until(async || scheduler.stranded_jobs(1).await.unwrap().jobs.len() == 1).await;
    let stranded = scheduler.stranded_jobs(1).await.unwrap().jobs;
    scheduler.quarantine_stranded(&stranded[0]).await.unwrap();
    assert!(scheduler.dead_letters().await.unwrap() > 1);
    assert!(scheduler.dead_letter(1).await.unwrap().is_some());

    let mut writer = Writer::new(&worker, tenant, run);
    writer.texts(2).await;
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(1, 3)).await, ids(1, 3));
    assert_eq!(worker.count_events(tenant, run).await.unwrap(), 2);
    assert_eq!(worker.count_events(tenant, self::run()).await.unwrap(), 0);
    assert!(scheduler.events_state().await.unwrap().last_seq >= 2);
    let again = EventFollower::subscribe(&ingress, tenant, run)
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

    let other = connect_as(&server, "ingress").await;
    let mut questions = other.attachment_questions().await.unwrap();
    other.ping().await.unwrap();
    let (attached, ()) = tokio::join!(ingress.is_attached_elsewhere(run, patience), async {
        soon(questions.next()).await.unwrap().yes().await.unwrap();
    });
    assert!(attached);
}

#[tokio::test]
async fn a_role_cannot_do_what_is_not_its_work() {
    let (_folder, server) = start().await;
    let migrate = connect_as(&server, "migrate").await;
    provision(&migrate, &options()).await.unwrap();
    let ingress = connect_as(&server, "ingress").await;
    let (tenant, run) = (tenant(), run());
    let event = payload(&[text(run, id(1, 1), EventId::ORIGIN)]);
    let refused = migrate.append_events(tenant, run, StreamSeq::NONE, event);
    assert!(soon(refused).await.is_err());

    ingress
        .publish_job(
            tenant,
            Lane::Interactive,
            &Job::Run { run_id: run },
            &JobHeaders::default(),
        )
        .await
        .unwrap();
    let mut source = JobSource::open(&ingress, Lane::Interactive).await.unwrap();
    let patience = Duration::from_millis(300);
    let pulled = tokio::time::timeout(patience, source.pull(1, Duration::from_secs(1))).await;
    assert!(pulled.is_err(), "an ingress takes no jobs");

    let stranger = BusOptions::new(server.url(), "stranger");
    assert!(Bus::connect(stranger).await.is_err());
}
