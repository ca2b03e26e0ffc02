//! Two attempts at one run's log, on a real broker.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use baton_devstack::NatsServer;
use baton_devstack::test_support::test_nats;
use baton_nats::streams::EVENTS;
use baton_nats::{BusOptions, StreamOptions, provision};
use baton_protocol::event::Text;
use baton_protocol::{ClaimToken, Event, RunId, TenantId};
use baton_service::SystemClock;
use futures_util::FutureExt as _;

use super::*;

struct Log {
    bus: Bus,
    tenant: TenantId,
    run: RunId,
    server: NatsServer,
}

impl Log {
    async fn new() -> Self {
        let server = test_nats().await.unwrap();
        let bus = Bus::connect(BusOptions::new(server.url(), "test"))
            .await
            .unwrap();
        provision(&bus, &StreamOptions::default()).await.unwrap();
        let now = SystemClock.now();
        Self {
            bus,
            tenant: TenantId::new(now),
            run: RunId::new(now),
            server,
        }
    }

    async fn attempt_after_commit(
        &self,
        attempt: u32,
        resume_after: EventId,
        commit: Vec<(u32, EventData)>,
    ) -> EventPublisher {
        let fence = Fence {
            tenant: self.tenant,
            run: self.run,
            attempt,
            token: ClaimToken::from_random(attempt.into()),
        };
        let clock = SystemClock::shared();
        EventPublisher::begin(self.bus.clone(), clock, fence, resume_after, commit)
            .await
            .unwrap()
    }

    async fn attempt(&self, attempt: u32, resume_after: EventId) -> EventPublisher {
        self.attempt_after_commit(attempt, resume_after, Vec::new())
            .await
    }

    async fn events(&self) -> Vec<Event> {
        let stored = self
            .bus
            .read_events(self.tenant, self.run, StreamSeq::NONE, 100)
            .await
            .unwrap();
        stored
            .iter()
            .flat_map(|message| Event::lines(&message.payload))
            .map(|line| Event::decode(line).unwrap())
            .collect()
    }
}

fn text(text: &str) -> EventData {
    EventData::TextDelta(Text { text: text.into() })
}

fn kinds(events: &[Event]) -> Vec<(u64, &str)> {
    for pair in events.windows(2) {
        assert_eq!(pair[1].prev, pair[0].id, "each names its predecessor");
    }
    events
        .iter()
        .map(|event| (u64::from(event.id.attempt()), event.data.kind()))
        .collect()
}

/// Guards the append's compare-and-set: a worker that believes in its attempt, although another has
/// begun to write, is refused, and none of its events is stored.
#[tokio::test]
async fn a_replaced_attempt_is_refused_by_the_log_and_leaves_nothing() {
    let log = Log::new().await;
    let mut old = log.attempt(1, EventId::ORIGIN).await;
    old.push(1, text("shown"));
    old.settle().await.unwrap();
    let mut new = log.attempt(2, EventId::ORIGIN).await;
    new.settle().await.unwrap();

    old.push(1, text("too late"));
    let refused = old.settle().await.unwrap_err();

    assert!(
        matches!(refused, PublishEventsError::Replaced(_)),
        "{refused}"
    );
    new.push(1, text("anew"));
    new.settle().await.unwrap();
    assert_eq!(
        kinds(&log.events().await),
        [(1, "text.delta"), (2, "attempt.reset"), (2, "text.delta")]
    );
}

/// Guards the adoption of the tip: an attempt that was replaced before it wrote anything does not
/// take over the log of its successor.
#[tokio::test]
async fn an_attempt_that_was_overtaken_before_its_first_event_is_refused() {
    let log = Log::new().await;
    let mut first = log.attempt(1, EventId::ORIGIN).await;
    first.push(1, text("shown"));
    first.settle().await.unwrap();
    let mut second = log.attempt(2, EventId::ORIGIN).await;
    let mut third = log.attempt(3, EventId::ORIGIN).await;
    third.settle().await.unwrap();

    let refused = second.settle().await.unwrap_err();

    assert!(
        matches!(refused, PublishEventsError::Replaced(_)),
        "{refused}"
    );
    assert_eq!(
        kinds(&log.events().await),
        [(1, "text.delta"), (3, "attempt.reset")]
    );
}

/// Guards the hole: if the broker has lost a log, or has only an older copy, the gap stays visible.
/// Otherwise a reader would take the rest for the whole.
#[tokio::test]
async fn what_the_broker_lost_before_an_attempt_leaves_a_hole_in_its_log() {
    let log = Log::new().await;
    let mut first = log.attempt(1, EventId::ORIGIN).await;
    first.push(1, text("kept"));
    first.settle().await.unwrap();
    let committed = EventId::new(1, 5);
    log.attempt(2, committed).await.settle().await.unwrap();

    let events = log.events().await;
    assert_eq!(events[1].prev, committed);

    let wiped = Log::new().await;
    wiped.attempt(2, committed).await.settle().await.unwrap();
    assert_eq!(wiped.events().await[0].prev, committed);

    // Events that follow a commit may never have been shown: they are shown now, after the stored
    // ones.
    let log = Log::new().await;
    let mut first = log.attempt(1, EventId::ORIGIN).await;
    first.push(1, text("kept"));
    first.settle().await.unwrap();
    let next = first.next_id();
    let finished = text("shown by the commit");
    let mut second = log.attempt_after_commit(2, next, vec![(1, finished)]).await;
    second.settle().await.unwrap();
    assert_eq!(
        kinds(&log.events().await),
        [(1, "text.delta"), (2, "attempt.reset"), (2, "text.delta")]
    );
}

/// Guards the look after a refusal: events that the earlier attempt wrote at the last moment are
/// withdrawn by the reset that follows them, and the chain has no gap.
#[tokio::test]
async fn a_straggler_lands_before_the_reset_and_is_withdrawn() {
    let log = Log::new().await;
    let mut old = log.attempt(1, EventId::ORIGIN).await;
    old.push(1, text("committed"));
    old.settle().await.unwrap();
    let committed = old.last_id();
    let mut new = log.attempt(2, committed).await;
    new.push(2, text("anew"));

    old.push(2, text("straggler"));
    old.settle().await.unwrap();
    new.settle().await.unwrap();

    let events = log.events().await;
    assert_eq!(
        kinds(&events),
        [
            (1, "text.delta"),
            (1, "text.delta"),
            (2, "attempt.reset"),
            (2, "text.delta")
        ]
    );
    let EventData::AttemptReset(reset) = &events[2].data else {
        panic!("{:?}", events[2]);
    };
    assert_eq!((reset.resume_after, reset.continues), (committed, false));
}

/// Guards the target of a reset: a commit's own event, sent by the earlier attempt and shown again
/// by the new one, counts once, whichever of the two is stored first.
#[tokio::test]
async fn the_event_of_the_last_commit_stands_once_even_if_it_was_only_late() {
    let log = Log::new().await;
    let mut old = log.attempt(1, EventId::ORIGIN).await;
    old.push(1, text("before the commit"));
    old.settle().await.unwrap();
    let before = old.last_id();
    let committed = old.next_id();
    let commit = vec![(2, text("after the commit"))];
    let mut new = log.attempt_after_commit(2, committed, commit).await;

    old.push(2, text("after the commit"));
    old.settle().await.unwrap();
    new.settle().await.unwrap();

    let events = log.events().await;
    let EventData::AttemptReset(reset) = &events[2].data else {
        panic!("{:?}", events[2]);
    };
    assert_eq!(events[1].id, committed);
    assert_eq!(reset.resume_after, before, "the late one is withdrawn");
    assert_eq!(kinds(&events).len(), 4);
}

/// Guards the evidence of the tip: an attempt showed the commit's event again and died without a
/// commit of its own. Its events are withdrawn, that one too, and the next attempt shows it once
/// more.
#[tokio::test]
async fn the_event_of_the_last_commit_stands_after_two_crashes() {
    let log = Log::new().await;
    let mut first = log.attempt(1, EventId::ORIGIN).await;
    first.push(1, text("before the commit"));
    first.settle().await.unwrap();
    let (before, committed) = (first.last_id(), first.next_id());
    let commit = || vec![(2, text("after the commit"))];
    let mut second = log.attempt_after_commit(2, committed, commit()).await;
    second.settle().await.unwrap();

    let mut third = log.attempt_after_commit(3, committed, commit()).await;
    third.settle().await.unwrap();

    let events = log.events().await;
    assert_eq!(
        kinds(&events)[3..],
        [(3, "attempt.reset"), (3, "text.delta")]
    );
    let EventData::AttemptReset(reset) = &events[3].data else {
        panic!("{:?}", events[3]);
    };
    assert_eq!(reset.resume_after, before);
}

/// Guards the frozen bytes: an append without an answer is repeated, and stored once.
#[tokio::test]
async fn an_append_that_was_stored_without_an_answer_is_not_stored_again() {
    let log = Log::new().await;
    let mut publisher = log.attempt(1, EventId::ORIGIN).await;
    publisher.push(1, text("once"));
    let append = publisher.writer.freeze(SystemClock.now()).unwrap();

    let stored = store(log.bus.clone(), publisher.fence, append.clone());
    let stored = stored.await.unwrap();
    let again = store(log.bus.clone(), publisher.fence, append);
    let again = again.await.unwrap();

    assert_eq!(stored, again);
    assert_eq!(kinds(&log.events().await), [(1, "text.delta")]);
}

/// Guards the repeated append: a run with events that find no room waits, and is not requeued.
#[tokio::test]
async fn an_append_that_finds_no_room_is_repeated_until_there_is_some() {
    let log = Log::new().await;
    let client = async_nats::connect(log.server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(EVENTS).await.unwrap();
    let roomy = stream.cached_info().config.clone();
    let full = Config {
        discard: DiscardPolicy::New,
        max_messages: 1,
        ..roomy.clone()
    };
    jetstream.update_stream(full).await.unwrap();
    let mut attempt = log.attempt(1, EventId::ORIGIN).await;
    attempt.push(1, text("fits"));
    attempt.settle().await.unwrap();

    attempt.push(1, text("does not"));
    attempt.kick();
    // The append is sent, and the answer to the later request on the same connection shows that it
    // has arrived.
    assert!(attempt.advance().now_or_never().is_none());
    log.bus.count_events(log.tenant, log.run).await.unwrap();
    jetstream.update_stream(roomy).await.unwrap();

    attempt.settle().await.unwrap();
    assert_eq!(
        kinds(&log.events().await),
        [(1, "text.delta"), (1, "text.delta")]
    );
}
