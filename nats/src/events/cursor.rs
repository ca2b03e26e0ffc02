//! A reader's place in one run's log, and its decision about the next event. Pure.

use baton_protocol::{Event, EventData, EventId};

/// A reader's decision about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: pass it on.
    Deliver,
    /// It was seen before, or a replaced attempt wrote it.
    Drop,
    /// Something before it is missing: read the log from the last event seen.
    Gap,
}

/// A reader's place in a run's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    last: EventId,
    highest_attempt: u32,
    /// The last event of the log that was looked at: `last`, or a later one that was dropped
    /// because a replaced worker wrote it. The next event may name it.
    log_end: EventId,
}

impl Cursor {
    /// Returns the place after the event `id`; before all events for [`EventId::ORIGIN`].
    pub const fn after(id: EventId) -> Self {
        Self {
            last: id,
            highest_attempt: id.attempt(),
            log_end: id,
        }
    }

    /// Returns the last event that was passed on.
    pub const fn last(&self) -> EventId {
        self.last
    }

    /// Decides about the event, and moves past it if it is to be passed on.
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

    /// Returns whether every event that this one keeps has been seen. A reset withdraws all events
    /// after its id, so none of those can be missed.
    fn covers(&self, event: &Event) -> bool {
        match &event.data {
            EventData::AttemptReset(reset) => !reset.continues && reset.resume_after <= self.last,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
