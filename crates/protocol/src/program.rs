//! Messages that programs publish to an ingress about a run. (`job::submit` has the one that makes a
//! run.)
//!
//! Every message is a JSON object with `v`, `run_id` and, if its sender likes, `request_id`. The
//! subject says which tenant, key and verb it is for, because the broker checks that; nothing else
//! of a message is believed before it was read here.

mod control;
mod envelope;
mod history;

pub use control::{CancelMessage, ControlMessage, DecideMessage};
pub use envelope::BadMessage;
pub(crate) use envelope::{Envelope, cut};
pub use history::HistoryMessage;
