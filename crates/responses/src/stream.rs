//! A run's events as the events of a response's stream.
//!
//! The stream is a pure function of the log: a server that begins at the log's first event and
//! leaves out the frames that the client has seen goes on exactly after them.
//!
//! - An item opens with its first delta. Reasoning closes when anything else begins in its turn, a
//!   message when a call begins, everything else with its turn.
//! - `attempt.reset` has no event on this wire. A withdrawn item that is open closes as
//!   `incomplete`, the new attempt opens items at new indexes, and the last event's response leaves
//!   withdrawn items out.
//! - The lists of MCP servers come first, whole. A call of an MCP server's tool stays open until its result,
//!   while other items open and close.
//! - A summary is an item that comes whole, with `context.compacted`; the event does not carry it.
//! - The record of a run has at most one reasoning item and one message of each turn. A second one
//!   of the stream counts as extra, like a withdrawn item: [`SequenceNumber`] carries the count.

mod frames;
mod item_frames;
mod mcp_frames;
mod midway;
mod shown;

use baton_openai::{AnswerFields, ErrorObject, FieldOf};
use baton_protocol::event::{AnswerField, AnswerPart, AttemptReset};
use baton_protocol::{Event, EventData, EventId, RunId, Usage};
use bytes::BytesMut;
use serde_json::Map;

use self::frames::{FrameWriter, Whole, place};
use self::shown::{Shown, State, TextKind, recorded};
use crate::ids::ItemKind;
use crate::items::{Item, ItemStatus};
use crate::response::{ResponseHead, Snapshot, Status, usage_object};
use crate::sequence::SequenceNumber;

/// The lengths at which events cut arguments and results.
const CUT_ARGUMENTS: usize = (64 << 10) - 4;
const CUT_RESULT: usize = (8 << 10) - 4;

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// With a complete or an incomplete response.
    Finished,
    /// With a failed or a cancelled one.
    Error,
}

/// One stream of a response.
#[derive(Debug)]
pub struct ResponseStream {
    head: ResponseHead,
    frames: FrameWriter,
    /// Every item so far, withdrawn ones included, by its index on the stream.
    shown: Vec<Shown>,
    /// The index of the first of them.
    first_index: u32,
    in_progress: bool,
    /// The pieces of a field of the answer.
    piece: String,
    /// The upstream's own counts of each step, with the last event that brought one.
    counts: Vec<(u32, EventId, AnswerFields)>,
    /// The sealed summary of the next event that shows one.
    summary: Option<String>,
    /// The tokens of each recorded turn.
    used: Vec<(EventId, Usage)>,
    /// Whether the run waits for a decision that this wire does not take.
    asks_people: bool,
    /// The time of the last question, in seconds since 1970.
    asked_at: Option<i64>,
    /// The items of the record, for a run of which events show only a part.
    record: Option<Vec<Item>>,
}

impl ResponseStream {
    /// Makes a stream that leaves out the frames up to `after`. It must be given the log from its
    /// first event.
    pub fn new(head: ResponseHead, after: Option<SequenceNumber>) -> Self {
        Self {
            head,
            frames: FrameWriter::new(after),
            shown: Vec::new(),
            first_index: 0,
            in_progress: false,
            piece: String::new(),
            counts: Vec::new(),
            summary: None,
            used: Vec::new(),
            asks_people: false,
            asked_at: None,
            record: None,
        }
    }

    /// Makes a stream of events that were rebuilt from the record, which lacks the extra items that
    /// the client has seen: later items open at the indexes after those.
    #[must_use]
    pub fn rebuilt(mut self) -> Self {
        self.first_index = self.frames.adopt_extra();
        self
    }

    /// Returns whether a stream of rebuilt events goes on exactly after `after`, a frame of `event`.
    /// Within the frames of a delta it does not, because the rebuilt delta may be a longer one; nor
    /// does it after more extra items than a number counts.
    pub fn resumes_rebuilt(after: SequenceNumber, event: Option<&EventData>) -> bool {
        let is_delta = matches!(
            event,
            Some(
                EventData::TextDelta(_)
                    | EventData::ReasoningDelta(_)
                    | EventData::RefusalDelta(_)
                    | EventData::ToolCallDelta(_)
            )
        );
        after.extra < SequenceNumber::MANY && (!is_delta || after.frame >= place::DELTA)
    }

    /// Returns the run.
    pub fn run(&self) -> RunId {
        self.head.run
    }

    /// Writes what precedes the first event.
    pub fn begin(&mut self, out: &mut BytesMut) {
        if self.head.settings.background {
            self.whole(out, 0, "response.created", &Snapshot::empty(Status::Queued));
            self.whole(out, 1, "response.queued", &Snapshot::empty(Status::Queued));
        } else {
            let going = Snapshot::empty(Status::InProgress);
            self.whole(out, 0, "response.created", &going);
            self.whole(out, 1, "response.in_progress", &going);
            self.in_progress = true;
            self.lists(out, 2);
        }
    }

    /// Writes what one event shows; returns whether it ends the stream.
    pub fn write(&mut self, out: &mut BytesMut, event: &Event) -> Option<StreamEnd> {
        self.frames.begin_event(event.id);
        if !self.in_progress {
            self.in_progress = true;
            let going = Snapshot::empty(Status::InProgress);
            self.whole(out, place::IN_PROGRESS, "response.in_progress", &going);
            self.lists(out, place::CLOSE);
        }
        match &event.data {
            EventData::TextDelta(delta) => self.text(out, event, TextKind::Output, &delta.text),
            EventData::RefusalDelta(delta) => {
                self.text(out, event, TextKind::Refusal, &delta.text);
            }
            EventData::ReasoningDelta(delta) => {
                self.text(out, event, TextKind::Reasoning, &delta.text);
            }
            EventData::ToolCallDelta(delta) => self.client_call(out, event, delta),
            EventData::ToolStarted(call) => self.server_call(out, event, call),
            EventData::ToolFinished(call) => self.server_result(out, event, call),
            EventData::ContextCompacted(compacted) => {
                self.used.push((event.id, compacted.usage));
                if let Some(sealed) = self.summary.take() {
                    self.compaction(out, event, sealed);
                }
            }
            EventData::Usage(usage) => {
                self.used.push((event.id, *usage));
                self.close_all(out, ItemStatus::Completed);
            }
            EventData::ApprovalRequested(asked) => {
                self.asked_at = Some(event.at.timestamp());
                self.asks_people |= !self.question(out, event, asked);
            }
            EventData::BudgetReached(_) => self.asks_people = true,
            EventData::AnswerField(piece) => self.field(event, piece),
            EventData::AttemptReset(reset) => self.withdraw(out, reset),
            EventData::RunCompleted(end) => {
                let status = Status::of_finish(end.finish_reason);
                let of_items = match end.finish_reason {
                    baton_protocol::FinishReason::Length
                    | baton_protocol::FinishReason::ContentFilter => ItemStatus::Incomplete,
                    _ => ItemStatus::Completed,
                };
                self.end(out, event, status, of_items, end.usage);
                return Some(StreamEnd::Finished);
            }
            EventData::RunFailed(end) => {
                let status = Status::Failed(end.error.clone());
                self.end(out, event, status, ItemStatus::Incomplete, end.usage);
                return Some(StreamEnd::Error);
            }
            EventData::RunCancelled(end) => {
                let status = Status::Cancelled;
                self.end(out, event, status, ItemStatus::Incomplete, end.usage);
                return Some(StreamEnd::Error);
            }
            EventData::RunStarted(_)
            | EventData::InputAccepted(_)
            | EventData::InputApplied(_)
            | EventData::Unknown(_) => {}
        }
        None
    }

    /// Writes an error as the last frame: the stream ends although the response goes on.
    pub fn error(&mut self, out: &mut BytesMut, error: &ErrorObject) {
        self.frames.error(out, error);
    }

    /// Returns whether the last response needs the record: events cut long arguments and results.
    /// Then [`ResponseStream::use_record`] must precede the last event.
    pub fn needs_record(&self, last: &EventData) -> bool {
        // A run that answers have ended has withdrawn its questions.
        let is_answered = matches!(last, EventData::RunCompleted(end)
            if end.finish_reason == baton_protocol::FinishReason::ToolCalls)
            && !self.head.settings.mcp_tools.is_empty();
        self.record.is_none()
            && (is_answered
                || self.shown.iter().any(|shown| match shown.kind {
                    ItemKind::ServerCall => shown.text.len() >= CUT_ARGUMENTS,
                    ItemKind::CallOutput => shown.text.len() >= CUT_RESULT,
                    ItemKind::McpCall => {
                        let result = shown.result.as_ref().map_or(0, |(_, text)| text.len());
                        shown.text.len() >= CUT_ARGUMENTS || result >= CUT_RESULT
                    }
                    ItemKind::McpList(_)
                    | ItemKind::Reasoning
                    | ItemKind::Message
                    | ItemKind::ClientCall(_)
                    | ItemKind::McpApproval
                    | ItemKind::McpAnswer
                    | ItemKind::Compaction => false,
                }))
    }

    /// Takes the sealed summary that the next event shows: it must precede each `context.compacted`.
    pub fn use_summary(&mut self, sealed: String) {
        self.summary = Some(sealed);
    }

    /// Takes the record's items for the last response.
    pub fn use_record(&mut self, items: Vec<Item>) {
        self.record = Some(items);
    }

    fn whole(&mut self, out: &mut BytesMut, place: u8, kind: &str, snapshot: &Snapshot<'_>) {
        let response = self.head.object(snapshot);
        self.frames.write(out, place, kind, Whole { response });
    }

    /// Withdraws everything after the event that a new attempt resumes after.
    fn withdraw(&mut self, out: &mut BytesMut, reset: &AttemptReset) {
        self.asks_people = false;
        if reset.continues {
            return;
        }
        self.used.retain(|(last, _)| *last <= reset.resume_after);
        for index in 0..self.shown.len() {
            let shown = &self.shown[index];
            if shown.last <= reset.resume_after || shown.state == State::Withdrawn {
                continue;
            }
            if shown.is_open() {
                self.close(out, index, ItemStatus::Incomplete);
            }
            self.shown[index].state = State::Withdrawn;
            self.frames.count_extra();
        }
        self.piece.clear();
        self.counts
            .retain(|(_, last, _)| *last <= reset.resume_after);
    }

    /// Keeps the upstream's own counts; other fields have no place on this wire.
    fn field(&mut self, event: &Event, piece: &AnswerField) {
        if piece.of != AnswerPart::Usage {
            return;
        }
        self.piece.push_str(&piece.json);
        if piece.more {
            return;
        }
        let json = std::mem::take(&mut self.piece);
        match self.counts.last_mut() {
            Some((step, last, fields)) if *step == event.step => {
                *last = event.id;
                fields.add(FieldOf::Usage, &piece.name, &json);
            }
            _ => {
                let mut fields = AnswerFields::default();
                fields.add(FieldOf::Usage, &piece.name, &json);
                self.counts.push((event.step, event.id, fields));
            }
        }
    }

    fn end(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        status: Status,
        of_items: ItemStatus,
        usage: Usage,
    ) {
        self.close_all(out, of_items);
        self.break_off_calls(out);
        let output = match self.record.take() {
            Some(record) => record,
            None => recorded(self.head.run, &self.shown),
        };
        let mut counts = AnswerFields::default();
        for (_, _, fields) in &self.counts {
            counts.extend(fields.clone());
        }
        let details: &Map<_, _> = &counts.usage;
        let kind = match &status {
            Status::Completed => "response.completed",
            Status::Failed(_) => "response.failed",
            // There is no event of its own for a cancelled response.
            Status::Incomplete(_) | Status::Cancelled | Status::Queued | Status::InProgress => {
                "response.incomplete"
            }
        };
        let snapshot = Snapshot {
            status,
            ended_at: Some(event.at.timestamp()),
            output: &output,
            usage: (!usage.is_zero()).then(|| usage_object(usage, details)),
        };
        self.whole(out, place::END, kind, &snapshot);
    }
}
