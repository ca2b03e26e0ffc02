use std::time::Duration;

use async_nats::jetstream;
use baton_nats::{AppendError, EventFollower, StreamSeq};
use baton_protocol::{Event, EventId};

use crate::{Broker, Writer, follow_to, id, ids, payload, run, soon, tenant, text, until};

#[tokio::test]
async fn a_second_writer_is_refused_and_what_is_refused_is_never_seen_live() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let subscribed = EventFollower::subscribe(&broker.bus, tenant, run, crate::any_attempt())
        .await
        .unwrap();
    let mut follower = subscribed.from_start_of_new_run();
    let raw = broker.client().await;
    let mut live = raw.subscribe(format!("live.{tenant}.{run}")).await.unwrap();
    crate::round_trip(&raw).await;

    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(2).await;
    let zombie = text(run, id(1, 2), id(1, 1));
    for expected in [
        StreamSeq::NONE,
        StreamSeq::from_u64(writer.seq.as_u64() + 1),
    ] {
        let refused = broker
            .another_bus()
            .await
            .append_events(
                tenant,
                run,
                expected,
                payload(std::slice::from_ref(&zombie)),
            )
            .await;
        assert!(
            matches!(refused, Err(AppendError::WrongLast)),
            "{refused:?}"
        );
    }
    writer.texts(1).await;
    writer.finish().await;

    assert_eq!(follow_to(&mut follower, id(1, 4)).await, ids(1, 4));
    let mut messages = 0;
    while messages < 3 {
        use futures_util::StreamExt as _;
        let message = soon(live.next()).await.unwrap();
        assert_ne!(message.payload, payload(std::slice::from_ref(&zombie)));
        messages += 1;
    }
    assert_eq!(
        broker
            .bus
            .event_tip(tenant, run)
            .await
            .unwrap()
            .unwrap()
            .seq,
        writer.seq
    );
}

#[tokio::test]
async fn a_repeated_append_is_refused_and_the_tip_shows_that_it_was_stored() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let bytes = payload(&[text(run, id(1, 1), EventId::ORIGIN)]);
    let bus = &broker.bus;
    let stored = bus
        .append_events(tenant, run, StreamSeq::NONE, bytes.clone())
        .await
        .unwrap();
    let repeated = bus
        .append_events(tenant, run, StreamSeq::NONE, bytes.clone())
        .await;
    assert!(
        matches!(repeated, Err(AppendError::WrongLast)),
        "{repeated:?}"
    );
    for tip in [
        bus.event_tip(tenant, run).await,
        bus.event_tip_direct(tenant, run).await,
    ] {
        let tip = tip.unwrap().unwrap();
        assert_eq!((tip.seq, &tip.payload), (stored, &bytes));
    }
}

#[tokio::test]
async fn a_run_without_events_has_no_tip() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    assert_eq!(broker.bus.event_tip(tenant, run).await.unwrap(), None);
    assert_eq!(
        broker.bus.event_tip_direct(tenant, run).await.unwrap(),
        None
    );
    assert_eq!(
        broker
            .bus
            .read_events(tenant, run, StreamSeq::NONE, 10)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn a_log_is_read_in_pages_from_any_position() {
    let broker = Broker::start().await;
    let (tenant, run, other) = (tenant(), run(), run());
    let mut writer = Writer::new(&broker.bus, tenant, run);
    let mut neighbour = Writer::new(&broker.bus, tenant, other);
    let mut positions = Vec::new();
    for _ in 0..600 {
        writer.texts(1).await;
        positions.push(writer.seq);
        neighbour.texts(1).await;
    }
    let read = async |from, max| {
        let messages = broker
            .bus
            .read_events(tenant, run, from, max)
            .await
            .unwrap();
        messages
            .iter()
            .map(|message| message.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(StreamSeq::NONE, usize::MAX).await, positions);
    assert_eq!(read(positions[300], 5).await, positions[300..305]);
    assert_eq!(read(positions[599], 5).await, positions[599..]);
    let beyond = StreamSeq::from_u64(writer.seq.as_u64() + 10);
    assert_eq!(read(beyond, 5).await, []);

    let all = broker
        .bus
        .read_events(tenant, run, StreamSeq::NONE, usize::MAX)
        .await
        .unwrap();
    let read: Vec<_> = all
        .iter()
        .flat_map(|message| Event::lines(&message.payload))
        .map(|line| Event::decode(line).unwrap().id)
        .collect();
    assert_eq!(read, ids(1, 600));
}

#[tokio::test]
async fn pages_are_cut_by_bytes_too() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut last = EventId::ORIGIN;
    let mut seq = StreamSeq::NONE;
    for n in 1..=12 {
        let mut event = text(run, id(1, n), last);
        if let baton_protocol::EventData::TextDelta(text) = &mut event.data {
            text.text = "x".repeat(700_000);
        }
        seq = broker
            .bus
            .append_events(tenant, run, seq, payload(&[event]))
            .await
            .unwrap();
        last = id(1, n);
    }
    let read = broker
        .bus
        .read_events(tenant, run, StreamSeq::NONE, usize::MAX)
        .await
        .unwrap();
    assert_eq!(read.len(), 12);
}

#[tokio::test]
async fn an_append_during_a_crash_of_the_server_has_an_unknown_fate_at_worst() {
    let mut broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let mut writer = Writer::new(&broker.bus, tenant, run);
    writer.texts(1).await;
    broker.server.kill().await;
    let next = payload(&[text(run, id(1, 2), id(1, 1))]);
    // Whether or not the client has noticed the loss yet.
    let lost = soon(
        broker
            .bus
            .append_events(tenant, run, writer.seq, next.clone()),
    )
    .await;
    assert!(
        matches!(lost, Err(AppendError::Unknown | AppendError::Disconnected)),
        "{lost:?}"
    );
    broker.server.restart().await.unwrap();
    until(async || broker.bus.ping().await.is_ok()).await;
    // Repeats the same bytes: stored now, or found to be stored already.
    match broker
        .bus
        .append_events(tenant, run, writer.seq, next.clone())
        .await
    {
        Ok(_) | Err(AppendError::WrongLast) => {}
        Err(error) => panic!("{error}"),
    }
    let tip = broker.bus.event_tip(tenant, run).await.unwrap().unwrap();
    assert_eq!(tip.payload, next);
}

#[tokio::test]
async fn events_that_are_too_large_or_have_no_stream_are_refused() {
    let broker = Broker::start().await;
    let (tenant, run) = (tenant(), run());
    let append = async |bytes: Vec<u8>| {
        broker
            .bus
            .append_events(tenant, run, StreamSeq::NONE, bytes::Bytes::from(bytes))
            .await
    };
    let refused = append(vec![b' '; 2 << 20]).await;
    assert!(
        matches!(refused, Err(AppendError::Refused(_))),
        "{refused:?}"
    );
    jetstream::new(broker.client().await)
        .delete_stream("EVENTS")
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    assert!(matches!(
        append(b"{}".to_vec()).await,
        Err(AppendError::NoStream)
    ));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "it is known at once"
    );
}
