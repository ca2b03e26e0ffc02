//! Tests the ingress over real HTTP, with a real database and a real broker. The test plays the
//! worker, event by event, so that it can stop a run at each moment.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod accepted;
mod agents;
mod api_keys;
mod approvals;
mod audit;
mod authority;
mod bad_requests;
mod body_bytes;
mod chat;
mod clocks;
mod compacting;
mod conversations;
mod counting;
mod disconnect;
mod documented_answers;
mod feedback;
mod fixture;
mod from_the_bus;
mod front;
mod heads_and_bodies;
mod hostile_programs;
mod idempotency;
mod isolation;
mod issuers;
mod keeping;
mod mcp_servers;
mod metering;
mod parked;
mod passed_on;
mod people;
mod programs;
mod raised_limits;
mod rates;
mod refusals;
mod replay;
mod responses;
mod revocation;
mod runs;
mod sign_in;
mod slow_clients;
mod steering;
mod stopping;
mod threads;
mod tickets;
mod titles;
mod tools;
