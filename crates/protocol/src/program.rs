//! Messages that programs publish to an ingress about a run. (`job::submit` has the one that makes
//! a run.)
//!
//! Every message is a JSON object with `v`, `run_id` and an optional `request_id`. The subject
//! gives the tenant, key and verb, because the broker checks that. All other fields are checked
//! here.

mod control;
mod envelope;
mod history;

pub use control::{CancelMessage, ControlMessage, DecideMessage, SteerMessage, SteerMode};
pub use envelope::BadMessage;
pub(crate) use envelope::{Envelope, cut};
pub use history::HistoryMessage;
