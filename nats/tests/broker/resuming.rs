use std::time::Duration;

use async_nats::jetstream;
use baton_nats::{EventFollower, ResumeError, StreamOptions};
use baton_protocol::EventId;

use crate::{Broker, Writer, follow_to, id, ids, options, run, soon, tenant, until};

async fn resume(
    broker: &Broker,
    writer: &Writer,
    after: EventId,
) -> Result<EventFollower, ResumeError> {
    let subscribed =
        EventFollower::subscribe(&broker.bus, writer.tenant, writer.run, crate::any_attempt())
            .await
            .unwrap();
    let resumed = soon(subscribed.look_every(Duration::from_hours(1)).resume(after)).await;
    resumed.map_err(|unresumed| unresumed.reason)
}

#[tokio::test]
async fn every_event_is_a_cursor_from_which_the_rest_is_followed_once() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    for n in [1, 3, 2] {
        writer.texts(n).await;
    }
    writer.reset(2, id(1, 4)).await;
    writer.texts(3).await;
    writer.finish().await;
    let all = [ids(1, 6), ids(2, 5)].concat();

    let mut follower = resume(&broker, &writer, EventId::ORIGIN).await.unwrap();
    assert_eq!(follow_to(&mut follower, id(2, 5)).await, all);
    for (seen, cursor) in (1..).zip(&all[..all.len() - 1]) {
        let mut follower = resume(&broker, &writer, *cursor).await.unwrap();
        assert_eq!(
            follow_to(&mut follower, id(2, 5)).await,
            all[seen..],
            "after {cursor}"
        );
    }
}

#[tokio::test]
async fn joining_in_the_middle_of_a_run_shows_all_of_it() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    let other = broker.another_bus().await;
    let (tenant, run) = (writer.tenant, writer.run);
    let mut followers = Vec::new();
    let writing = async {
        for _ in 0..400 {
            writer.texts(1).await;
        }
        writer.finish().await;
    };
    let joining = async {
        for _ in 0..20 {
            let subscribed = EventFollower::subscribe(&other, tenant, run, crate::any_attempt())
                .await
                .unwrap();
            followers.push(subscribed.resume(EventId::ORIGIN).await.unwrap());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::join!(writing, joining);
    for mut follower in followers {
        assert_eq!(follow_to(&mut follower, id(1, 401)).await, ids(1, 401));
    }
}

#[tokio::test]
async fn a_run_without_events_yet_is_followed_from_its_start() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    let mut follower = resume(&broker, &writer, EventId::ORIGIN).await.unwrap();
    writer.texts(2).await;
    assert_eq!(follow_to(&mut follower, id(1, 2)).await, ids(1, 2));
}

#[tokio::test]
async fn a_cursor_that_is_no_event_of_the_run_is_unknown() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    writer.texts(2).await;
    writer.reset(3, id(1, 2)).await;
    writer.texts(1).await;
    for cursor in [id(1, 3), id(2, 1), id(3, 3), id(9, 9)] {
        let error = resume(&broker, &writer, cursor).await.unwrap_err();
        assert!(
            matches!(error, ResumeError::CursorUnknown),
            "{cursor}: {error}"
        );
    }
}

#[tokio::test]
async fn what_has_aged_out_is_expired() {
    let broker = Broker::start_with(&StreamOptions {
        event_retention: Duration::from_secs(1),
        ..options()
    })
    .await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    writer.texts(2).await;
    until(async || {
        broker
            .bus
            .event_tip(writer.tenant, writer.run)
            .await
            .unwrap()
            .is_none()
    })
    .await;
    let error = resume(&broker, &writer, id(1, 2)).await.unwrap_err();
    assert!(matches!(error, ResumeError::Expired), "{error}");

    // The subject is empty, so an append must expect no message.
    writer.seq = baton_nats::StreamSeq::NONE;
    writer.texts(2).await;
    for cursor in [EventId::ORIGIN, id(1, 1), id(1, 2)] {
        let error = resume(&broker, &writer, cursor).await.unwrap_err();
        assert!(matches!(error, ResumeError::Expired), "{cursor}: {error}");
    }
    let mut follower = resume(&broker, &writer, id(1, 3)).await.unwrap();
    assert_eq!(follow_to(&mut follower, id(1, 4)).await, [id(1, 4)]);
}

#[tokio::test]
async fn a_hole_behind_the_cursor_is_expired_and_not_skipped() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    let mut positions = Vec::new();
    for _ in 0..5 {
        writer.texts(1).await;
        positions.push(writer.seq.as_u64());
    }
    let events = jetstream::new(broker.client().await)
        .get_stream("EVENTS")
        .await
        .unwrap();
    events.delete_message(positions[2]).await.unwrap();

    let mut follower = resume(&broker, &writer, id(1, 1)).await.unwrap();
    assert_eq!(follow_to(&mut follower, id(1, 2)).await, [id(1, 2)]);
    let error = soon(follower.next()).await.unwrap_err();
    assert!(matches!(error, baton_nats::FollowError::Expired { after } if after == id(1, 2)));
    let mut behind = resume(&broker, &writer, id(1, 4)).await.unwrap();
    assert_eq!(follow_to(&mut behind, id(1, 5)).await, [id(1, 5)]);
}

#[tokio::test]
async fn a_cursor_deep_in_a_long_log_is_found_also_behind_a_replaced_workers_event() {
    let broker = Broker::start().await;
    let mut writer = Writer::new(&broker.bus, tenant(), run());
    for _ in 0..1_500 {
        writer.texts(1).await;
    }
    // Attempt 2 was replaced before it wrote its first event, but wrote it all the same.
    writer.reset(3, id(1, 1_500)).await;
    writer
        .append(&[crate::text(writer.run, id(2, 1), id(3, 1))])
        .await;
    writer.reset(4, id(1, 1_500)).await;
    for _ in 0..1_500 {
        writer.texts(1).await;
    }
    for (cursor, next) in [
        (id(1, 1), id(1, 2)),
        (id(1, 1_200), id(1, 1_201)),
        (id(1, 1_500), id(3, 1)),
        (id(3, 1), id(4, 1)),
        (id(4, 1), id(4, 2)),
        (id(4, 1_300), id(4, 1_301)),
        (id(4, 1_501), id(4, 1_502)),
    ] {
        let mut follower = resume(&broker, &writer, cursor).await.unwrap();
        if next == id(4, 1_502) {
            writer.finish().await;
        }
        let seen = soon(follower.next()).await.unwrap();
        assert_eq!(crate::of(&seen[0]), next, "after {cursor}");
    }
    let error = resume(&broker, &writer, id(2, 1_000)).await.unwrap_err();
    assert!(matches!(error, ResumeError::CursorUnknown), "{error}");
}
