//! A caller's request, the same for every door.

mod chat;
mod given_calls;
mod legacy;
mod messages;
mod native;
mod stream_options;
mod thread;
mod tools;
mod travelling;

use baton_protocol::{
    CompactionRule, GivenCall, Lane, OfferedTool, OnLimit, RawFields, ThreadId, UseLimits,
};
use baton_store::{Answers, OnBusy};
use serde_json::value::RawValue;

pub use chat::ChatSubmission;
pub use given_calls::{ExecuteCall, ExecuteCalls, MAX_GIVEN_CALLS, ToolCallRequest};
pub use messages::{read_messages, user_message};
pub use native::NativeRequest;
pub use thread::read_on_busy;
pub use tools::MAX_TOOLS;
pub use travelling::{MAX_UNREAD_BYTES, MAX_UNREAD_FIELDS};

/// A request for a run, read and checked for form, but not yet resolved against agents or grants.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The agent, if it is named as such.
    pub agent: Option<String>,
    /// The model, or an agent's name in its field.
    pub model: Option<String>,
    /// An array of OpenAI chat messages, as the caller wrote it; empty only for given calls.
    pub messages: Box<RawValue>,
    /// The caller's own tools, as the caller wrote them.
    pub tools: Option<Box<RawValue>>,
    /// The names of those tools.
    pub tool_names: Vec<String>,
    /// The server-side tools that it offers besides the agent's, with rules that come on top of the agent's.
    pub server_tools: Vec<OfferedTool>,
    /// The agent's tools that it does not offer.
    pub left_out: Vec<String>,
    /// The answers to the questions of an earlier run, which ends with the acceptance of this one.
    pub answers: Option<Answers>,
    /// The calls that the run consists of; it then asks no model.
    pub calls: Vec<GivenCall>,
    /// All fields that are passed on to the upstream unread.
    pub params: RawFields,
    /// The caller's data that is kept with the run; a JSON object of at most 16 KiB.
    pub metadata: Option<RawFields>,
    /// Whether the caller is shown the answer while it is made and cannot take any of it back.
    pub shown_for_good: bool,
    /// The settings of a request of the Responses route, which are kept with the run.
    pub response: Option<Box<RawValue>>,
    /// The rule by which the run compacts its conversation.
    pub compaction: Option<CompactionRule>,
    /// The thread that the run continues, and the rule for a busy one.
    pub thread: Option<(ThreadId, OnBusy)>,
    /// The queue.
    pub lane: Lane,
    /// The most model turns, if fewer than the configured limit.
    pub max_turns: Option<u32>,
    /// The most tokens over all turns.
    pub max_total_tokens: Option<u64>,
    /// The most that the run may use up.
    pub most: UseLimits,
    /// The effect of reaching one of those limits.
    pub on_limit: Option<OnLimit>,
}
