//! Event streams from an upstream.

use baton_openai::{SseDecoder, SseError, SseEvent};
use bytes::Bytes;

use crate::splits::splits;

/// Checks that a stream is read as the specification demands, and that an event beyond the limit is
/// refused, both however the stream is cut.
pub fn sse(data: &[u8]) {
    let expected = reference(data);
    for pieces in splits(data) {
        let (events, error, last) = decode(&pieces, usize::MAX >> 1);
        assert_eq!(error, None);
        assert_eq!(events, expected.0);
        assert_eq!(last, expected.1, "the event that was cut");
    }
    let [whole, others @ ..] = splits(data);
    let limited = decode(&whole, 16);
    for event in &limited.0 {
        assert!(event.data.len() <= 16, "an event is beyond the limit");
    }
    for pieces in others {
        assert_eq!(decode(&pieces, 16), limited);
    }
}

fn decode(pieces: &[&[u8]], limit: usize) -> (Vec<SseEvent>, Option<SseError>, Option<SseEvent>) {
    let mut decoder = SseDecoder::new(limit);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error), None),
            }
        }
    }
    (events, None, decoder.finish())
}

/// Follows the specification word by word. Returns the events, and the last one as it would be if
/// an empty line followed.
fn reference(data: &[u8]) -> (Vec<SseEvent>, Option<SseEvent>) {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let mut reading = Reading::default();
    let mut events = Vec::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let (line, behind) = (&rest[..end], &rest[end..]);
        rest = behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]);
        if line.is_empty() {
            events.extend(reading.dispatch());
        } else {
            reading.field(line);
        }
    }
    reading.field(rest);
    (events, reading.dispatch())
}

#[derive(Default)]
struct Reading {
    name: Vec<u8>,
    data: Vec<u8>,
    id: Option<Vec<u8>>,
}

impl Reading {
    fn field(&mut self, line: &[u8]) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => self.id = Some(value.to_vec()),
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let (name, mut data) = (
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.data),
        );
        data.pop()?;
        Some(SseEvent {
            name: name.into(),
            data: data.into(),
            id: self.id.clone().map(Bytes::from),
        })
    }
}
