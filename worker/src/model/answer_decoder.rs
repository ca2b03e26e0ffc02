//! Distinguishes event streams from JSON, whatever the answer's head claims.

use baton_openai::{SseDecoder, SseError, SseEvent};
use bytes::{Bytes, BytesMut};

/// The frames of an answer: the events of a stream, or the JSON objects of a body without events.
///
/// An upstream that cannot stream, or a proxy in front of it, answers with one object, or with one
/// object per line. No line of an event stream begins with a brace, so the first byte decides.
#[derive(Debug)]
pub(super) struct AnswerDecoder {
    form: Form,
    limit: usize,
}

#[derive(Debug)]
enum Form {
    /// Only white space has arrived.
    Unknown(BytesMut),
    Events(SseDecoder),
    Json(BytesMut),
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl AnswerDecoder {
    /// Creates a decoder that refuses lines, and bodies without lines, of more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            form: Form::Unknown(BytesMut::new()),
            limit,
        }
    }

    /// Adds the bytes of one read.
    pub(super) fn push(&mut self, bytes: Bytes) -> Result<(), SseError> {
        match &mut self.form {
            Form::Events(events) => events.push(bytes),
            Form::Json(body) | Form::Unknown(body) => {
                if body.len() + bytes.len() > self.limit {
                    return Err(SseError::TooLong { limit: self.limit });
                }
                body.extend_from_slice(&bytes);
            }
        }
        if let Form::Unknown(begun) = &mut self.form {
            let said = begun.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begun);
            match said.trim_ascii_start().first() {
                // An incomplete mark.
                _ if begun.len() < 3 && BYTE_ORDER_MARK.starts_with(begun) => {}
                Some(b'{' | b'[') => self.form = Form::Json(std::mem::take(begun)),
                Some(_) => {
                    let mut events = SseDecoder::new(self.limit);
                    events.push(std::mem::take(begun).freeze());
                    self.form = Form::Events(events);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Returns the next complete event of a stream among the bytes so far.
    pub(super) fn next_event(&mut self) -> Result<Option<SseEvent>, SseError> {
        match &mut self.form {
            Form::Events(events) => events.next_event(),
            Form::Json(_) | Form::Unknown(_) => Ok(None),
        }
    }

    /// Returns the rest at the end of the body.
    pub(super) fn finish(self) -> Rest {
        match self.form {
            Form::Events(events) => events.finish().map_or(Rest::Nothing, Rest::Event),
            Form::Json(body) => Rest::Json(body.freeze()),
            Form::Unknown(_) => Rest::Nothing,
        }
    }
}

/// The rest at the end of a body.
#[derive(Debug)]
pub(super) enum Rest {
    Nothing,
    /// The event that the stream broke off in.
    Event(SseEvent),
    /// The whole body: a sequence of JSON values.
    Json(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_events_from_json_however_the_body_is_cut() {
        let mark = "\u{feff}";
        for (body, is_json) in [
            ("{\"choices\":[]}", true),
            (" \r\n[{\"error\":{}}]", true),
            ("data: {}\n\n", false),
            (": ping\n\ndata: {}\n\n", false),
            ("\n\ndata: {}\n\n", false),
            ("<html>", false),
            ("", false),
        ] {
            for body in [body.to_owned(), format!("{mark}{body}")] {
                for size in [1, 2, 100] {
                    let mut decoder = AnswerDecoder::new(1_000);
                    for piece in body.as_bytes().chunks(size) {
                        decoder.push(Bytes::copy_from_slice(piece)).unwrap();
                    }
                    let json = matches!(decoder.form, Form::Json(_));
                    assert_eq!(json, is_json, "{body:?} in pieces of {size}");
                }
            }
        }
    }

    #[test]
    fn a_body_without_lines_is_limited_as_a_line_is() {
        for begin in ["{", " "] {
            let mut decoder = AnswerDecoder::new(100);
            decoder.push(Bytes::from_static(begin.as_bytes())).unwrap();
            let error = decoder.push(Bytes::from(vec![b' '; 100])).unwrap_err();
            assert_eq!(error, SseError::TooLong { limit: 100 });
        }
    }
}
