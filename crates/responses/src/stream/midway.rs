//! A stream that goes on in the middle of a log, without the log before it.
//!
//! An unbroken log of a run that has ended shows what the record has, in the same order and in smaller
//! pieces. So the record has all items before the cursor, and the whole of the one that the cursor is in,
//! and only the log after the cursor is read.

use baton_protocol::{AnswerPlace, Event, EventData, EventId};
use bytes::BytesMut;

use super::ResponseStream;
use super::frames::place;
use super::shown::Shown;
use crate::ids::ItemKind;
use crate::sequence::SequenceNumber;

impl ResponseStream {
    /// Returns whether a stream may go on after this frame without the log before it: an unbroken log has no
    /// extra items.
    pub fn may_begin_midway(after: SequenceNumber) -> bool {
        after.extra == 0 && after.event != EventId::ORIGIN
    }

    /// Prepares for an unbroken log that begins after `at`, the event of the cursor. `rebuilt` are the events
    /// of the record, and `sealed` returns the sealed summary of a step. Returns the frames of `at` that the
    /// client has not seen; `None`, and changes nothing, if the stream needs the log from its first event.
    pub fn begin_midway<'a>(
        &mut self,
        at: &Event,
        rebuilt: &[Event],
        sealed: impl Fn(u32) -> Option<&'a str>,
    ) -> Option<BytesMut> {
        let after = self.frames.after()?;
        if after.event != at.id || !Self::may_begin_midway(after) {
            return None;
        }
        let turn = match AnswerPlace::of(&at.data) {
            // Whether the frames before the delta belong to it is not known.
            Some(_) if after.frame < place::DELTA => return None,
            Some(place) => Some(turn_until(rebuilt, at.step, place)?),
            None if is_recorded(rebuilt, at) => None,
            None => return None,
        };
        let mut out = BytesMut::new();
        self.begin(&mut out);
        let is_of_turn = |event: &Event| {
            turn.is_some() && event.step == at.step && AnswerPlace::of(&event.data).is_some()
        };
        let before = rebuilt.iter().filter(|event| event.id < at.id);
        for event in before.filter(|event| !is_of_turn(event)) {
            self.write_recorded(&mut out, event, &sealed);
        }
        match turn {
            None => self.write_recorded(&mut out, at, &sealed),
            Some(turn) => {
                for piece in turn {
                    let mut piece = piece.clone();
                    piece.id = at.id;
                    self.write(&mut out, &piece);
                }
                if let Some(open) = self.shown.iter_mut().rfind(|shown| shown.is_open()) {
                    hold_whole(open);
                }
            }
        }
        Some(out)
    }

    /// Writes an event of the record, with its sealed summary if it shows one.
    fn write_recorded<'a>(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        sealed: &impl Fn(u32) -> Option<&'a str>,
    ) {
        if matches!(event.data, EventData::ContextCompacted(_))
            && let Some(summary) = sealed(event.step)
        {
            self.use_summary(summary.to_owned());
        }
        self.write(out, event);
    }
}

/// Returns the record's pieces of a turn up to the part that has this place; `None` if the record does not
/// say which part that is.
fn turn_until(rebuilt: &[Event], step: u32, until: AnswerPlace) -> Option<Vec<&Event>> {
    let places = || {
        let of_turn = rebuilt.iter().filter(move |event| event.step == step);
        of_turn.filter_map(|event| Some((AnswerPlace::of(&event.data)?, event)))
    };
    match until {
        AnswerPlace::Reasoning | AnswerPlace::Text | AnswerPlace::Refusal => {}
        // Several calls may have got their indexes in another order than the record has.
        AnswerPlace::Call(_) => {
            let is_other = |place| matches!(place, AnswerPlace::Call(_)) && place != until;
            if places().any(|(place, _)| is_other(place)) {
                return None;
            }
        }
        AnswerPlace::Counts => return None,
    }
    places().find(|(place, _)| *place == until)?;
    let shown = places().filter(|(place, _)| *place <= until);
    Some(shown.map(|(_, event)| event).collect())
}

/// Returns whether the record has this event with everything that the log has before it.
fn is_recorded(rebuilt: &[Event], at: &Event) -> bool {
    let is_known = rebuilt.iter().any(|event| event.id == at.id);
    match &at.data {
        EventData::RunStarted(_) | EventData::Usage(_) | EventData::ContextCompacted(_) => is_known,
        // A call that never ended is no part of the record. A turn begins after the ends of all calls.
        EventData::ToolStarted(_) | EventData::ToolFinished(_) | EventData::InputApplied(_) => {
            let is_later_turn =
                |event: &Event| event.id > at.id && AnswerPlace::of(&event.data).is_some();
            is_known && rebuilt.iter().any(is_later_turn)
        }
        EventData::TextDelta(_)
        | EventData::ReasoningDelta(_)
        | EventData::RefusalDelta(_)
        | EventData::ToolCallDelta(_)
        | EventData::AnswerField(_)
        | EventData::AttemptReset(_)
        | EventData::ApprovalRequested(_)
        | EventData::BudgetReached(_)
        | EventData::InputAccepted(_)
        | EventData::RunCompleted(_)
        | EventData::RunFailed(_)
        | EventData::RunCancelled(_)
        | EventData::Unknown(_) => false,
    }
}

/// Marks what the record has of an item as the whole, so that later pieces of it add nothing.
fn hold_whole(open: &mut Shown) {
    match open.parts.last_mut() {
        Some(part) => part.is_whole = true,
        None => open.has_all_arguments = matches!(open.kind, ItemKind::ClientCall(_)),
    }
}
