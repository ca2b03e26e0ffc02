//! Reads events.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The event's type; empty for the default, `message`.
    pub name: Bytes,
    /// Its data, lines joined by `\n`.
    pub data: Bytes,
    /// The last id of the stream, if any: it stays until the next one.
    pub id: Option<Bytes>,
}

impl SseEvent {
    /// Returns the data as text. Replaces invalid UTF-8, as the specification demands.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.data)
    }
}

/// A reason for which the rest of the stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line, or the lines of one event together, exceeded the limit.
    #[error("an event is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// A decoder of events from bytes in any split: within a UTF-8 sequence, between CR and LF, within
/// the byte order mark. A line that arrives in one piece is not copied.
///
/// Call [`push`](Self::push), then [`next_event`](Self::next_event) until there are no more events.
/// It holds at most its limit and the bytes of one push.
#[derive(Debug)]
pub struct SseDecoder {
    limit: usize,
    /// Pushed bytes that were not read yet.
    input: Bytes,
    /// The beginning of an incomplete line.
    partial: BytesMut,
    /// The incomplete event; it has data if `has_data`.
    event: SseEvent,
    has_data: bool,
    /// Absent while `event.data` is one line; further lines are joined here.
    joined: Option<BytesMut>,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    /// No line has ended yet: a byte order mark may come.
    at_start: bool,
    failed: Option<SseError>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl SseDecoder {
    /// Makes a decoder that refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            input: Bytes::new(),
            partial: BytesMut::new(),
            event: SseEvent::default(),
            has_data: false,
            joined: None,
            after_cr: false,
            at_start: true,
            failed: None,
        }
    }

    /// Adds the bytes of one read.
    pub fn push(&mut self, bytes: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            let mut both = BytesMut::with_capacity(self.input.len() + bytes.len());
            both.extend_from_slice(&self.input);
            both.extend_from_slice(&bytes);
            self.input = both.freeze();
        }
    }

    /// Returns the next complete event of the bytes so far. An error is permanent, because the
    /// stream has lost its position.
    pub fn next_event(&mut self) -> Result<Option<SseEvent>, SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        loop {
            match self.next_line() {
                Ok(Some(line)) if line.is_empty() => {
                    if let Some(event) = self.take_event() {
                        return Ok(Some(event));
                    }
                }
                Ok(Some(line)) => {
                    if let Err(error) = self.take_line(&line) {
                        return self.fail(error);
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Returns the incomplete event at the end of the stream. The specification drops it, but some
    /// servers omit the empty line after their last event.
    pub fn finish(mut self) -> Option<SseEvent> {
        if self.failed.is_none() && !self.partial.is_empty() {
            let line = self.partial.split().freeze();
            let line = self.without_mark(line);
            self.take_line(&line).ok()?;
        }
        self.take_event()
    }

    fn fail<T>(&mut self, error: SseError) -> Result<T, SseError> {
        self.failed = Some(error);
        self.input = Bytes::new();
        self.partial = BytesMut::new();
        self.joined = None;
        Err(error)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, SseError> {
        if self.after_cr && !self.input.is_empty() {
            self.after_cr = false;
            if self.input[0] == b'\n' {
                self.input.advance(1);
            }
        }
        let end = memchr2(b'\n', b'\r', &self.input);
        let length = end.unwrap_or(self.input.len());
        if self.partial.len() + length > self.limit {
            return Err(SseError::TooLong { limit: self.limit });
        }
        let Some(end) = end else {
            self.partial.extend_from_slice(&self.input);
            self.input = Bytes::new();
            return Ok(None);
        };
        let line = self.input.split_to(end);
        self.after_cr = self.input[0] == b'\r';
        self.input.advance(1);
        let line = if self.partial.is_empty() {
            line
        } else {
            self.partial.extend_from_slice(&line);
            self.partial.split().freeze()
        };
        Ok(Some(self.without_mark(line)))
    }

    /// Removes the byte order mark from the first line.
    fn without_mark(&mut self, mut line: Bytes) -> Bytes {
        if std::mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            line.advance(BYTE_ORDER_MARK.len());
        }
        line
    }

    fn take_line(&mut self, line: &Bytes) -> Result<(), SseError> {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let mut value = line.slice((colon + 1).min(line.len())..);
        if value.first() == Some(&b' ') {
            value.advance(1);
        }
        match &line[..colon] {
            b"data" => self.take_data(value)?,
            b"event" => self.event.name = value,
            // Copies, because the id stays and a slice would keep the whole read alive.
            b"id" if !value.contains(&0) => self.event.id = Some(Bytes::copy_from_slice(&value)),
            // A comment has an empty name; only browsers use `retry`.
            _ => {}
        }
        Ok(())
    }

    fn take_data(&mut self, line: Bytes) -> Result<(), SseError> {
        if !self.has_data {
            self.has_data = true;
            self.event.data = line;
            return Ok(());
        }
        let first = &self.event.data;
        let joined = self
            .joined
            .get_or_insert_with(|| BytesMut::from(first.as_ref()));
        if joined.len() + 1 + line.len() > self.limit {
            return Err(SseError::TooLong { limit: self.limit });
        }
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(&line);
        Ok(())
    }

    fn take_event(&mut self) -> Option<SseEvent> {
        let id = self.event.id.clone();
        let mut event = std::mem::take(&mut self.event);
        self.event.id = id;
        let joined = self.joined.take();
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        if let Some(joined) = joined {
            event.data = joined.freeze();
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
        let mut decoder = SseDecoder::new(LIMIT);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    fn named(name: &'static str, data: &'static str, id: Option<&'static str>) -> SseEvent {
        SseEvent {
            name: Bytes::from(name),
            data: Bytes::from(data),
            id: id.map(Bytes::from),
        }
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let stream =
            b"\xef\xbb\xbf: comment\n\ndata: first\nid: 1\n\ndata:second\nevent: x\nid\n\n\
            data:  third\ndata\ndata: end\r\n\r\nevent: dropped\n\ndata\n\nretry: 5\n\ndata: cut";
        assert_eq!(
            decode([&stream[..]]),
            [
                named("", "first", Some("1")),
                named("x", "second", Some("")),
                named("", " third\n\nend", Some("")),
                named("", "", Some("")),
            ],
        );
    }

    #[test]
    fn all_three_line_ends_are_the_same() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("data: a{end}data: b{end}{end}data: c{end}{end}");
            assert_eq!(
                decode([stream.as_bytes()]),
                [named("", "a\nb", None), named("", "c", None)],
                "{end:?}",
            );
        }
    }

    #[test]
    fn an_event_without_its_empty_line_is_kept_for_those_who_ask() {
        let mut decoder = SseDecoder::new(LIMIT);
        decoder.push(Bytes::from_static(b"data: [DONE]"));
        assert_eq!(decoder.next_event(), Ok(None));
        assert_eq!(decoder.finish(), Some(named("", "[DONE]", None)));
        let mut decoder = SseDecoder::new(LIMIT);
        decoder.push(Bytes::from_static(b"\xef\xbb\xbfdata: x"));
        assert_eq!(decoder.next_event(), Ok(None));
        assert_eq!(decoder.finish(), Some(named("", "x", None)));
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error_and_holds_no_memory() {
        let mut decoder = SseDecoder::new(1_000);
        let piece = Bytes::from(vec![b'x'; 300]);
        decoder.push(Bytes::from_static(b"data: "));
        for n in 0..4 {
            let events = decoder.next_event();
            assert_eq!(
                events.is_err(),
                n == 4,
                "refused only beyond the limit: {events:?}"
            );
            decoder.push(piece.clone());
            assert!(decoder.partial.len() <= 1_000);
        }
        let error = SseError::TooLong { limit: 1_000 };
        assert_eq!(decoder.next_event(), Err(error));
        assert_eq!(decoder.partial.capacity(), 0);
        decoder.push(Bytes::from_static(b"\n\ndata: more\n\n"));
        assert_eq!(decoder.next_event(), Err(error), "the error stays");
    }

    #[test]
    fn many_short_lines_of_one_event_are_limited_together() {
        let mut decoder = SseDecoder::new(100);
        decoder.push(Bytes::from("data: 0123456789\n".repeat(20)));
        assert_eq!(decoder.next_event(), Err(SseError::TooLong { limit: 100 }));
    }

    #[test]
    fn a_line_in_one_piece_is_not_copied() {
        let input = Bytes::from_static(b"data: whole\n\n");
        let mut decoder = SseDecoder::new(LIMIT);
        decoder.push(input.clone());
        let event = decoder.next_event().unwrap().unwrap();
        assert_eq!(event.data.as_ptr(), input[6..].as_ptr());
    }

    /// Makes lines of a stream with everything that makes decoding hard.
    fn line() -> impl Strategy<Value = String> {
        let field = prop_oneof![
            4 => Just("data"), 1 => Just("event"), 1 => Just("id"), 1 => Just(""), 1 => Just("x"),
        ];
        let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        prop_oneof![
            3 => (field, "(: ?)?[a-c:é🦀 ]{0,6}", end.clone()).prop_map(|(f, v, e)| format!("{f}{v}{e}")),
            2 => end.prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            bom in any::<bool>(),
            lines in proptest::collection::vec(line(), 0..40),
            splits in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let stream = format!("{}{}", if bom { "\u{feff}" } else { "" }, lines.concat());
            let stream = stream.as_bytes();
            let whole = decode([stream]);
            prop_assert_eq!(&whole, &decode(stream.chunks(1)));
            let mut at: Vec<usize> =
                splits.iter().map(|split| split.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            prop_assert_eq!(&whole, &decode(at.windows(2).map(|pair| &stream[pair[0]..pair[1]])));
        }

        #[test]
        fn what_is_encoded_is_decoded(
            events in proptest::collection::vec(
                (proptest::option::of(any::<u64>()), "[a-z.]{0,8}", "[a-z:é🦀 \n]{0,20}"), 0..10),
        ) {
            let mut out = BytesMut::new();
            let mut last = None;
            let mut expected = Vec::new();
            for (id, name, data) in &events {
                crate::sse::event(
                    &mut out,
                    id.as_ref().map(|id| id as &dyn std::fmt::Display),
                    (!name.is_empty()).then_some(name),
                    data.as_bytes(),
                );
                crate::sse::ping(&mut out);
                last = id.map(|id| Bytes::from(id.to_string())).or(last);
                expected.push(SseEvent {
                    name: Bytes::from(name.clone()),
                    data: Bytes::from(data.clone()),
                    id: last.clone(),
                });
            }
            prop_assert_eq!(decode(out.chunks(7)), expected);
        }
    }
}
