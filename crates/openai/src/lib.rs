//! The OpenAI chat protocol, in both directions and without I/O: the ingress uses it with clients,
//! the worker with the upstream.
//!
//! Types keep unknown fields, so that a client and an upstream newer than Baton understand each
//! other. The two hot paths have separate types: [`ChunkWriter`] appends complete stream frames to
//! a buffer, [`SseDecoder`] and [`ChatChunk`] read them without copying text, and
//! [`ChatAccumulator`] folds them into a message.

mod accumulate;
mod answer_fields;
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
pub use answer_fields::AnswerFields;
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
