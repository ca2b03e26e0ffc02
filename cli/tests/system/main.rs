//! Baton as it runs in production: every role a process of its own, on a real nats-server and a
//! real PostgreSQL, with a scripted model. Processes and servers are killed, frozen and stopped;
//! the clients' view and the ledger must agree all the same.
//!
//! No test waits for a time to pass: each waits for an event that must happen, and fails without
//! it.
//!
//! `assert_whole` checks after every run:
//!
//! - one terminal event, the last of the log (the ledger ends a run before the end is shown, and
//!   any process that finds it ended appends the event);
//! - event ids increase, each names its predecessor (the append's compare-and-set, the follower's
//!   gap check);
//! - the text that remains after all resets is the recorded message, byte for byte (a step's deltas
//!   are confirmed before its commit, and a reset withdraws the text that no commit names).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent_files;
mod agents_command;
mod approvals;
mod approvals_command;
mod backup;
mod broker;
mod budgets;
mod calculator;
mod cancel;
mod chat;
mod database;
mod dead;
mod dialects;
mod disk_full;
mod doctor;
mod first_install;
mod five_tools;
mod fixture;
mod hand_over;
mod identity;
mod ingress;
mod log_level;
mod logs;
mod lost_bus;
mod mcp;
mod mcp_approvals;
mod mcp_input;
mod mcp_responses;
mod mcp_tasks;
mod metrics;
mod process_limits;
mod prompts;
mod reload;
mod responses;
mod secrets;
mod service_manager;
mod steering;
mod takeover;
mod titles;
mod tool_approvals;
mod tools;
mod traces;
mod unanswered;
mod upstreams;
