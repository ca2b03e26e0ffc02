//! Appends an attempt's events to the run's log, in order, and notices a successor.
//!
//! The first event goes out at once; behind it, whatever gathers while one append is on its way
//! travels in the next: one append in flight, and under load larger ones instead of more. Each
//! append names the log's last position, so the broker itself refuses a worker that was replaced.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use baton_nats::{AppendError, Bus, StreamSeq};
use baton_protocol::event::{AttemptReset, Text};
use baton_protocol::{Event, EventData, EventId, Fence};
use baton_service::Clock;
use bytes::Bytes;

/// Text that may wait in memory while the broker is slow. Beyond it the model is not read on.
const PENDING_LIMIT: usize = 1 << 20;
/// Where one message ends and the next begins: a message holds at most a mebibyte.
const MESSAGE_LIMIT: usize = 256 << 10;
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
    /// it. `resume_after` is the ledger's last event.
    ///
    /// Returns the publisher and the last event that the log held.
    pub(crate) async fn begin(
        bus: Bus,
        clock: Arc<dyn Clock>,
        fence: Fence,
        resume_after: EventId,
    ) -> Result<(Self, EventId), PublishEventsError> {
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
            return Ok((publisher, EventId::ORIGIN));
        }
        let tip = publisher.adopt_tip(resume_after).await?;
        let reset = AttemptReset {
            resume_after,
            // Never claimed, even if the log ends there: a straggler of the attempt before may
            // still land between the look and the append, and then it must be withdrawn.
            continues: false,
        };
        publisher.push(0, EventData::AttemptReset(reset));
        Ok((publisher, tip))
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

    /// Adds an event behind those that wait. Adjacent pieces of the same text become one event.
    pub(crate) fn push(&mut self, step: u32, data: EventData) {
        self.pending_bytes += match &data {
            EventData::TextDelta(text)
            | EventData::ReasoningDelta(text)
            | EventData::RefusalDelta(text) => text.text.len(),
            EventData::ToolCallDelta(delta) => delta.arguments.len() + 64,
            EventData::ToolStarted(tool) => tool.arguments.len() + 64,
            EventData::ToolFinished(tool) => tool.result.len() + 64,
            _ => 256,
        };
        if let Some((last_step, last)) = self.pending.last_mut()
            && *last_step == step
            && let Some(room) = joinable(last, &data)
        {
            let (EventData::TextDelta(Text { text: more })
            | EventData::ReasoningDelta(Text { text: more })
            | EventData::RefusalDelta(Text { text: more })) = data
            else {
                return;
            };
            room.push_str(&more);
            return;
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
        let mut out = Vec::with_capacity(self.pending_bytes + 256 * self.pending.len());
        let at = self.clock.now();
        let mut taken = 0;
        for (step, data) in &mut self.pending {
            if out.len() >= MESSAGE_LIMIT {
                break;
            }
            // A long text is cut at a character into events that fit.
            let rest = split_off(data, MESSAGE_LIMIT);
            let data_now = if let Some(rest) = rest {
                std::mem::replace(data, rest)
            } else {
                taken += 1;
                let nothing = Text {
                    text: String::new(),
                };
                std::mem::replace(data, EventData::TextDelta(nothing))
            };
            let event = Event {
                id: self.next,
                prev: self.written,
                run_id: self.fence.run,
                step: *step,
                at,
                data: data_now,
            };
            event.encode_into(&mut out);
            self.written = self.next;
            self.next = self.next.next();
        }
        self.pending.drain(..taken);
        self.pending_bytes = if self.pending.is_empty() {
            0
        } else {
            self.pending_bytes.saturating_sub(out.len())
        };
        Bytes::from(out)
    }
}

/// The text to append to, if `next` merely goes on with what `last` says.
fn joinable<'a>(last: &'a mut EventData, next: &EventData) -> Option<&'a mut String> {
    match (last, next) {
        (EventData::TextDelta(last), EventData::TextDelta(_))
        | (EventData::ReasoningDelta(last), EventData::ReasoningDelta(_))
        | (EventData::RefusalDelta(last), EventData::RefusalDelta(_)) => Some(&mut last.text),
        _ => None,
    }
}

/// Cuts a text event at `most` bytes; the rest is an event of the same kind.
fn split_off(data: &mut EventData, most: usize) -> Option<EventData> {
    let (text, wrap): (&mut String, fn(Text) -> EventData) = match data {
        EventData::TextDelta(text) => (&mut text.text, EventData::TextDelta),
        EventData::ReasoningDelta(text) => (&mut text.text, EventData::ReasoningDelta),
        EventData::RefusalDelta(text) => (&mut text.text, EventData::RefusalDelta),
        _ => return None,
    };
    (text.len() > most).then(|| {
        let at = text.floor_char_boundary(most);
        wrap(Text {
            text: text.split_off(at),
        })
    })
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
        Ok(None)
    }
}
