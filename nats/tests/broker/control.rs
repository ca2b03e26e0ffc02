use std::time::Duration;

use baton_nats::{Nudge, Presence};
use baton_protocol::WorkerId;
use uuid::Uuid;

use crate::{Broker, run, soon, tenant};

#[tokio::test]
async fn a_worker_hears_its_own_nudges_and_survives_unreadable_ones() {
    let broker = Broker::start().await;
    let me = WorkerId::from_uuid(Uuid::new_v4());
    let other = WorkerId::from_uuid(Uuid::new_v4());
    let mut nudges = broker.bus.worker_nudges(me).await.unwrap();
    let (tenant, run) = (tenant(), run());

    broker.bus.nudge_worker(other, tenant, run).await.unwrap();
    let stranger = broker.client().await;
    stranger
        .publish(format!("worker.{me}.cancel"), "nonsense".into())
        .await
        .unwrap();
    crate::round_trip(&stranger).await;
    broker.bus.nudge_worker(me, tenant, run).await.unwrap();
    let cancel = Nudge::Cancel { tenant, run };
    assert_eq!(soon(nudges.next()).await, Some(cancel));
}

/// Guards the begin of an early takeover: it distinguishes a worker without a connection from one
/// that does not answer.
#[tokio::test]
async fn a_worker_that_answers_is_here_a_frozen_one_unknown_and_a_dead_one_nobody() {
    let broker = Broker::start().await;
    let process = broker.another_bus().await;
    let me = WorkerId::from_uuid(Uuid::new_v4());
    let scheduler = Uuid::new_v4();
    let mut hellos = broker.bus.hellos().await.unwrap();
    broker.bus.ping().await.unwrap();
    let mut nudges = process.worker_nudges(me).await.unwrap();
    process.say_hello(me).await.unwrap();
    assert_eq!(soon(hellos.next()).await, Some(me));

    let patience = Duration::from_secs(20);
    let (presence, ()) = tokio::join!(broker.bus.ask_worker(me, scheduler, patience), async {
        let Some(Nudge::AreYouThere(question)) = soon(nudges.next()).await else {
            panic!("not asked")
        };
        assert_eq!(question.by, scheduler);
        process.say_here(question).await.unwrap();
    });
    assert_eq!(presence, Presence::Here);

    let frozen = broker
        .bus
        .ask_worker(me, scheduler, Duration::from_millis(200));
    assert_eq!(frozen.await, Presence::Unknown);
    process.close().await;
    let dead = broker.bus.ask_worker(me, scheduler, patience);
    assert_eq!(soon(dead).await, Presence::Nobody);
}

#[tokio::test]
async fn an_ingress_learns_whether_a_client_is_with_a_run_elsewhere() {
    let broker = Broker::start().await;
    let mut questions = broker.bus.attachment_questions().await.unwrap();
    let (here, gone) = (run(), run());
    let asking = broker.bus.clone();
    let answering = async {
        loop {
            let question = questions.next().await.unwrap();
            if question.run() == here {
                question.yes().await.unwrap();
            }
        }
    };
    let asked = async {
        let patience = std::time::Duration::from_secs(20);
        assert!(asking.is_attached_elsewhere(here, patience).await);
        let patience = std::time::Duration::from_millis(200);
        assert!(!asking.is_attached_elsewhere(gone, patience).await);
    };
    tokio::select! {
        () = asked => {}
        () = answering => {}
    }
}
