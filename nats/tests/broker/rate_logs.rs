use std::time::Duration;

use baton_nats::{AppendError, Limited, StreamSeq};
use uuid::Uuid;

use crate::{Broker, tenant, until};

const KEEP: Duration = Duration::from_mins(2);

fn caller() -> Limited {
    Limited::Caller {
        tenant: tenant(),
        caller: Uuid::new_v4(),
    }
}

#[tokio::test]
async fn a_log_is_replaced_only_by_whoever_knows_the_newest() {
    let broker = Broker::start().await;
    let (bus, other, of) = (&broker.bus, broker.another_bus().await, caller());
    assert!(bus.rate_log(of).await.unwrap().is_none());
    let first = bus
        .replace_rate_log(of, StreamSeq::NONE, KEEP, "one".into())
        .await
        .unwrap();
    let late = other
        .replace_rate_log(of, StreamSeq::NONE, KEEP, "two".into())
        .await;
    assert!(matches!(late, Err(AppendError::WrongLast)), "{late:?}");
    let read = other.rate_log(of).await.unwrap().unwrap();
    assert_eq!((read.seq, &read.payload[..]), (first, &b"one"[..]));
    other
        .replace_rate_log(of, read.seq, KEEP, "two".into())
        .await
        .unwrap();
    let late = bus.replace_rate_log(of, first, KEEP, "three".into()).await;
    assert!(matches!(late, Err(AppendError::WrongLast)), "{late:?}");
    assert!(bus.rate_log(caller()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_that_nothing_was_added_to_for_its_time_is_gone_and_can_be_begun_again() {
    let broker = Broker::start().await;
    let (bus, of) = (&broker.bus, Limited::Address("192.0.2.1".parse().unwrap()));
    let first = bus
        .replace_rate_log(of, StreamSeq::NONE, Duration::ZERO, "one".into())
        .await
        .unwrap();
    until(async || bus.rate_log(of).await.unwrap().is_none()).await;
    let late = bus.replace_rate_log(of, first, KEEP, "two".into()).await;
    assert!(matches!(late, Err(AppendError::WrongLast)), "{late:?}");
    bus.replace_rate_log(of, StreamSeq::NONE, KEEP, "two".into())
        .await
        .unwrap();
}
