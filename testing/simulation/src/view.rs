//! The events that one client has seen.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use baton_nats::StoredEvents;
use baton_protocol::{Event, EventId, RunId};

/// The events that one client has seen of a run, over all its connections.
pub(crate) struct View {
    pub(crate) run: RunId,
    /// The cursor that it began with.
    pub(crate) start: EventId,
    pub(crate) events: RefCell<Vec<Event>>,
    /// Whether it was sent the end.
    pub(crate) finished: Cell<bool>,
    /// The reason for which it cannot be served.
    pub(crate) refused: RefCell<Option<&'static str>>,
}

impl View {
    pub(crate) fn new(run: RunId, start: EventId) -> Rc<Self> {
        Rc::new(Self {
            run,
            start,
            events: RefCell::default(),
            finished: Cell::new(false),
            refused: RefCell::default(),
        })
    }

    pub(crate) fn last(&self) -> EventId {
        self.events
            .borrow()
            .last()
            .map_or(self.start, |event| event.id)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.finished.get() || self.refused.borrow().is_some()
    }
}

/// Returns the events of a message.
pub(crate) fn events_of(message: &StoredEvents) -> Vec<Event> {
    Event::lines(&message.payload)
        .filter_map(|line| Event::decode(line).ok())
        .collect()
}
