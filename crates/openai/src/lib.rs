//! The OpenAI chat wire, in both directions and without I/O: the ingress speaks it to clients, the
//! worker to the upstream.
//!
//! Types keep the fields that they do not know, so that a client and an upstream newer than Baton
//! understand each other through it. The two hot paths have types of their own: [`ChunkWriter`]
//! appends complete stream frames to a buffer, [`SseDecoder`] and [`ChatChunk`] read them without
//! copying text, and [`ChatAccumulator`] folds what was read into the message it makes.

mod accumulate;
mod chunk;
mod chunk_writer;
mod error;
mod lenient;
mod request;
mod response;
pub mod sse;
mod usage;

pub use accumulate::{
    AccumulateError, ChatAccumulator, Delta, FieldOf, FinishReason, FinishedMessage, RESULT_CHOICE,
};
pub use chunk::{ChatChunk, ChunkChoice, ChunkDelta, ChunkFunction, ChunkToolCall};
pub use chunk_writer::ChunkWriter;
pub use error::{ErrorBody, ErrorObject};
pub use lenient::RawField;
pub use request::{
    ChatRequest, Content, FunctionCall, FunctionDefinition, Message, StreamOptions, Tool, ToolCall,
};
pub use response::{ChatCompletion, CompletionChoice, Model, ModelList};
pub use sse::{SseDecoder, SseError, SseEvent};
pub use usage::Usage;

/// Fields that this version of Baton does not know, by name.
pub type Unknown = serde_json::Map<String, serde_json::Value>;
