//! What a reader of one run's log has seen, and what it makes of the next event. Pure.

use baton_protocol::{Event, EventData, EventId};

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: pass it on.
    Deliver,
    /// It was seen before, or comes from an attempt that has been replaced.
    Drop,
    /// Something before it is missing: read the log from the last event seen.
    Gap,
}

/// A reader's place in a run's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    last: EventId,
    highest_attempt: u32,
    /// The last event of the log that was looked at: `last`, or one behind it that was dropped
    /// because a worker wrote it which had been replaced. The next event may name it.
    log_end: EventId,
}

impl Cursor {
    /// Behind the event `id`; before all events for [`EventId::ORIGIN`].
    pub const fn after(id: EventId) -> Self {
        Self {
            last: id,
            highest_attempt: id.attempt(),
            log_end: id,
        }
    }

    /// The last event that was passed on.
    pub const fn last(&self) -> EventId {
        self.last
    }

    /// Decides about the event, and moves behind it if it is to be passed on.
    pub fn accept(&mut self, event: &Event) -> Verdict {
        let attempt = event.id.attempt();
        let follows = event.prev == self.log_end || event.prev == self.last;
        if attempt < self.highest_attempt {
            if follows {
                self.log_end = event.id;
            }
            return Verdict::Drop;
        }
        if event.id <= self.last {
            return Verdict::Drop;
        }
        if !follows && !self.covers(event) {
            return Verdict::Gap;
        }
        self.last = event.id;
        self.log_end = event.id;
        self.highest_attempt = attempt;
        Verdict::Deliver
    }

    /// Whether everything that the event leaves standing has been seen: a reset withdraws what
    /// lies beyond its id, so that nothing there can be missed.
    fn covers(&self, event: &Event) -> bool {
        match &event.data {
            EventData::AttemptReset(reset) => !reset.continues && reset.resume_after <= self.last,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
