//! The pieces of an answer, and their bytes on the wire.

use std::time::Duration;

use baton_openai::{ChunkWriter, ErrorObject, Usage};
use bytes::{Bytes, BytesMut};

use super::Gate;
use crate::load::unix_nanos;

/// The creation time of every scripted answer: the same each time, so that answers can be compared.
pub(super) const CREATED: i64 = 1_780_000_000;

/// A piece of a scripted answer.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A token of the answer.
    Text(String),
    /// A token with the time at which it was written: nanoseconds since 1970 and a space.
    Stamp,
    /// A piece of reasoning.
    Reasoning(String),
    /// A piece of a refusal.
    Refusal(String),
    /// A call, its arguments in as many fragments as given.
    ToolCall {
        /// Its place.
        index: u32,
        /// Its id.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        fragments: Vec<String>,
    },
    /// The chunk with the reason why the model stopped.
    Finish(String),
    /// The chunk with the token counts, if the request wants it.
    Usage(Usage),
    /// An error object.
    Error(ErrorObject),
    /// `[DONE]`.
    Done,
    /// These bytes, unchanged.
    Raw(Bytes),
    /// A pause.
    Pause(Duration),
    /// A wait until the test opens the gate.
    Wait(Gate),
    /// A wait until the client disconnects.
    Hang,
    /// The connection breaks.
    Cut,
}

/// Writes the bytes of one piece; a pause, or an end without bytes, adds nothing.
pub(super) fn write(out: &mut BytesMut, writer: &ChunkWriter, piece: Piece, include_usage: bool) {
    match piece {
        Piece::Text(text) => writer.text(out, &text),
        Piece::Stamp => writer.text(out, &format!("{} ", unix_nanos())),
        Piece::Reasoning(text) => writer.reasoning(out, &text),
        Piece::Refusal(text) => writer.refusal(out, &text),
        Piece::ToolCall {
            index,
            id,
            name,
            fragments,
        } => {
            writer.tool_call(out, index, &id, &name, "");
            for fragment in &fragments {
                writer.tool_call_arguments(out, index, fragment);
            }
        }
        Piece::Finish(reason) => writer.finish(out, &reason),
        Piece::Usage(usage) if include_usage => writer.usage(out, &usage),
        Piece::Error(error) => ChunkWriter::error(out, &error),
        Piece::Done => ChunkWriter::done(out),
        Piece::Raw(bytes) => out.extend_from_slice(&bytes),
        Piece::Usage(_) | Piece::Pause(_) | Piece::Wait(_) | Piece::Hang | Piece::Cut => {}
    }
}

/// Returns the whole stream of an answer as bytes, without its pauses.
pub(super) fn render(pieces: &[Piece], model: &str) -> Bytes {
    let writer = ChunkWriter::new("chatcmpl-script", CREATED, model, true);
    let mut out = BytesMut::new();
    writer.role(&mut out);
    for piece in pieces {
        write(&mut out, &writer, piece.clone(), true);
    }
    out.freeze()
}
