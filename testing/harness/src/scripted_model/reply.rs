//! The scripted model's answer, piece by piece.

use std::time::Duration;

use baton_openai::{ErrorObject, ToolCall, Usage};
use bytes::Bytes;
use http::StatusCode;

use super::piece::{Piece, render};

/// A status line and headers instead of a stream.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// The beginning of an answer.
#[derive(Debug, Clone)]
pub(super) enum Start {
    Answer,
    /// No status line, until the client disconnects.
    HangBeforeHeaders,
    Refuse(Refusal),
}

/// A scripted answer. For a request without streaming, the pieces are combined.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) start: Start,
    pub(super) pieces: Vec<Piece>,
}

impl Reply {
    /// Makes an answer of exactly these pieces, without a role before them or an end after them.
    pub fn pieces(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self {
            start: Start::Answer,
            pieces: pieces.into_iter().collect(),
        }
    }

    /// Makes a whole answer of these tokens.
    pub fn of_tokens<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Self {
        Self::pieces(tokens.into_iter().map(|token| Piece::Text(token.into()))).ended("stop")
    }

    /// Makes a whole answer of one text, with a token for each word.
    pub fn text(text: &str) -> Self {
        Self::of_tokens(text.split_inclusive(' '))
    }

    /// Makes a whole answer of `n` tokens, `t0 t1 t2 …`.
    pub fn tokens(n: usize) -> Self {
        Self::of_tokens((0..n).map(|i| format!("t{i} ")))
    }

    /// Makes a whole answer of `n` tokens that contain the time of their writing.
    pub fn stamps(n: usize) -> Self {
        Self::pieces(std::iter::repeat_n(Piece::Stamp, n)).ended("stop")
    }

    /// Makes a whole answer that calls tools, with arguments in fragments of a few characters.
    pub fn tool_calls(calls: impl IntoIterator<Item = ToolCall>) -> Self {
        let calls = (0..).zip(calls).map(|(index, call)| Piece::ToolCall {
            index,
            id: call.id.clone(),
            name: call.name().to_owned(),
            fragments: fragments(call.arguments()),
        });
        Self::pieces(calls).ended("tool_calls")
    }

    /// Makes an error status with an error object instead of an answer.
    pub fn status(status: u16) -> Self {
        let body = format!(
            r#"{{"error":{{"message":"scripted {status}","type":"scripted","param":null,"code":"scripted_{status}"}}}}"#
        );
        Self {
            start: Start::Refuse(Refusal {
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                body: body.into(),
            }),
            pieces: Vec::new(),
        }
    }

    /// Makes a body that is sent unchanged, with this content type.
    pub fn body_of_kind(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::status(200)
            .header("content-type", content_type)
            .body(body)
    }

    /// Sends no status line, until the client disconnects.
    pub fn hang_before_headers() -> Self {
        Self {
            start: Start::HangBeforeHeaders,
            pieces: Vec::new(),
        }
    }

    /// Sends `n` tokens, an error object, and the end of the stream: all within a 200.
    pub fn error_after(n: usize, error: ErrorObject) -> Self {
        let mut reply = Self::tokens(n).unended();
        reply.pieces.push(Piece::Error(error));
        reply
    }

    /// Sends `n` tokens, and a chunk that is not JSON.
    pub fn bad_json_after(n: usize) -> Self {
        let mut reply = Self::tokens(n).unended();
        reply.pieces.push(Piece::Raw(Bytes::from_static(
            b"data: {\"choices\": oops}\n\n",
        )));
        reply.ended("stop")
    }

    /// Sends one token of `bytes` bytes: a single line of the stream.
    pub fn long_line(bytes: usize) -> Self {
        Self::of_tokens(["x".repeat(bytes)])
    }

    /// Sends the bytes `size` at a time, cutting characters and line ends anywhere.
    #[must_use]
    pub fn in_pieces_of(self, size: usize) -> Self {
        let stream = render(&self.pieces, "split");
        let pieces = stream.chunks(size.max(1)).flat_map(|piece| {
            [
                Piece::Raw(Bytes::copy_from_slice(piece)),
                Piece::Pause(Duration::from_millis(1)),
            ]
        });
        Self::pieces(pieces)
    }

    /// Adds a header to a reply made by [`status`](Self::status).
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Start::Refuse(refusal) = &mut self.start {
            refusal.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Replaces the body of a reply made by [`status`](Self::status).
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        if let Start::Refuse(refusal) = &mut self.start {
            refusal.body = body.into();
        }
        self
    }

    /// Adds a pause before each token.
    #[must_use]
    pub fn each_after(mut self, pause: Duration) -> Self {
        self.pieces = self
            .pieces
            .into_iter()
            .flat_map(|piece| {
                let pause = matches!(
                    piece,
                    Piece::Text(_) | Piece::Stamp | Piece::ToolCall { .. }
                )
                .then_some(Piece::Pause(pause));
                pause.into_iter().chain([piece])
            })
            .collect();
        self
    }

    /// Removes the end: no finish reason, no usage, no `[DONE]`.
    #[must_use]
    pub fn unended(mut self) -> Self {
        self.pieces
            .retain(|piece| !matches!(piece, Piece::Finish(_) | Piece::Usage(_) | Piece::Done));
        self
    }

    /// Hangs after the last token, for ever.
    #[must_use]
    pub fn hang(self) -> Self {
        self.unended().then(Piece::Hang)
    }

    /// Breaks off after the last token.
    #[must_use]
    pub fn cut(self) -> Self {
        self.unended().then(Piece::Cut)
    }

    /// Adds a piece at the end.
    #[must_use]
    pub fn then(mut self, piece: Piece) -> Self {
        self.pieces.push(piece);
        self
    }

    /// Adds a finish reason, token counts (one a token) and `[DONE]`.
    #[must_use]
    pub fn ended(self, reason: &str) -> Self {
        let tokens = self
            .pieces
            .iter()
            .filter(|piece| {
                matches!(
                    piece,
                    Piece::Text(_) | Piece::Stamp | Piece::ToolCall { .. }
                )
            })
            .count();
        let usage = Usage::new(7, u64::try_from(tokens).unwrap_or(u64::MAX));
        self.then(Piece::Finish(reason.to_owned()))
            .then(Piece::Usage(usage))
            .then(Piece::Done)
    }
}

fn fragments(arguments: &str) -> Vec<String> {
    let chars: Vec<char> = arguments.chars().collect();
    chars
        .chunks(5)
        .map(|piece| piece.iter().collect())
        .collect()
}
