//! The ingress over real HTTP, with a real database and a real broker. The worker is played by the
//! test, event by event, so that each moment of a run can be held.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod chat;
mod disconnect;
mod fixture;
mod idempotency;
mod refusals;
mod replay;
mod runs;
mod stopping;
