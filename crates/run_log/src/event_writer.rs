//! The events of one attempt: their ids, their distribution over messages, and the meaning of a
//! refused append. Pure: the log's last message, the positions and the time are arguments.
//!
//! At most one append is in flight. Its bytes are frozen until its fate is known: a refused append
//! may be the repetition of a stored one, and only identical bytes show that.

use baton_nats::{EventLines, StoredEvents, StreamSeq};
use baton_protocol::event::{AnswerField, AttemptReset, Text, ToolCallDelta};
use baton_protocol::{AnswerOrder, Event, EventData, EventId, Fence, RunId};
use bytes::Bytes;
use chrono::{DateTime, Utc};

/// The bytes of text that may wait in memory while the broker is slow. Beyond them the model's
/// answer is read no further.
const PENDING_LIMIT: usize = 1 << 20;
/// The bytes at which one message ends and the next begins. Short, because an ingress holds several
/// hundred messages for a client that does not read. Long enough for many times the text that a
/// model writes while one message is stored.
const MESSAGE_LIMIT: usize = 8 << 10;
/// The most bytes of text in one event, far fewer than one may hold. A message exceeds its limit by
/// at most this much, and JSON may write one byte of text as six.
const PIECE: usize = 4 << 10;
const _: () = assert!(PIECE <= baton_protocol::event::MAX_TEXT);

/// The error of an attempt that is over, because a newer one has written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a newer attempt writes this run's events")]
pub struct Replaced;

/// The written and the waiting events of an attempt.
#[derive(Debug)]
pub struct EventWriter {
    run: RunId,
    attempt: u32,
    /// The position of the log's last message; the next append must follow it directly.
    position: StreamSeq,
    /// The log's last event, in flight or stored.
    written: EventId,
    /// The id of the next event.
    next: EventId,
    /// Events not yet sent.
    pending: Vec<(u32, EventData)>,
    pending_bytes: usize,
    /// The number of messages in the log.
    messages: u64,
    /// The order of what the log shows.
    order: AnswerOrder,
}

impl EventWriter {
    /// Makes the writer of an attempt at an empty log, as for the first attempt. A later one must
    /// [take the log over](Self::take_over) before it writes.
    pub const fn new(fence: &Fence) -> Self {
        Self {
            run: fence.run,
            attempt: fence.attempt,
            position: StreamSeq::NONE,
            written: EventId::ORIGIN,
            next: EventId::new(fence.attempt, 1),
            pending: Vec::new(),
            pending_bytes: 0,
            messages: 0,
            order: AnswerOrder::new(),
        }
    }

    /// Continues after the log's last message, as the leader has it, if a smaller attempt wrote it.
    /// `resume_after` is the ledger's last event. `last_commit` holds the events up to it that
    /// follow from the last commit: they are shown again unless the log is known to hold them.
    pub fn take_over(
        &mut self,
        tip: Option<&StoredEvents>,
        resume_after: EventId,
        last_commit: Vec<(u32, EventData)>,
    ) -> Result<(), Replaced> {
        // Without a tip, the log aged out or the stream was lost; the ledger knows its last event.
        let last = tip.map_or(EventId::ORIGIN, last_id);
        if last.attempt() >= self.attempt {
            return Err(Replaced);
        }
        (self.position, self.written) =
            tip.map_or((StreamSeq::NONE, resume_after), |tip| (tip.seq, last));
        // After it there are only events of its own attempt, so the log holds it. Events of a later
        // attempt without a commit prove nothing about that.
        let held = last >= resume_after && last.attempt() == resume_after.attempt();
        let again = if held { Vec::new() } else { last_commit };
        let withdrawn = u32::try_from(again.len()).unwrap_or(u32::MAX);
        let reset = AttemptReset {
            // The events may still be in flight, or have been shown before. Because they are
            // withdrawn first, they are shown once.
            resume_after: if resume_after.n() > withdrawn {
                EventId::new(resume_after.attempt(), resume_after.n() - withdrawn)
            } else {
                resume_after
            },
            // Never true, even if the log ends there: a straggler of the attempt before may still
            // land between the look and the append, and then it must be withdrawn.
            continues: false,
        };
        // The log was stored up to there before a commit. If it now ends earlier, the broker has
        // lost the rest, and readers who have not seen it must notice the hole.
        self.written = self.written.max(reset.resume_after);
        self.push(0, EventData::AttemptReset(reset));
        for (step, data) in again {
            self.push(step, data);
        }
        Ok(())
    }

    /// Sets how many messages the log already holds.
    pub const fn count_from(&mut self, messages: u64) {
        self.messages = messages;
    }

    /// Returns the number of messages in the log; the next append adds one.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the id of the next pushed event, once nothing waits.
    pub const fn next_id(&self) -> EventId {
        self.next
    }

    /// Returns the last written event: in flight or stored.
    pub const fn last_id(&self) -> EventId {
        self.written
    }

    /// Adds an event after the waiting ones. Adjacent pieces of the same text become one event, up
    /// to its limit; a longer text becomes several. Returns the id of the last of them.
    pub fn push(&mut self, step: u32, mut data: EventData) -> EventId {
        self.pending_bytes += weight(&data);
        self.order.take(step, &data);
        if let Some((last_step, last)) = self.pending.last_mut()
            && *last_step == step
            && join(last, &data)
        {
            return self.last_pending();
        }
        while let Some(rest) = split_off(&mut data, PIECE) {
            self.pending
                .push((step, std::mem::replace(&mut data, rest)));
        }
        self.pending.push((step, data));
        self.last_pending()
    }

    /// Returns the last pushed event, waiting or not; without one, the event before the attempt's
    /// first.
    pub fn last_pushed(&self) -> EventId {
        if self.pending.is_empty() {
            self.written
        } else {
            self.last_pending()
        }
    }

    /// Returns the id that the last waiting event will have. Ids are dense, and no other event gets
    /// between.
    fn last_pending(&self) -> EventId {
        let before = u32::try_from(self.pending.len().saturating_sub(1)).unwrap_or(u32::MAX);
        EventId::new(self.next.attempt(), self.next.n() + before)
    }

    /// Returns whether so much text waits that the source should be read no further.
    pub const fn is_full(&self) -> bool {
        self.pending_bytes >= PENDING_LIMIT
    }

    /// Makes the next append at `now`: as many waiting events as one message holds. `None` if
    /// nothing waits. The next append may be frozen when this one is known to be
    /// [stored](Self::stored).
    pub fn freeze(&mut self, now: DateTime<Utc>) -> Option<Append> {
        if self.pending.is_empty() {
            return None;
        }
        let first = self.next;
        let (payload, has_end) = self.encode_pending(now);
        Some(Append {
            attempt: self.attempt,
            first,
            position: self.position,
            payload,
            end_unbroken: has_end && !self.order.is_broken(),
        })
    }

    /// Records the position at which the last frozen append was stored.
    pub const fn stored(&mut self, position: StreamSeq) {
        self.position = position;
        self.messages += 1;
    }

    /// Returns the events of one message, and whether they end the run.
    fn encode_pending(&mut self, at: DateTime<Utc>) -> (Bytes, bool) {
        let mut out = Vec::with_capacity(self.pending_bytes.min(MESSAGE_LIMIT) + 512);
        let mut taken = 0;
        let mut has_end = false;
        while out.len() < MESSAGE_LIMIT
            && let Some((step, data)) = self.pending.get_mut(taken)
        {
            taken += 1;
            let event = Event {
                id: self.next,
                prev: self.written,
                run_id: self.run,
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
            has_end |= event.data.is_terminal();
            event.encode_into(&mut out);
            self.written = self.next;
            self.next = self.next.next();
        }
        self.pending.drain(..taken);
        (Bytes::from(out), has_end)
    }
}

/// An append: the same bytes until its fate is known.
#[derive(Debug, Clone)]
pub struct Append {
    attempt: u32,
    /// The id of the first event in it.
    first: EventId,
    position: StreamSeq,
    payload: Bytes,
    end_unbroken: bool,
}

/// The fate of an append that was refused because the log has another last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was stored before, and only the answer was lost.
    Stored(StreamSeq),
    /// It was not stored, and may be repeated after the log's present last message.
    Again,
    /// A newer attempt has written.
    Replaced,
}

impl Append {
    /// Returns the position that the log's last message must have.
    pub const fn position(&self) -> StreamSeq {
        self.position
    }

    /// Returns the events as lines of JSON.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns the events to append.
    pub fn events(&self) -> EventLines {
        EventLines {
            lines: self.payload.clone(),
            end_unbroken: self.end_unbroken,
        }
    }

    /// Judges a refusal by the log's last message, as the leader has it.
    pub fn after_refusal(&mut self, tip: Option<&StoredEvents>) -> Fate {
        let Some(tip) = tip else {
            // The log aged out or was lost under the attempt, and begins anew.
            self.position = StreamSeq::NONE;
            return Fate::Again;
        };
        if tip.payload == self.payload {
            return Fate::Stored(tip.seq);
        }
        let last = last_id(tip);
        if last.attempt() > self.attempt || last >= self.first {
            return Fate::Replaced;
        }
        // The last message is a straggler of a smaller attempt, or the log was restored from an
        // older copy.
        self.position = tip.seq;
        self.chain_behind(last);
        Fate::Again
    }

    /// Makes a straggler the predecessor of the next event, if no event was seen there before. A
    /// *missing* event is not bridged, because readers must notice the gap.
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

/// Returns about how much memory an event takes while it waits.
const fn weight(data: &EventData) -> usize {
    match data {
        EventData::TextDelta(text)
        | EventData::ReasoningDelta(text)
        | EventData::RefusalDelta(text) => text.text.len(),
        EventData::ToolCallDelta(delta) => delta.arguments.len(),
        EventData::AnswerField(field) => field.json.len() + 128,
        EventData::ToolStarted(tool) => tool.arguments.len(),
        EventData::ToolFinished(tool) => tool.result.len(),
        EventData::ApprovalRequested(approval) => approval.arguments.len(),
        _ => 256,
    }
}

/// Appends `next` to `last` if it continues the same text and one event can hold both.
fn join(last: &mut EventData, next: &EventData) -> bool {
    let ((EventData::TextDelta(last), EventData::TextDelta(next))
    | (EventData::ReasoningDelta(last), EventData::ReasoningDelta(next))
    | (EventData::RefusalDelta(last), EventData::RefusalDelta(next))) = (last, next)
    else {
        return false;
    };
    let fits = last.text.len() + next.text.len() <= PIECE;
    if fits {
        last.text.push_str(&next.text);
    }
    fits
}

/// Cuts an event's text at `most` bytes, or before a character that would not fit, and returns the
/// rest as an event of the same kind.
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
        EventData::AnswerField(field) => tail(&mut field.json).map(|json| {
            let more = std::mem::replace(&mut field.more, true);
            let (of, name) = (field.of, field.name.clone());
            EventData::AnswerField(AnswerField {
                of,
                name,
                json,
                more,
            })
        }),
        _ => None,
    }
}

/// Returns the last event of a message.
pub(crate) fn last_event(message: &StoredEvents) -> Option<Event> {
    let last = Event::lines(&message.payload).next_back()?;
    Event::decode(last).ok()
}

fn last_id(message: &StoredEvents) -> EventId {
    last_event(message).map_or(EventId::ORIGIN, |event| event.id)
}

#[cfg(test)]
mod tests {
    use baton_protocol::event::AnswerPart;
    use baton_protocol::{ClaimToken, TenantId};
    use uuid::Uuid;

    use super::*;

    fn text(text: &str) -> EventData {
        EventData::TextDelta(Text { text: text.into() })
    }

    #[test]
    fn a_long_text_becomes_events_that_fit_and_stays_the_same_text() {
        let whole = "aé🦀".repeat(PIECE / 4);
        let mut data = text(&whole);
        let mut pieces = Vec::new();
        while let Some(rest) = split_off(&mut data, PIECE) {
            pieces.push(std::mem::replace(&mut data, rest));
        }
        pieces.push(data);
        let joined: String = pieces
            .iter()
            .map(|piece| match piece {
                EventData::TextDelta(text) => {
                    assert!(text.text.len() <= PIECE);
                    text.text.as_str()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(pieces.len() > 1);
        assert_eq!(joined, whole);
    }

    #[test]
    fn a_long_field_becomes_events_that_fit_and_stays_the_same_json() {
        let json = serde_json::json!(["x".repeat(3 * PIECE)]).to_string();
        let mut data = EventData::AnswerField(AnswerField {
            of: AnswerPart::Message,
            name: "images".into(),
            json: json.clone(),
            more: false,
        });
        let mut pieces = Vec::new();
        while let Some(rest) = split_off(&mut data, PIECE) {
            pieces.push(std::mem::replace(&mut data, rest));
        }
        pieces.push(data);
        let fields: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                EventData::AnswerField(field) => field,
                other => panic!("{other:?}"),
            })
            .collect();
        let joined: String = fields.iter().map(|field| &*field.json).collect();
        assert_eq!(joined, json);
        let (last, others) = fields.split_last().unwrap();
        assert!(others.len() > 2 && others.iter().all(|field| field.more));
        assert!(!last.more);
    }

    /// Guards the memory of an ingress for a client that does not read: it bounds the number of
    /// messages, so each must have a bounded size.
    #[test]
    fn no_message_is_long_however_much_text_waits() {
        let fence = Fence {
            tenant: TenantId::from_uuid(Uuid::nil()),
            run: RunId::from_uuid(Uuid::nil()),
            attempt: 1,
            token: ClaimToken::from_random(1),
        };
        let mut writer = EventWriter::new(&fence);
        writer.push(1, text(&"long ".repeat(PENDING_LIMIT)));
        let mut shown = 0;
        let mut messages = 0;
        while let Some(append) = writer.freeze(DateTime::UNIX_EPOCH) {
            assert!(append.payload().len() < 32 << 10);
            messages += 1;
            for line in Event::lines(append.payload()) {
                match Event::decode(line).unwrap().data {
                    EventData::TextDelta(piece) => shown += piece.text.len(),
                    other => panic!("{other:?}"),
                }
            }
            writer.stored(StreamSeq::from_u64(messages));
        }
        assert_eq!(shown, 5 * PENDING_LIMIT);
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
        let mut full = text(&"x".repeat(PIECE));
        assert!(!join(&mut full, &text("y")));
    }
}
