use baton_nats::Nudge;
use baton_protocol::WorkerId;
use uuid::Uuid;

use crate::{Broker, run, soon, tenant};

#[tokio::test]
async fn a_worker_hears_its_own_nudges_and_survives_unreadable_ones() {
    let broker = Broker::start().await;
    let me = WorkerId::from_uuid(Uuid::new_v4());
    let other = WorkerId::from_uuid(Uuid::new_v4());
    let mut nudges = broker.bus.worker_nudges(me).await.unwrap();
    let cancel = Nudge::Cancel {
        tenant: tenant(),
        run: run(),
    };
    let elsewhere = Nudge::Cancel {
        tenant: tenant(),
        run: run(),
    };

    broker.bus.nudge_worker(other, &elsewhere).await.unwrap();
    let stranger = broker.client().await;
    stranger
        .publish(format!("worker.{me}.cancel"), "nonsense".into())
        .await
        .unwrap();
    crate::round_trip(&stranger).await;
    broker.bus.nudge_worker(me, &cancel).await.unwrap();
    assert_eq!(soon(nudges.next()).await, Some(cancel));
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
