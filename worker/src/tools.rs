//! The tools that the server executes.
//!
//! A tool is a [`ToolSpec`] (its description for the model, and the effect of executing it twice)
//! and a [`Tool`] (its behaviour). All calls of the model go through [`ToolRegistry::execute`]: it
//! checks the arguments against the schema, ends the call when its time is over, contains panics
//! and truncates long results. It never fails: the model gets the error, and can correct the call.
//!
//! To add a built-in tool, write a file here with both, and a line in [`ToolRegistry::new`].

mod calculator;
mod current_time;
mod http_request;
mod http_tool;
mod mcp;
mod registry;
mod response_body;
mod setup_error;
mod web_search;

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{CallFailure, CallPause, Effect, RunId, ToolSource};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::agent::turn_machine::Resumption;

pub use calculator::Calculator;
pub use current_time::CurrentTime;
pub use http_request::HttpRequest;
pub use http_tool::HttpTool;
pub(crate) use mcp::McpTools;
pub use mcp::{McpProbe, probe_mcp_servers};
pub use registry::{CallSlot, RegisteredTool, ToolRegistry};
pub use setup_error::ToolSetupError;
pub use web_search::WebSearch;

/// The description of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// The tool's name for the model: 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// The description for the model.
    pub description: String,
    /// The JSON Schema of its arguments; it may refer only to itself.
    pub parameters: Value,
    /// Its origin.
    pub source: ToolSource,
    /// The effect of executing a call twice.
    pub effect: Effect,
    /// The longest time that a call may take.
    pub timeout: Duration,
}

/// The behaviour of a tool.
pub trait Tool: Send + Sync + 'static {
    /// Executes one call. The arguments match the schema. The future is dropped when the call's
    /// time is over or its run is stopped.
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>>;
}

/// The identity and the time of a call.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The run.
    pub run: RunId,
    /// The call's step in the run's ledger: the same if the call is repeated after a crash.
    pub step: u32,
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The id of the run's request: HTTP tools are sent it.
    pub request_id: Option<String>,
    /// The W3C trace context of the call: HTTP tools are sent it.
    pub traceparent: Option<String>,
    /// The time.
    pub now: DateTime<Utc>,
    /// The state in which the tool's server has left the call; `None` for a call that was not left.
    pub resumes: Option<Arc<Resumption>>,
}

impl ToolContext {
    /// Returns a key that is the same for every repetition of this call, and for no other call.
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}", self.run, self.step)
    }
}

/// The reason why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The arguments match the schema but make no sense; the text says what to change.
    #[error("{0}")]
    Arguments(String),
    /// The tool failed; the text says why, for the model.
    #[error("{0}")]
    Failed(String),
    /// The tool panicked; the log has the details.
    #[error("the tool crashed")]
    Panicked,
    /// The tool's server has left the call: it goes on from this state.
    #[error("the call has no result yet")]
    Paused(Box<CallPause>),
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// With a result.
    Ok,
    /// There is no such tool.
    UnknownTool,
    /// The arguments were wrong.
    InvalidArguments,
    /// The tool reported why it failed.
    Failed,
    /// Its time was over.
    TimedOut,
    /// It panicked.
    Panicked,
}

impl CallEnd {
    /// The names of the ends that are failures.
    pub const FAILURES: &[&str] = &[
        CallFailure::UnknownTool.as_str(),
        CallFailure::InvalidArguments.as_str(),
        CallFailure::Failed.as_str(),
        CallFailure::TimedOut.as_str(),
        CallFailure::Panicked.as_str(),
    ];

    /// Returns the reason of a failure.
    pub const fn failure(self) -> Option<CallFailure> {
        match self {
            Self::Ok => None,
            Self::UnknownTool => Some(CallFailure::UnknownTool),
            Self::InvalidArguments => Some(CallFailure::InvalidArguments),
            Self::Failed => Some(CallFailure::Failed),
            Self::TimedOut => Some(CallFailure::TimedOut),
            Self::Panicked => Some(CallFailure::Panicked),
        }
    }

    /// Returns the name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self.failure() {
            None => "ok",
            Some(failure) => failure.as_str(),
        }
    }
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutcome {
    /// Whether the tool succeeded.
    pub ok: bool,
    /// The text for the model: the result, or the error and its remedy.
    pub content: String,
    /// The end of the call.
    pub end: CallEnd,
    /// Whether the content was truncated.
    pub cut: bool,
}
