//! Server-sent events, as bytes: a decoder for any split of the input, and an encoder.

mod decode;
mod encode;

pub use decode::{SseDecoder, SseError, SseEvent};
pub use encode::{event, ping};
