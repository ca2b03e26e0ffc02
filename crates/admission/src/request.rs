//! What a caller asks for, whichever door it came through.

mod chat;
mod legacy;
mod messages;
mod native;
mod tools;
mod travelling;

use baton_protocol::{Lane, RawFields};
use serde_json::value::RawValue;

pub use chat::ChatSubmission;
pub use native::NativeRequest;
pub use tools::MAX_TOOLS;
pub use travelling::{MAX_UNREAD_BYTES, MAX_UNREAD_FIELDS};

/// A request for a run, read and checked for form; not yet resolved against agents or grants.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The agent named outright.
    pub agent: Option<String>,
    /// The model, or an agent's name in its place.
    pub model: Option<String>,
    /// A non-empty array of OpenAI chat messages, as the caller wrote it.
    pub messages: Box<RawValue>,
    /// The caller's own tools, as the caller wrote them.
    pub tools: Option<Box<RawValue>>,
    /// The names of those tools.
    pub tool_names: Vec<String>,
    /// All that travels to the upstream unread.
    pub params: RawFields,
    /// What the caller keeps with the run; a JSON object of at most 16 KiB.
    pub metadata: Option<RawFields>,
    /// The queue.
    pub lane: Lane,
    /// Model turns at most, if fewer than the configured limit.
    pub max_turns: Option<u32>,
    /// Tokens over all turns at most.
    pub max_total_tokens: Option<u64>,
}
