//! The order of a model's answer: the ledger keeps a turn as reasoning, text, refusal, calls and counts.
//! Most models write in that order, and then a log shows what the ledger has, only in smaller pieces.

use crate::event::{AnswerPart, EventData};

/// The place of a piece among those of its turn, in the ledger's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerPlace {
    /// A piece of the reasoning.
    Reasoning,
    /// A piece of the text.
    Text,
    /// A piece of the refusal.
    Refusal,
    /// A piece of the client's call with this index.
    Call(u32),
    /// A count of tokens.
    Counts,
}

impl AnswerPlace {
    /// Returns the place of an event's piece; `None` if the event shows no piece of an answer, or an empty one.
    pub const fn of(event: &EventData) -> Option<Self> {
        match event {
            EventData::ReasoningDelta(delta) if !delta.text.is_empty() => Some(Self::Reasoning),
            EventData::TextDelta(delta) if !delta.text.is_empty() => Some(Self::Text),
            EventData::RefusalDelta(delta) if !delta.text.is_empty() => Some(Self::Refusal),
            EventData::ToolCallDelta(delta) => Some(Self::Call(delta.index)),
            EventData::AnswerField(field) if matches!(field.of, AnswerPart::Usage) => {
                Some(Self::Counts)
            }
            _ => None,
        }
    }
}

/// A watch over a log: whether it shows what the ledger has, in the same order.
#[derive(Debug, Clone, Default)]
pub struct AnswerOrder {
    /// The step and the place of the last piece.
    last: Option<(u32, AnswerPlace)>,
    is_broken: bool,
}

impl AnswerOrder {
    /// Makes the watch over an empty log.
    pub const fn new() -> Self {
        Self {
            last: None,
            is_broken: false,
        }
    }

    /// Takes the next event of the log.
    pub fn take(&mut self, step: u32, event: &EventData) {
        self.is_broken |= matches!(event, EventData::AttemptReset(_));
        let Some(place) = AnswerPlace::of(event) else {
            return;
        };
        self.is_broken |= self
            .last
            .is_some_and(|(of, last)| of == step && place < last);
        self.last = Some((step, place));
    }

    /// Returns whether an event was withdrawn, or a turn went back to an earlier part of its answer.
    pub const fn is_broken(&self) -> bool {
        self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AnswerField, AttemptReset, Text, ToolCallDelta};
    use crate::event_id::EventId;

    fn piece(text: &str) -> Text {
        Text { text: text.into() }
    }

    fn call(index: u32) -> EventData {
        EventData::ToolCallDelta(ToolCallDelta {
            index,
            id: None,
            name: None,
            arguments: String::new(),
        })
    }

    fn is_broken(events: &[(u32, EventData)]) -> bool {
        let mut order = AnswerOrder::new();
        for (step, event) in events {
            order.take(*step, event);
        }
        order.is_broken()
    }

    #[test]
    fn turns_in_the_ledgers_order_leave_it_whole() {
        let reasoning = || EventData::ReasoningDelta(piece("r"));
        let text = || EventData::TextDelta(piece("t"));
        let counts = EventData::AnswerField(AnswerField {
            of: AnswerPart::Usage,
            name: "details".into(),
            json: "{}".into(),
            more: false,
        });
        let empty = EventData::ReasoningDelta(piece(""));
        assert!(!is_broken(&[
            (1, reasoning()),
            (1, text()),
            (1, empty),
            (1, text()),
            (1, EventData::RefusalDelta(piece("no"))),
            (1, call(0)),
            (1, call(0)),
            (1, call(1)),
            (1, counts),
            (4, reasoning()),
            (4, text()),
        ]));
    }

    #[test]
    fn a_turn_that_goes_back_or_is_withdrawn_breaks_it() {
        let reasoning = || (2, EventData::ReasoningDelta(piece("r")));
        let text = || (2, EventData::TextDelta(piece("t")));
        let reset = EventData::AttemptReset(AttemptReset {
            resume_after: EventId::ORIGIN,
            continues: false,
        });
        assert!(is_broken(&[text(), reasoning()]));
        assert!(is_broken(&[(2, call(0)), text()]));
        assert!(is_broken(&[(2, call(1)), (2, call(0))]));
        assert!(is_broken(&[text(), (0, reset), text()]));
    }
}
