//! The ledger on a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accepting;
mod agents;
mod approval_grants;
mod approvals;
mod audit;
mod audit_parts;
mod bootstrapping;
mod budget_questions;
mod budgets;
mod call_input;
mod call_tasks;
mod fences;
mod fixture;
mod groups;
mod isolation;
mod keys;
mod makers;
mod metering;
mod people;
mod races;
mod reading;
mod rescuing;
mod run_inputs;
mod runs_on_threads;
mod schema;
mod sessions;
mod steps;
mod tenants;
mod threads;
mod timeline;
mod titles;
mod tool_approvals;
mod transitions;
