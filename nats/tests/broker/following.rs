use std::time::Duration;

use baton_nats::{Bus, EventFollower, FollowError};
use baton_protocol::{EventData, EventId, RunId, TenantId};

use crate::{
    Broker, Writer, any_attempt, follow_to, id, ids, of, payload, run, soon, tenant, text,
};

const OFTEN: Duration = Duration::from_millis(200);
const NEVER: Duration = Duration::from_hours(1);

/// Follows a run from its first event with this interval between looks at the tip.
async fn follow(bus: &Bus, tenant: TenantId, run: RunId, look: Duration) -> EventFollower {
    let subscribed = EventFollower::subscribe(bus, tenant, run, any_attempt())
        .await
        .unwrap();
    subscribed.look_every(look).from_start_of_new_run()
}

#[tokio::test]
async fn a_new_run_is_followed_from_its_first_event_without_reading_the_log() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&broker.bus, tenant, run, NEVER).await;
    let mut writer = Writer::new(&broker.bus, tenant, run);
    for n in 1..=5 {
        writer.texts(n).await;
    }
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(1, 16)).await, ids(1, 16));
    assert_eq!(follower.last_id(), id(1, 16));
}

#[tokio::test]
async fn an_event_goes_on_exactly_as_it_was_written() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&broker.bus, tenant, run, OFTEN).await;
    let events = [
        text(run, id(1, 1), EventId::ORIGIN),
        text(run, id(1, 2), id(1, 1)),
    ];
    Writer::new(&broker.bus, tenant, run).append(&events).await;
    let followed = soon(follower.next()).await.unwrap();
    let lines: Vec<_> = followed
        .iter()
        .flat_map(|one| [&one.line[..], b"\n"].concat())
        .collect();
    assert_eq!(lines, payload(&events));
    assert!(followed.iter().map(|one| &one.event).eq(&events));
}

#[tokio::test]
async fn a_terminal_event_that_was_missed_is_found_by_looking_at_the_tip() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(1).await;
    // The subscription comes too late for both.
    writer.finish().await;
    let mut follower = follow(&broker.bus, tenant, run, OFTEN).await;
    assert_eq!(follow_to(&mut follower, id(1, 2)).await, ids(1, 2));
}

#[tokio::test]
async fn a_missed_event_is_noticed_by_the_next_one_and_fetched() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(3).await;
    writer.texts(2).await;
    let mut follower = follow(&broker.bus, tenant, run, NEVER).await;
    writer.texts(1).await;
    assert_eq!(follow_to(&mut follower, id(1, 6)).await, ids(1, 6));
    writer.finish().await;
    assert_eq!(follow_to(&mut follower, id(1, 7)).await, [id(1, 7)]);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_misses_nothing() {
    let broker = Broker::start().await;
    let narrow = broker.narrow_bus().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&narrow, tenant, run, OFTEN).await;
    narrow.ping().await.unwrap();
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(1).await;
    let mut seen = follow_to(&mut follower, id(1, 1)).await;
    // Its subscription holds two of these messages; the client drops the rest.
    for _ in 0..40 {
        writer.texts(2).await;
    }
    writer.finish().await;
    seen.extend(follow_to(&mut follower, id(1, 82)).await);
    assert_eq!(seen, ids(1, 82));
}

#[tokio::test]
async fn a_restart_of_the_server_in_the_middle_is_no_more_than_a_pause() {
    let mut broker = Broker::start().await;
    let other = broker.another_bus().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&other, tenant, run, NEVER).await;
    // After this round trip the server knows the subscription.
    other.ping().await.unwrap();
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(2).await;
    let mut seen = follow_to(&mut follower, id(1, 2)).await;
    for round in 0..3 {
        broker.server.kill().await;
        broker.server.restart().await.unwrap();
        crate::until(async || broker.bus.ping().await.is_ok()).await;
        // The follower may not have reconnected yet.
        writer.texts(2).await;
        seen.extend(follow_to(&mut follower, id(1, 4 + 2 * round)).await);
    }
    writer.finish().await;
    seen.extend(follow_to(&mut follower, id(1, 9)).await);
    assert_eq!(seen, ids(1, 9));
}

#[tokio::test]
async fn giving_up_a_call_loses_nothing() {
    let broker = Broker::start().await;
    let narrow = broker.narrow_bus().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&narrow, tenant, run, OFTEN).await;
    let mut writer = Writer::new(&broker.bus, tenant, run);
    let mut seen = Vec::new();
    for round in 0..60 {
        writer.texts(1).await;
        let patience = Duration::from_micros(round * 15);
        if let Ok(events) = tokio::time::timeout(patience, follower.next()).await {
            seen.extend(events.unwrap().iter().map(of));
        }
    }
    writer.finish().await;
    if seen.last() != Some(&id(1, 61)) {
        seen.extend(follow_to(&mut follower, id(1, 61)).await);
    }
    assert_eq!(seen, ids(1, 61));
}

#[tokio::test]
async fn a_reset_is_followed_into_the_new_attempt() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&broker.bus, tenant, run, OFTEN).await;
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(3).await;
    writer.reset(2, id(1, 1)).await;
    writer.texts(2).await;
    writer.finish().await;
    let seen = follow_to(&mut follower, id(2, 4)).await;
    assert_eq!(seen, [ids(1, 3), ids(2, 4)].concat());
}

#[tokio::test]
async fn a_log_that_lost_what_was_not_seen_is_an_error_and_not_a_silence() {
    let broker = Broker::start().await;
    let narrow = broker.narrow_bus().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&narrow, tenant, run, OFTEN).await;
    narrow.ping().await.unwrap();
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(1).await;
    assert_eq!(follow_to(&mut follower, id(1, 1)).await, ids(1, 1));
    // Its subscription holds the first two of these, and the log keeps the last.
    for _ in 0..5 {
        writer.texts(1).await;
    }
    narrow.ping().await.unwrap();
    let context = async_nats::jetstream::new(broker.client().await);
    let events = context.get_stream("EVENTS").await.unwrap();
    events.purge().sequence(writer.seq.as_u64()).await.unwrap();

    assert_eq!(
        follow_to(&mut follower, id(1, 3)).await,
        [id(1, 2), id(1, 3)]
    );
    let error = soon(follower.next()).await.unwrap_err();
    assert!(
        matches!(error, FollowError::Expired { after } if after == id(1, 3)),
        "{error}"
    );
}

#[tokio::test]
async fn an_event_of_another_version_is_an_error_after_what_came_before_it() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut follower = follow(&broker.bus, tenant, run, OFTEN).await;
    let first = text(run, id(1, 1), EventId::ORIGIN);
    let second = text(run, id(1, 2), id(1, 1));
    let bytes = String::from_utf8(payload(&[first, second]).to_vec()).unwrap();
    let (first, second) = bytes.split_once('\n').unwrap();
    let mixed = format!("{first}\n{}", second.replace(r#""v":1"#, r#""v":7"#));
    let bus = &broker.bus;
    bus.append_events(
        tenant,
        run,
        baton_nats::StreamSeq::NONE,
        bytes::Bytes::from(mixed),
    )
    .await
    .unwrap();

    let seen = soon(follower.next()).await.unwrap();
    assert!(matches!(seen[0].event.data, EventData::TextDelta(_)));
    assert_eq!(seen.len(), 1);
    let error = soon(follower.next()).await.unwrap_err();
    assert!(matches!(error, FollowError::Unreadable(_)), "{error}");
}
