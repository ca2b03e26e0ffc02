//! The tools that the server executes.
//!
//! A tool is a [`ToolSpec`] (what the model is told, and what executing it twice would mean) and a
//! [`Tool`] (what it does). [`ToolRegistry::execute`] stands between the model and all of them: it
//! checks the arguments against the schema, ends the call when its time is up, contains panics and
//! cuts what is too long. It never fails: what went wrong is told to the model, which can mend it.
//!
//! To add a built-in tool: a file here with both, and a line in [`ToolRegistry::new`].

mod arguments;
mod calculator;
mod current_time;
mod http_tool;
mod registry;
mod setup_error;

use std::time::Duration;

use baton_protocol::{Effect, RunId};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::Value;

pub use calculator::Calculator;
pub use current_time::CurrentTime;
pub use http_tool::HttpTool;
pub use registry::{RegisteredTool, ToolRegistry};
pub use setup_error::ToolSetupError;

/// What is known of a tool without calling it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// What the model calls it: 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What the model is told about it.
    pub description: String,
    /// The JSON Schema of its arguments; it may refer only to itself.
    pub parameters: Value,
    /// What executing it twice would mean.
    pub effect: Effect,
    /// How long a call may take.
    pub timeout: Duration,
}

/// What a tool does.
pub trait Tool: Send + Sync + 'static {
    /// Executes one call. The arguments match the schema. The future is dropped when the call's
    /// time is up or its run is stopped.
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>>;
}

/// Which call this is.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The run.
    pub run: RunId,
    /// The call's place in the run's ledger: the same when the call is repeated after a crash.
    pub step: u32,
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The time.
    pub now: DateTime<Utc>,
}

impl ToolContext {
    /// The same for every repetition of this call, and for no other call.
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}", self.run, self.step)
    }
}

/// A call did not bring a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The arguments match the schema and make no sense all the same; says what to change.
    #[error("{0}")]
    Arguments(String),
    /// The tool failed; says why, for the model.
    #[error("{0}")]
    Failed(String),
    /// The tool panicked; the log has the rest.
    #[error("the tool crashed")]
    Panicked,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// With a result.
    Ok,
    /// There is no such tool.
    UnknownTool,
    /// The arguments were wrong.
    InvalidArguments,
    /// The tool said why it could not.
    Failed,
    /// Its time was up.
    TimedOut,
    /// It panicked.
    Panicked,
}

impl CallEnd {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UnknownTool => "unknown_tool",
            Self::InvalidArguments => "invalid_arguments",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutcome {
    /// Whether the tool did what it was asked.
    pub ok: bool,
    /// What the model is told: the result, or what went wrong and how to mend it.
    pub content: String,
    /// How the call ended.
    pub end: CallEnd,
    /// Whether the content was cut.
    pub cut: bool,
}
