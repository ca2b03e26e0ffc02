//! Submitting a run: the same for HTTP, for jobs from the bus and for schedules.
//!
//! ```text
//! body ──► request (chat | native) ──► resolve ──► RunSpec ──► accept (one commit) ──► publish
//! ```
//!
//! [`request`] reads a body and says what is wrong with it; [`resolve`] finds the agent and what it
//! may use, under the caller's [`Grant`]; [`Admission`] writes the row and publishes the job. A
//! committed row is acceptance: nothing that the broker says afterwards takes it back.
//!
//! [`terminal_event`] is the other end of a run's way: whoever finds one ended tells its followers;
//! [`parked_events`] does the same for one that waits for a person; [`replay`] tells those who come
//! when its events are gone.

mod error;
mod json;
pub mod metering;
pub mod parked_events;
pub mod passed_on;
mod prices;
pub mod replay;
pub mod request;
pub mod resolve;
mod submit;
pub mod terminal_event;

pub use error::{Invalid, SubmitError};
pub use json::{MAX_JSON_DEPTH, MAX_JSON_VALUES, check_shape, read_json};
pub use metering::{Metering, ToolSizes};
pub use prices::Prices;
pub use request::SubmitRequest;
pub use resolve::{Agent, AgentSource, BuiltInAgent, Grant, Upstream};
pub use submit::{
    Acceptance, Accepted, Admission, CreatedRun, Policy, PublishOutcome, Rules, Submission,
};
