//! A run's event log: its writer, its repair and its replay.
//!
//! ```text
//! holder's events ──► event_writer ──► publisher ─┐
//! an ended run's row ──► terminal_event ──► repair ┼─► append ──► the run's log
//! a parked run's row ──► parked_events ──► repair ─┘
//! the ledger's rows ──► replay ──► a follower, if the log no longer has the events
//! ```
//!
//! Only the newest attempt's holder writes a run's events, and each append names the log's last
//! message, so the broker refuses a holder that was replaced. If no holder is left, any process
//! may append the events that the ledger recorded by id: the end of a run, or the questions of a
//! parked one.

mod append;
pub mod event_writer;
pub mod parked_events;
mod publisher;
mod repair;
pub mod replay;
pub mod terminal_event;

pub use append::EventLogs;
pub use publisher::{EventPublisher, PublishEventsError, shown_by_commit};
pub use repair::{RecordedRuns, RepairError, repair_end, repair_questions};
