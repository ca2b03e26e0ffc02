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
