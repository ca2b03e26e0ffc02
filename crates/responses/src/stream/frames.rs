//! The frames of a stream: server-sent events with numbers.

use baton_openai::ErrorObject;
use baton_protocol::EventId;
use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use crate::items::{Item, Part};
use crate::response::ResponseObject;
use crate::sequence::SequenceNumber;

/// The places of frames among those of their event.
///
/// A place says what the frame does, and not how many precede it: the live log and its rebuilt form
/// show the same delta at the same place, whether the event also opened an item or not.
pub(super) mod place {
    /// The response is in progress.
    pub(crate) const IN_PROGRESS: u8 = 0;
    /// The first of the frames that close items.
    pub(crate) const CLOSE: u8 = 1;
    /// An item opens.
    pub(crate) const ITEM: u8 = 110;
    /// A part of it opens.
    pub(crate) const PART: u8 = 111;
    /// A delta.
    pub(crate) const DELTA: u8 = 112;
    /// The arguments of a server's call are whole.
    pub(crate) const WHOLE: u8 = 113;
    /// An item that came whole closes.
    pub(crate) const ITEM_DONE: u8 = 114;
    /// The response has ended.
    pub(crate) const END: u8 = 127;
}

/// A frame: its type, its number, and the rest.
#[derive(Serialize)]
struct Frame<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    body: T,
}

/// The whole response.
#[derive(Serialize)]
pub(super) struct Whole<'a> {
    pub(super) response: ResponseObject<'a>,
}

/// An item opens or closes.
#[derive(Serialize)]
pub(super) struct OfItem<'a> {
    pub(super) output_index: u32,
    pub(super) item: &'a Item,
}

/// A part opens or closes.
#[derive(Serialize)]
pub(super) struct OfPart<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: u32,
    pub(super) content_index: u32,
    pub(super) part: &'a Part,
}

/// A delta, or the whole of one text.
#[derive(Default, Serialize)]
pub(super) struct OfText<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<[u8; 0]>,
}

/// An error of the stream: flat as OpenAI has it, and nested as Open Responses has it.
#[derive(Serialize)]
struct OfError<'a> {
    code: Option<&'a str>,
    message: &'a str,
    param: Option<&'a str>,
    error: &'a ErrorObject,
}

/// The writer of frames, which leaves out those that the client has seen.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    /// The last frame that the client has seen.
    after: Option<SequenceNumber>,
    /// The event that frames are written for.
    event: EventId,
    /// The next place of a frame that closes something.
    closing: u8,
    /// The extra items so far.
    extra: u32,
}

impl FrameWriter {
    pub(super) fn new(after: Option<SequenceNumber>) -> Self {
        Self {
            after,
            closing: place::CLOSE,
            ..Self::default()
        }
    }

    pub(super) fn after(&self) -> Option<SequenceNumber> {
        self.after
    }

    /// Counts items that the record does not have and that a server without the log did not see.
    pub(super) fn adopt_extra(&mut self) -> u32 {
        self.extra = self.after.map_or(0, |after| after.extra).into();
        self.extra
    }

    pub(super) fn extra(&self) -> u32 {
        self.extra
    }

    pub(super) fn begin_event(&mut self, event: EventId) {
        self.event = event;
        self.closing = place::CLOSE;
    }

    pub(super) fn count_extra(&mut self) {
        self.extra = self.extra.saturating_add(1);
    }

    pub(super) fn write<T: Serialize>(
        &mut self,
        out: &mut BytesMut,
        place: u8,
        kind: &str,
        body: T,
    ) {
        let number = SequenceNumber {
            event: self.event,
            frame: place,
            extra: u8::try_from(self.extra)
                .unwrap_or(u8::MAX)
                .min(SequenceNumber::MANY),
        };
        if self.after.is_some_and(|after| number.is_seen_at(after)) {
            return;
        }
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        let frame = Frame {
            kind,
            sequence_number: number.as_u64(),
            body,
        };
        let written = serde_json::to_writer((&mut *out).writer(), &frame);
        debug_assert!(written.is_ok(), "a frame is always encodable");
        out.extend_from_slice(b"\n\n");
    }

    /// Writes a frame that closes something.
    pub(super) fn close<T: Serialize>(&mut self, out: &mut BytesMut, kind: &str, body: T) {
        let place = self.closing;
        self.closing += 1;
        debug_assert!(place < self::place::ITEM, "few items are open at a time");
        self.write(out, place, kind, body);
    }

    /// Writes an error, the last frame of a stream. The response goes on, and the frame's number is
    /// that of the last event, so that a client that resumes after it misses nothing.
    pub(super) fn error(&mut self, out: &mut BytesMut, error: &ErrorObject) {
        let body = OfError {
            code: error.code.as_deref(),
            message: &error.message,
            param: error.param.as_deref(),
            error,
        };
        // Written although the client may have seen frames of this event.
        self.after = None;
        self.write(out, place::END, "error", body);
    }
}
