//! Finds a cursor in a run's log.

use std::time::Duration;

use baton_protocol::event::EventError;
use baton_protocol::{Event, EventId};
use serde::Deserialize;
use tokio::time::sleep;

use super::cursor::Cursor;
use super::follower::{EventFollower, FollowError, ResumeError, Subscribed, Taken, Unresumed};
use super::read::Page;
use super::{StoredEvents, StreamSeq};

/// The tries for a log that ends before the leader's does, because replicas lag.
const TRIES: u32 = 8;
const RETRY: Duration = Duration::from_millis(50);
/// The number of messages that are read in a row rather than narrowed further.
const NEAR: u64 = 512;

/// A way to look for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// Bisect, as if ids always ascended.
    Narrowed,
    /// Read from the first message to the last.
    InOrder,
}

/// The facts from a complete scan that did not find the event.
#[derive(Debug, Default)]
struct Scan {
    /// The first event stored, and whether it is the run's first.
    first: Option<(EventId, bool)>,
    last_read: StreamSeq,
}

/// The page that holds the event, and the index of its message.
type Found = (Page, usize);

/// The beginning of a follower: the cursor's page, and the newest attempt in the ledger.
struct Start {
    found: Found,
    known: u32,
}

impl Subscribed {
    /// Follows the run from after the event `after`; from its first event for [`EventId::ORIGIN`],
    /// whether or not there is one yet.
    ///
    /// The event `after` itself must be found in the log, because only then is it certain that
    /// nothing between it and the next one is gone.
    pub async fn resume(self, after: EventId) -> Result<EventFollower, Box<Unresumed>> {
        match self.start(after).await {
            Ok(start) => self.begin(&start, after),
            Err(reason) => Err(unresumed(reason, self)),
        }
    }

    /// As [`Self::resume`], and returns the event `after` as well, which is one of the log.
    pub async fn resume_at(self, after: EventId) -> Result<(Event, EventFollower), Box<Unresumed>> {
        let start = match self.start(after).await {
            Ok(start) => start,
            Err(reason) => return Err(unresumed(reason, self)),
        };
        let (page, at) = &start.found;
        let message = page.messages.get(*at);
        match message.map(|message| event_of(message, after)).transpose() {
            Ok(Some(Some(event))) => Ok((event, self.begin(&start, after)?)),
            Ok(_) => Err(unresumed(ResumeError::CursorUnknown, self)),
            Err(error) => Err(unresumed(error.into(), self)),
        }
    }

    fn begin(self, start: &Start, after: EventId) -> Result<EventFollower, Box<Unresumed>> {
        let Start { found, known } = start;
        let (page, at) = found;
        let mut follower = self.follow(Cursor::after(after), *known);
        match follower.take_first_page(&page.messages[*at..], page.next()) {
            Ok(true) if follower.last_id() == EventId::ORIGIN => {
                Err(unresumed(ResumeError::Expired, follower.from))
            }
            Ok(_) => Ok(follower),
            Err(reason) => Err(unresumed(reason, follower.from)),
        }
    }

    async fn start(&self, after: EventId) -> Result<Start, ResumeError> {
        let found = self.locate(after).await?;
        // Asked after the page was read, so that the ledger has every attempt that is in it.
        let known = self.newest_attempt().await.unwrap_or_default();
        Ok(Start { found, known })
    }

    async fn locate(&self, after: EventId) -> Result<Found, ResumeError> {
        if after == EventId::ORIGIN {
            return Ok((self.read(StreamSeq::NONE).await?, 0));
        }
        if let Ok(found) = self.find(after, Search::Narrowed).await? {
            return Ok(found);
        }
        for _ in 0..TRIES {
            let scan = match self.find(after, Search::InOrder).await? {
                Ok(found) => return Ok(found),
                Err(scan) => scan,
            };
            let tip = self.bus.event_tip(self.tenant, self.run).await?;
            if tip.is_none_or(|tip| tip.seq <= scan.last_read) {
                return Err(match scan.first {
                    Some((_, true)) => ResumeError::CursorUnknown,
                    // After the first stored event, an event is there or never was. Before it, only
                    // the ledger knows.
                    Some((first, false)) if first < after => ResumeError::CursorUnknown,
                    Some(_) | None => ResumeError::Expired,
                });
            }
            sleep(RETRY).await;
        }
        Err(ResumeError::Expired)
    }

    /// Reads the log until the event is found.
    async fn find(
        &self,
        after: EventId,
        search: Search,
    ) -> Result<Result<Found, Scan>, ResumeError> {
        let mut scan = Scan::default();
        let mut narrow = search == Search::Narrowed;
        loop {
            let page = self.read(StreamSeq(scan.last_read.0 + 1)).await?;
            if let (None, Some(first)) = (scan.first, page.messages.first()) {
                scan.first = first_event(first)?;
            }
            for (at, message) in page.messages.iter().enumerate() {
                scan.last_read = message.seq;
                if holds(message, after)? {
                    return Ok(Ok((page, at)));
                }
            }
            if page.remaining == 0 {
                return Ok(Err(scan));
            }
            if std::mem::take(&mut narrow) && page.remaining > NEAR {
                scan.last_read = self.narrow_down(after, scan.last_read).await?;
            }
        }
    }

    /// Returns a position before the event, found by bisection. Ids ascend except for late events
    /// of replaced workers.
    async fn narrow_down(
        &self,
        after: EventId,
        before: StreamSeq,
    ) -> Result<StreamSeq, ResumeError> {
        let tip = self.bus.event_tip_direct(self.tenant, self.run).await?;
        let mut low = before.0;
        let mut high = tip.map_or(low, |tip| tip.seq.0);
        while high.saturating_sub(low) > NEAR {
            let middle = low + (high - low) / 2;
            let page = self
                .bus
                .read_page(self.tenant, self.run, StreamSeq(middle), 1)
                .await?;
            match page.messages.first() {
                Some(message) if last_event(message)?.is_some_and(|last| last < after) => {
                    low = message.seq.0;
                }
                _ => high = middle,
            }
        }
        Ok(StreamSeq(low))
    }
}

impl EventFollower {
    /// Takes the first messages and reads on from `next`. Returns whether an event is missing.
    fn take_first_page(
        &mut self,
        messages: &[StoredEvents],
        next: Option<StreamSeq>,
    ) -> Result<bool, ResumeError> {
        for message in messages {
            match self.take_stored(message).map_err(unreadable)? {
                Taken::Whole => {}
                // Events before the gap can be returned; reading on meets the gap again.
                Taken::Gap(_) => {
                    self.read_on(message.seq);
                    return Ok(true);
                }
                Taken::Unknown(attempt) => {
                    self.ask_and_read_on(attempt, message.seq);
                    return Ok(false);
                }
            }
        }
        if let Some(from) = next {
            self.read_on(from);
        }
        Ok(false)
    }
}

/// Returns the first event of a message, and whether it is the first of its run.
fn first_event(message: &StoredEvents) -> Result<Option<(EventId, bool)>, EventError> {
    let first = Event::lines(&message.payload)
        .next()
        .map(Event::decode)
        .transpose()?;
    Ok(first.map(|event| (event.id, event.prev == EventId::ORIGIN)))
}

#[derive(Deserialize)]
struct IdOnly {
    id: EventId,
}

fn id_of(line: &[u8]) -> Result<EventId, EventError> {
    Ok(serde_json::from_slice::<IdOnly>(line)?.id)
}

fn last_event(message: &StoredEvents) -> Result<Option<EventId>, EventError> {
    Event::lines(&message.payload)
        .next_back()
        .map(id_of)
        .transpose()
}

/// Returns whether one of the message's events has this id. Ids ascend within a message, so the
/// last event decides most messages.
fn holds(message: &StoredEvents, id: EventId) -> Result<bool, EventError> {
    for line in Event::lines(&message.payload).rev() {
        let here = id_of(line)?;
        if here <= id {
            return Ok(here == id);
        }
    }
    Ok(false)
}

/// Returns the event with this id, if the message has it.
fn event_of(message: &StoredEvents, id: EventId) -> Result<Option<Event>, EventError> {
    for line in Event::lines(&message.payload) {
        if id_of(line)? == id {
            return Event::decode(line).map(Some);
        }
    }
    Ok(None)
}

fn unresumed(reason: ResumeError, subscribed: Subscribed) -> Box<Unresumed> {
    Box::new(Unresumed { reason, subscribed })
}

fn unreadable(error: FollowError) -> ResumeError {
    match error {
        FollowError::Unreadable(error) => ResumeError::Unreadable(error),
        FollowError::Expired { .. } | FollowError::Closed => ResumeError::Expired,
    }
}
