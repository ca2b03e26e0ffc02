//! Whole streams, made of a run's events.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod golden;
mod log;
mod midway;
mod properties;
mod record;
