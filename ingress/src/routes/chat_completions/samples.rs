//! Events for tests.

use baton_protocol::{Event, EventData, EventId, RunId};

pub(super) fn run() -> RunId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

pub(super) fn event(id: EventId, data: EventData) -> Event {
    let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
    Event {
        id,
        prev: EventId::ORIGIN,
        run_id: run(),
        step: 1,
        at,
        data,
    }
}
