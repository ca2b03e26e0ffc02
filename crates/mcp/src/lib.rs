//! The client of MCP servers (Model Context Protocol), over streamable HTTP or the pipes of a local program.
//!
//! An [`Endpoint`] is a server as the operator configured it. A [`Server`] keeps a connection to one,
//! and its list of tools; it opens the connection when it is first needed, and again after a loss.
//! [`Server::call`] calls a tool. Dropping that future cancels the call at the server. A server of 2026-07-28 may
//! leave the call with questions to a person ([`CallAnswer::Input`]), and gets it again with the answers; or go on with it
//! as a task ([`CallAnswer::Task`]), which is asked about until it has ended. The bearer token of its
//! requests is fixed, or comes from a token server ([`ClientCredentials`]).
//!
//! The protocol is the SDK's ([`rmcp`]): 2026-07-28 if the server answers `server/discover`, else the
//! newest of 2025-11-25 and its predecessors. Connections go through the guard of
//! [`baton_outbound`], to the origin of the endpoint's URL alone.
//!
//! A server is not trusted: every message has a largest size, a list has a largest length, and texts
//! are cleared of the credentials that were sent to the server.

mod authorized;
mod call;
mod connection;
mod endpoint;
mod error;
mod listing;
mod outcome;
mod program;
mod server;
mod tokens;

pub use call::{CallAnswer, InputNeeded, NewTask, Question, TaskState, TaskTimes, ToolCall};
pub use connection::{Connection, ServerInfo};
pub use endpoint::Endpoint;
pub use error::McpError;
pub use listing::{Listing, ToolInfo};
pub use outcome::CallOutcome;
pub use program::Program;
pub use server::{Health, Server};
pub use tokens::{ClientAuth, ClientCredentials};
