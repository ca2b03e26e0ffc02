//! The part of a run that HTTP and the bus share: its acceptance, its events, cancelling and
//! deciding.
//!
//! HTTP routes and programs' messages both end here. No code here knows a route, a status line or a
//! frame.

pub(crate) mod attachments;
pub(crate) mod attempts;
pub(crate) mod cancel;
pub(crate) mod decide;
pub(crate) mod event_source;
pub(crate) mod ledger;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod submission;
