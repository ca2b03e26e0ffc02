//! Submits runs: the same for HTTP, for messages of programs and for schedules.
//!
//! ```text
//! body ──► request (chat | native) ──► resolve ──► RunSpec ──► accept (one commit) ──► publish
//! ```
//!
//! [`request`] reads and checks a body; [`resolve`] finds the agent and its allowed tools, under
//! the caller's [`Grant`]; [`Admission`] writes the row and publishes the job. A committed row is
//! acceptance, and no answer of the broker revokes it.

mod agent;
mod agents;
mod error;
mod grant;
mod json;
pub mod passed_on;
pub mod request;
pub mod resolve;
mod route_check;
mod submit;
mod title;
pub mod tool_arguments;

pub use agent::{Agent, AgentSource, BuiltInAgent, check_definition};
pub use error::{Invalid, SubmitError};
pub use grant::Grant;
pub use json::{MAX_JSON_DEPTH, MAX_JSON_VALUES, check_shape, read_json};
pub use request::SubmitRequest;
pub use route_check::needs;
pub use submit::{
    Accepted, Admission, CreatedRun, OnClose, Policy, PublishOutcome, Rules, Sender, Submission,
};
pub use title::{TitleWish, title_source};
