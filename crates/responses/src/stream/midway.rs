//! A stream that goes on in the middle of a text, without the log before it.
//!
//! The record of a run that has ended says what the earlier turns showed, and the whole text of the
//! turn that the cursor is in. If nothing was ever withdrawn, the log showed the same, in smaller
//! pieces, so that only the log after the cursor is read.

use baton_protocol::{Event, EventData};
use bytes::BytesMut;

use super::ResponseStream;
use super::frames::place;
use super::shown::TextKind;
use crate::sequence::SequenceNumber;

impl ResponseStream {
    /// Returns whether a stream may go on after this frame without the log before it: no item had a
    /// second part until then, and the frame can be the last one of a delta.
    pub fn may_begin_midway(after: SequenceNumber) -> bool {
        after.extra == 0 && after.frame >= place::DELTA && after.frame != place::END
    }

    /// Prepares for a log that begins after `at`, the event of the cursor, in a log in which nothing was
    /// ever withdrawn. `rebuilt` are the events of the record. Returns `false`, and changes nothing, if
    /// the stream needs the log from its first event.
    pub fn begin_midway(&mut self, at: &Event, rebuilt: &[Event]) -> bool {
        let may_begin =
            |after: SequenceNumber| after.event == at.id && Self::may_begin_midway(after);
        if !self.frames.after().is_some_and(may_begin)
            || !matches!(at.data, EventData::TextDelta(_))
        {
            return false;
        }
        let Some(text) = only_text(rebuilt, at.step) else {
            return false;
        };
        let is_earlier = |event: &&Event| event.id < at.id && event.step != at.step;
        let earlier: Vec<_> = rebuilt.iter().take_while(is_earlier).collect();
        // The sealed summary is no part of the event.
        if earlier
            .iter()
            .any(|event| matches!(event.data, EventData::ContextCompacted(_)))
        {
            return false;
        }
        let mut seen = BytesMut::new();
        self.begin(&mut seen);
        for event in earlier {
            self.write(&mut seen, event);
        }
        self.frames.begin_event(at.id);
        self.text(&mut seen, at, TextKind::Output, &text);
        debug_assert!(seen.is_empty(), "the client has seen all of it");
        let parts = self.shown.iter_mut().flat_map(|shown| &mut shown.parts);
        if let Some(open) = parts.last() {
            open.is_whole = true;
        }
        true
    }
}

/// Returns the text of a turn that consists of one; `None` if it has other items, which may precede
/// the text, or no text.
fn only_text(rebuilt: &[Event], step: u32) -> Option<String> {
    let mut whole = String::new();
    for event in rebuilt.iter().filter(|event| event.step == step) {
        match &event.data {
            EventData::TextDelta(delta) => whole.push_str(&delta.text),
            EventData::ReasoningDelta(_)
            | EventData::RefusalDelta(_)
            | EventData::ToolCallDelta(_)
            | EventData::ToolStarted(_)
            | EventData::ToolFinished(_)
            | EventData::ContextCompacted(_) => return None,
            _ => {}
        }
    }
    (!whole.is_empty()).then_some(whole)
}
