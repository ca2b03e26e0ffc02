//! The part of a run that HTTP and the bus share: accepting, following, cancelling, deciding.
//!
//! HTTP routes and programs' messages both end here. No code here knows routes, status lines or
//! frames.

pub(crate) mod attachments;
pub(crate) mod attempts;
pub(crate) mod await_end;
pub(crate) mod cancel;
pub(crate) mod decide;
pub(crate) mod event_source;
pub(crate) mod follow_up;
pub(crate) mod followers;
pub(crate) mod inputs;
pub(crate) mod ledger;
pub(crate) mod reader;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod submission;
mod titles;
