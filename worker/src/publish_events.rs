//! Appends an attempt's events to the run's log, in order, and notices a successor.
//!
//! The first event goes out at once; behind it, whatever gathers while one append is on its way
//! travels in the next: one append in flight, and under load larger ones instead of more. Each
//! append names the log's last position, so the broker itself refuses a worker that was replaced.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use baton_nats::{AppendError, Bus, StreamSeq};
use baton_protocol::event::{AttemptReset, Text, ToolCallDelta};
use baton_protocol::{Event, EventData, EventId, Fence};
use baton_service::Clock;
use bytes::Bytes;

/// Text that may wait in memory while the broker is slow. Beyond it the model is not read on.
const PENDING_LIMIT: usize = 1 << 20;
/// Where one message ends and the next begins. A message holds at most a mebibyte, and JSON may
/// write one byte of text as six.
const MESSAGE_LIMIT: usize = 256 << 10;
/// The most text in one event.
const TEXT_LIMIT: usize = 96 << 10;
/// How often an append is tried again while nothing says that it cannot succeed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(200);

/// Why events can no longer be appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishEventsError {
    /// A newer attempt has written to the log: this one is over.
    #[error("a newer attempt writes this run's events")]
    Replaced,
    /// The log refuses for a reason of its own.
    #[error("the run's events cannot be stored")]
    Refused(#[source] AppendError),
}

type Append = Pin<Box<dyn Future<Output = Result<StreamSeq, PublishEventsError>> + Send>>;

/// The writing end of one attempt's events.
pub(crate) struct EventPublisher {
    bus: Bus,
    clock: Arc<dyn Clock>,
    fence: Fence,
    /// The position of the log's last message; the next append must follow it directly.
    position: StreamSeq,
    /// The log's last event, in flight or stored.
    written: EventId,
    /// The id of the next event.
    next: EventId,
    /// Events not yet sent.
    pending: Vec<(u32, EventData)>,
    pending_bytes: usize,
    in_flight: Option<Append>,
}

impl EventPublisher {
    /// Begins an attempt. The first finds an empty log without looking; a later one reads the
    /// log's last message from the leader, and takes the log over only if a smaller attempt wrote
    /// it. `resume_after` is the ledger's last event, and `last_commit` what it shows, if a commit
    /// made it true: it is shown again unless the log is known to hold it.
    pub(crate) async fn begin(
        bus: Bus,
        clock: Arc<dyn Clock>,
        fence: Fence,
        resume_after: EventId,
        last_commit: Option<(u32, EventData)>,
    ) -> Result<Self, PublishEventsError> {
        let mut publisher = Self {
            bus,
            clock,
            fence,
            position: StreamSeq::NONE,
            written: EventId::ORIGIN,
            next: EventId::new(fence.attempt, 1),
            pending: Vec::new(),
            pending_bytes: 0,
            in_flight: None,
        };
        if fence.attempt == 1 {
            return Ok(publisher);
        }
        let tip = publisher.adopt_tip(resume_after).await?;
        // Behind it stand only its own attempt's events: then the log holds it. What a later
        // attempt wrote, which committed nothing, says nothing of that.
        let held = tip >= resume_after && tip.attempt() == resume_after.attempt();
        let again = last_commit.filter(|_| !held);
        let reset = AttemptReset {
            // It may be on its way yet, or have been shown before: withdrawn, it stands once.
            resume_after: if again.is_some() && resume_after.n() > 1 {
                EventId::new(resume_after.attempt(), resume_after.n() - 1)
            } else {
                resume_after
            },
            // Never claimed, even if the log ends there: a straggler of the attempt before may
            // still land between the look and the append, and then it must be withdrawn.
            continues: false,
        };
        publisher.push(0, EventData::AttemptReset(reset));
        if let Some((step, data)) = again {
            publisher.push(step, data);
        }
        Ok(publisher)
    }

    async fn adopt_tip(&mut self, resume_after: EventId) -> Result<EventId, PublishEventsError> {
        let tip = loop {
            match self.bus.event_tip(self.fence.tenant, self.fence.run).await {
                Ok(tip) => break tip,
                Err(error) => {
                    tracing::debug!(%error, "the log's tip is not readable yet");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        };
        let Some(tip) = tip else {
            // Aged out, or the stream was lost: the ledger knows where the log had come to.
            self.position = StreamSeq::NONE;
            self.written = resume_after;
            return Ok(EventId::ORIGIN);
        };
        let last = last_event(&tip.payload);
        if last.attempt() >= self.fence.attempt {
            return Err(PublishEventsError::Replaced);
        }
        self.position = tip.seq;
        self.written = last;
        Ok(last)
    }

    /// The id that the next pushed event will carry, once nothing waits: see [`Self::settle`].
    pub(crate) const fn next_id(&self) -> EventId {
        self.next
    }

    /// The last event written; all up to it are stored if nothing waits: see [`Self::settle`].
    pub(crate) const fn last_id(&self) -> EventId {
        self.written
    }

    /// Adds an event behind those that wait. Adjacent pieces of the same text become one event, as
    /// far as one holds them; a longer text becomes several.
    pub(crate) fn push(&mut self, step: u32, mut data: EventData) {
        self.pending_bytes += weight(&data);
        if let Some((last_step, last)) = self.pending.last_mut()
            && *last_step == step
            && join(last, &data)
        {
            return;
        }
        while let Some(rest) = split_off(&mut data, TEXT_LIMIT) {
            self.pending
                .push((step, std::mem::replace(&mut data, rest)));
        }
        self.pending.push((step, data));
    }

    /// Whether so much waits that the source should be read no further.
    pub(crate) const fn is_full(&self) -> bool {
        self.pending_bytes >= PENDING_LIMIT
    }

    /// Whether an append is on its way: [`Self::advance`] has something to wait for.
    pub(crate) const fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Sends what waits, unless an append is on its way; then it will follow by itself.
    pub(crate) fn kick(&mut self) {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return;
        }
        let first = self.next;
        let payload = self.encode_pending();
        let append = Appending {
            bus: self.bus.clone(),
            fence: self.fence,
            position: self.position,
            first,
            payload,
        };
        self.in_flight = Some(Box::pin(append.run()));
    }

    /// Waits for the append on its way, then sends what has gathered. Returns at once if there is
    /// none. Dropping the future loses nothing.
    pub(crate) async fn advance(&mut self) -> Result<(), PublishEventsError> {
        let Some(append) = self.in_flight.as_mut() else {
            return Ok(());
        };
        let result = append.await;
        self.in_flight = None;
        self.position = result?;
        self.kick();
        Ok(())
    }

    /// Waits until every event pushed so far is stored.
    pub(crate) async fn settle(&mut self) -> Result<(), PublishEventsError> {
        self.kick();
        while self.is_sending() {
            self.advance().await?;
        }
        Ok(())
    }

    fn encode_pending(&mut self) -> Bytes {
        let mut out = Vec::with_capacity(self.pending_bytes.min(MESSAGE_LIMIT) + 512);
        let at = self.clock.now();
        let mut taken = 0;
        while out.len() < MESSAGE_LIMIT
            && let Some((step, data)) = self.pending.get_mut(taken)
        {
            taken += 1;
            let event = Event {
                id: self.next,
                prev: self.written,
                run_id: self.fence.run,
                step: *step,
                at,
                data: std::mem::replace(
                    data,
                    EventData::TextDelta(Text {
                        text: String::new(),
                    }),
                ),
            };
            self.pending_bytes = self.pending_bytes.saturating_sub(weight(&event.data));
            event.encode_into(&mut out);
            self.written = self.next;
            self.next = self.next.next();
        }
        self.pending.drain(..taken);
        Bytes::from(out)
    }
}

/// About how much memory an event takes while it waits.
const fn weight(data: &EventData) -> usize {
    match data {
        EventData::TextDelta(text)
        | EventData::ReasoningDelta(text)
        | EventData::RefusalDelta(text) => text.text.len(),
        EventData::ToolCallDelta(delta) => delta.arguments.len(),
        EventData::ToolStarted(tool) => tool.arguments.len(),
        EventData::ToolFinished(tool) => tool.result.len(),
        _ => 256,
    }
}

/// Appends `next` to `last` if it merely goes on with the same text and one event holds both.
fn join(last: &mut EventData, next: &EventData) -> bool {
    let ((EventData::TextDelta(last), EventData::TextDelta(next))
    | (EventData::ReasoningDelta(last), EventData::ReasoningDelta(next))
    | (EventData::RefusalDelta(last), EventData::RefusalDelta(next))) = (last, next)
    else {
        return false;
    };
    let fits = last.text.len() + next.text.len() <= TEXT_LIMIT;
    if fits {
        last.text.push_str(&next.text);
    }
    fits
}

/// Cuts an event's text at `most` bytes, or before a character that would not fit; the rest is an
/// event of the same kind.
fn split_off(data: &mut EventData, most: usize) -> Option<EventData> {
    let tail = |text: &mut String| {
        (text.len() > most).then(|| text.split_off(text.floor_char_boundary(most)))
    };
    match data {
        EventData::TextDelta(text) => {
            tail(&mut text.text).map(|text| EventData::TextDelta(Text { text }))
        }
        EventData::ReasoningDelta(text) => {
            tail(&mut text.text).map(|text| EventData::ReasoningDelta(Text { text }))
        }
        EventData::RefusalDelta(text) => {
            tail(&mut text.text).map(|text| EventData::RefusalDelta(Text { text }))
        }
        EventData::ToolCallDelta(delta) => tail(&mut delta.arguments).map(|arguments| {
            let index = delta.index;
            EventData::ToolCallDelta(ToolCallDelta {
                index,
                id: None,
                name: None,
                arguments,
            })
        }),
        _ => None,
    }
}

fn last_event(message: &[u8]) -> EventId {
    Event::lines(message)
        .next_back()
        .and_then(|line| Event::decode(line).ok())
        .map_or(EventId::ORIGIN, |event| event.id)
}

/// One append, tried until it is known to be stored or known to be refused.
struct Appending {
    bus: Bus,
    fence: Fence,
    position: StreamSeq,
    /// The id of the first event in it.
    first: EventId,
    payload: Bytes,
}

impl Appending {
    async fn run(mut self) -> Result<StreamSeq, PublishEventsError> {
        let Fence { tenant, run, .. } = self.fence;
        loop {
            let payload = self.payload.clone();
            match self
                .bus
                .append_events(tenant, run, self.position, payload)
                .await
            {
                Ok(position) => return Ok(position),
                // Either the answer to an earlier try was lost, or somebody else has written.
                Err(AppendError::WrongLast) => {
                    if let Some(position) = self.look().await? {
                        return Ok(position);
                    }
                }
                // The scheduler makes a missing stream again.
                Err(AppendError::Unknown | AppendError::Disconnected | AppendError::NoStream) => {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return Err(PublishEventsError::Refused(error)),
            }
        }
    }

    /// Reads the log's last message from the leader: is it the one being appended?
    async fn look(&mut self) -> Result<Option<StreamSeq>, PublishEventsError> {
        let Ok(tip) = self.bus.event_tip(self.fence.tenant, self.fence.run).await else {
            tokio::time::sleep(RETRY_AFTER).await;
            return Ok(None);
        };
        let Some(tip) = tip else {
            // The log aged out or was lost under the attempt: it begins anew.
            self.position = StreamSeq::NONE;
            return Ok(None);
        };
        if tip.payload == self.payload {
            return Ok(Some(tip.seq));
        }
        let last = last_event(&tip.payload);
        if last.attempt() > self.fence.attempt || last >= self.first {
            return Err(PublishEventsError::Replaced);
        }
        // A smaller attempt's straggler, or the log was restored from an older copy.
        self.position = tip.seq;
        self.chain_behind(last);
        Ok(None)
    }

    /// A straggler stands where nothing was seen before: it is the predecessor then. What is
    /// *missing* is not bridged; readers are to notice the gap.
    fn chain_behind(&mut self, last: EventId) {
        let Some(first) = Event::lines(&self.payload).next() else {
            return;
        };
        let Ok(mut event) = Event::decode(first) else {
            return;
        };
        if event.prev < last {
            event.prev = last;
            let rest = &self.payload[first.len() + 1..];
            let mut payload = Vec::with_capacity(self.payload.len() + 16);
            event.encode_into(&mut payload);
            payload.extend_from_slice(rest);
            self.payload = payload.into();
        }
    }
}

#[cfg(test)]
mod broker_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> EventData {
        EventData::TextDelta(Text { text: text.into() })
    }

    #[test]
    fn a_long_text_becomes_events_that_fit_and_stays_the_same_text() {
        let whole = "aé🦀".repeat(TEXT_LIMIT / 4);
        let mut data = text(&whole);
        let mut pieces = Vec::new();
        while let Some(rest) = split_off(&mut data, TEXT_LIMIT) {
            pieces.push(std::mem::replace(&mut data, rest));
        }
        pieces.push(data);
        let joined: String = pieces
            .iter()
            .map(|piece| match piece {
                EventData::TextDelta(text) => {
                    assert!(text.text.len() <= TEXT_LIMIT);
                    text.text.as_str()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(pieces.len() > 1);
        assert_eq!(joined, whole);
    }

    #[test]
    fn adjacent_text_is_joined_as_far_as_one_event_holds_it() {
        let mut last = text("a");
        assert!(join(&mut last, &text("b")));
        assert_eq!(last, text("ab"));
        assert!(!join(
            &mut last,
            &EventData::ReasoningDelta(Text { text: "c".into() })
        ));
        let mut full = text(&"x".repeat(TEXT_LIMIT));
        assert!(!join(&mut full, &text("y")));
    }
}
