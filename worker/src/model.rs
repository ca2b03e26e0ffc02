//! The upstream: any server that speaks the OpenAI chat API, always asked to stream.
//!
//! [`Upstreams::start_turn`] sends a rendered request and returns once the first token is there;
//! until then it tries again by its [`RetryPolicy`]. What fails later fails this try of the turn: the
//! attempt decides whether what was shown can be withdrawn and asked for again. Dropping a [`TurnStream`], or the future that makes one,
//! closes the connection, which is what tells the upstream to stop.

mod answer_decoder;
mod client;
mod config;
mod error;
mod exchange;
mod health;
mod plain_answer;
mod probe;
mod quote;
mod render_request;
mod retry;
mod retry_after;
mod tool_choice;
mod turn_stream;
mod upstreams;

pub use baton_openai::{Delta, FieldOf};
pub use client::{ModelClient, TurnContext, TurnParts};
pub use config::{ModelConfig, ModelSetupError, Timeouts};
pub use error::{ModelError, Wait};
pub use exchange::Exchange;
pub use probe::{ProbedTurn, UpstreamProbe, probe_upstreams};
pub use retry::RetryPolicy;
pub use turn_stream::{CalledTool, FinishedTurn, PartialTurn, TurnStream};
pub use upstreams::{Fallback, StartedTurn, Upstreams};

#[cfg(test)]
mod tests;
