//! Finding a cursor in a run's log.

use std::time::Duration;

use baton_protocol::event::EventError;
use baton_protocol::{Event, EventId};
use serde::Deserialize;
use tokio::time::sleep;

use super::cursor::Cursor;
use super::follower::{EventFollower, FollowError, ResumeError, Subscribed, Taken};
use super::{StoredEvents, StreamSeq};

/// How often a log is read that ends before the leader's does: replicas lag.
const TRIES: u32 = 8;
const RETRY: Duration = Duration::from_millis(50);

/// What was learned from reading the whole log in vain.
#[derive(Debug, Default)]
struct Scan {
    /// The first event stored, and whether it is the run's first.
    first: Option<(EventId, bool)>,
    last_read: StreamSeq,
}

impl Subscribed {
    /// Follows the run from behind the event `after`; from its first event for
    /// [`EventId::ORIGIN`], whether or not there is one yet.
    ///
    /// The event `after` itself must be found in the log, for only then is it certain that nothing
    /// between it and the next one is gone.
    pub async fn resume(self, after: EventId) -> Result<EventFollower, ResumeError> {
        if after == EventId::ORIGIN {
            return self.follow_from_first_event().await;
        }
        let mut subscribed = self;
        for _ in 0..TRIES {
            let scan = match subscribed.find(after).await? {
                Ok(follower) => return Ok(follower),
                Err((scan, given_back)) => {
                    subscribed = given_back;
                    scan
                }
            };
            let tip = subscribed
                .bus
                .event_tip(subscribed.tenant, subscribed.run)
                .await?;
            if tip.is_none_or(|tip| tip.seq <= scan.last_read) {
                return Err(match scan.first {
                    Some((_, true)) => ResumeError::CursorUnknown,
                    // Behind the first event stored, an event is there or never was; before it,
                    // nobody here can tell.
                    Some((first, false)) if first < after => ResumeError::CursorUnknown,
                    Some(_) | None => ResumeError::Expired,
                });
            }
            sleep(RETRY).await;
        }
        Err(ResumeError::Expired)
    }

    async fn follow_from_first_event(self) -> Result<EventFollower, ResumeError> {
        let page = self.read(StreamSeq::NONE).await?;
        let mut follower = self.follow(Cursor::after(EventId::ORIGIN));
        // What is stored behind the page; the rest is heard live.
        let mut read_on = page.next();
        for message in &page.messages {
            match follower.take_stored(message) {
                Ok(Taken::Whole) => {}
                Ok(Taken::Gap(_)) if follower.last_id() == EventId::ORIGIN => {
                    return Err(ResumeError::Expired);
                }
                // Later in the log: what stands before it can be returned, and reading on meets it
                // again.
                Ok(Taken::Gap(_)) => {
                    read_on = Some(message.seq);
                    break;
                }
                Err(error) => return Err(unreadable(error)),
            }
        }
        if let Some(from) = read_on {
            follower.read_on(from);
        }
        Ok(follower)
    }

    /// Reads the log until the event is found; gives the subscription back if it is not there.
    async fn find(
        self,
        after: EventId,
    ) -> Result<Result<EventFollower, (Scan, Self)>, ResumeError> {
        let mut scan = Scan::default();
        loop {
            let page = self.read(StreamSeq(scan.last_read.0 + 1)).await?;
            if let (None, Some(first)) = (scan.first, page.messages.first()) {
                scan.first = first_event(first)?;
            }
            let mut messages = page.messages.iter();
            while let Some(message) = messages.next() {
                scan.last_read = message.seq;
                if !holds(message, after)? {
                    continue;
                }
                let mut follower = self.follow(Cursor::after(after));
                follower.take_stored(message).map_err(unreadable)?;
                let mut read_on = page.next();
                for message in messages {
                    if let Taken::Gap(_) = follower.take_stored(message).map_err(unreadable)? {
                        read_on = Some(message.seq);
                        break;
                    }
                }
                if let Some(from) = read_on {
                    follower.read_on(from);
                }
                return Ok(Ok(follower));
            }
            if page.remaining == 0 {
                return Ok(Err((scan, self)));
            }
        }
    }
}

/// The first event of a message, and whether it is the first of its run.
fn first_event(message: &StoredEvents) -> Result<Option<(EventId, bool)>, EventError> {
    let first = Event::lines(&message.payload)
        .next()
        .map(Event::decode)
        .transpose()?;
    Ok(first.map(|event| (event.id, event.prev == EventId::ORIGIN)))
}

/// Whether one of the message's events has this id. Ids ascend, so that most messages are told by
/// their last.
fn holds(message: &StoredEvents, id: EventId) -> Result<bool, EventError> {
    #[derive(Deserialize)]
    struct IdOnly {
        id: EventId,
    }
    let read = |line| serde_json::from_slice::<IdOnly>(line).map(|event| event.id);

    for line in Event::lines(&message.payload).rev() {
        let here = read(line)?;
        if here <= id {
            return Ok(here == id);
        }
    }
    Ok(false)
}

fn unreadable(error: FollowError) -> ResumeError {
    match error {
        FollowError::Unreadable(error) => ResumeError::Unreadable(error),
        FollowError::Expired { .. } | FollowError::Closed => ResumeError::Expired,
    }
}
