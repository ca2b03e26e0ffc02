//! The OpenAI Responses wire, in both directions: requests become what a run is made from, and a
//! run's events and records become response objects, items and stream events.
//!
//! Nothing here does I/O or reads a clock. [`CreateResponse`] reads the body of
//! `POST /v1/responses`; [`fields`] lists its fields and the use of each. [`ResponseHead`] writes
//! the response object. [`ResponseStream`] turns a run's events into stream events. Their numbers
//! ([`SequenceNumber`]) depend on nothing but the log. [`items`] turns chat messages into items and
//! back.
//!
//! To serve another request field, change its row in [`fields`], read it in `request`, and show its
//! effective value in `response`.

pub mod checker;
mod compaction;
mod conversation;
pub mod fields;
mod ids;
pub mod items;
mod list;
mod mcp;
mod read;
mod record;
mod request;
mod response;
mod sequence;
mod settings;
mod stream;
mod tools;

pub use baton_protocol::Invalid;
pub use compaction::{
    Compaction, NONCE_BYTES, NotSealed, SealingKey, compaction_item, compaction_prompt,
};
pub use conversation::{AddItems, ChangeConversation, ConversationObject, CreateConversation};
pub use ids::{
    InvalidConversationId, InvalidResponseId, ItemKind, conversation_id, item_id, message_of_item,
    response_id, run_of_response, thread_of_conversation,
};
pub use items::{Item, ItemStatus};
pub use list::{InputTokens, ItemList, Order, page, whole_list};
pub use mcp::{
    AnsweredCall, McpAnswer, McpList, McpServer, McpTool, McpToolName, WaitingCall, with_answers,
};
pub use record::{RecordedStep, StepSource, output_items};
pub use request::CreateResponse;
pub use response::{ResponseHead, ResponseObject, Snapshot, Status, UsageObject, usage_object};
pub use sequence::{InvalidSequenceNumber, SequenceNumber};
pub use settings::{ServiceTier, Settings};
pub use stream::{ResponseStream, StreamEnd};
