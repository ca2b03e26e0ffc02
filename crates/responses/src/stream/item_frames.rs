//! The frames that open, continue and close items.

use baton_protocol::Event;
use baton_protocol::event::{ToolCallDelta, ToolFinished, ToolStarted};
use bytes::BytesMut;

use super::ResponseStream;
use super::frames::{OfItem, OfPart, OfText, place};
use super::shown::{Shown, State, TextKind, TextPart};
use crate::ids::{ItemKind, item_id};
use crate::items::ItemStatus;

/// The most calls of the client that are open at a time; the oldest closes before the next opens.
const MAX_OPEN_CALLS: usize = 32;

/// The event after the last piece of a call's arguments.
const ARGUMENTS_DONE: &str = "response.function_call_arguments.done";

impl ResponseStream {
    pub(super) fn index_on_wire(&self, index: usize) -> u32 {
        self.first_index + u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Adds an item without a frame; returns its index.
    pub(super) fn add(&mut self, event: &Event, kind: ItemKind) -> usize {
        let is_second = |shown: &Shown| {
            shown.step == event.step && shown.kind == kind && shown.state != State::Withdrawn
        };
        if self.shown.iter().any(is_second) {
            self.frames.count_extra();
        }
        // After an extra item ids differ from the record's, so that none is there twice. A resumed
        // stream knows the count, and with it the id of the item that is open.
        let mut id = item_id(self.head.run, event.step, kind);
        if self.frames.extra() > 0 {
            id = format!("{id}_x{}", self.frames.extra());
        }
        let mut shown = Shown::new(kind, event.step, id);
        shown.last = event.id;
        self.shown.push(shown);
        self.shown.len() - 1
    }

    pub(super) fn opened(&mut self, out: &mut BytesMut, index: usize) {
        let body = OfItem {
            output_index: self.index_on_wire(index),
            item: &self.shown[index].item(),
        };
        let kind = "response.output_item.added";
        self.frames.write(out, place::ITEM, kind, body);
    }

    pub(super) fn find_open(&self, event: &Event, kind: ItemKind) -> Option<usize> {
        let is_it =
            |shown: &Shown| shown.is_open() && shown.step == event.step && shown.kind == kind;
        self.shown.iter().position(is_it)
    }

    /// Writes a delta of text, of reasoning or of a refusal.
    pub(super) fn text(&mut self, out: &mut BytesMut, event: &Event, kind: TextKind, text: &str) {
        if text.is_empty() {
            return;
        }
        let item_kind = match kind {
            TextKind::Reasoning => ItemKind::Reasoning,
            TextKind::Output | TextKind::Refusal => ItemKind::Message,
        };
        if item_kind == ItemKind::Message {
            self.close_kind(out, ItemKind::Reasoning);
        }
        let index = self.find_open(event, item_kind).unwrap_or_else(|| {
            let index = self.add(event, item_kind);
            self.opened(out, index);
            index
        });
        let output_index = self.index_on_wire(index);
        let shown = &mut self.shown[index];
        shown.last = event.id;
        let known = shown.parts.iter().position(|part| part.kind == kind);
        let content_index = known.unwrap_or(shown.parts.len());
        let content = u32::try_from(content_index).unwrap_or(u32::MAX);
        if known.is_none() {
            let empty = TextPart::empty(kind);
            let body = OfPart {
                item_id: &shown.id,
                output_index,
                content_index: content,
                part: &empty.part(),
            };
            let added = "response.content_part.added";
            self.frames.write(out, place::PART, added, body);
            shown.parts.push(empty);
        }
        let part = &mut shown.parts[content_index];
        if !part.is_whole {
            part.text.push_str(text);
        }
        let (name, logprobs) = match kind {
            TextKind::Reasoning => ("response.reasoning_text.delta", None),
            TextKind::Output => ("response.output_text.delta", Some([])),
            TextKind::Refusal => ("response.refusal.delta", None),
        };
        let body = OfText {
            item_id: &shown.id,
            output_index,
            content_index: Some(content),
            delta: Some(text),
            logprobs,
            ..OfText::default()
        };
        self.frames.write(out, place::DELTA, name, body);
    }

    pub(super) fn client_call(&mut self, out: &mut BytesMut, event: &Event, delta: &ToolCallDelta) {
        self.close_kind(out, ItemKind::Reasoning);
        self.close_kind(out, ItemKind::Message);
        let kind = ItemKind::ClientCall(delta.index);
        let is_it = |shown: &Shown| {
            shown.step == event.step && shown.kind == kind && shown.state != State::Withdrawn
        };
        let index = self.shown.iter().position(is_it).unwrap_or_else(|| {
            self.make_room(out);
            let index = self.add(event, kind);
            let shown = &mut self.shown[index];
            shown.call_id = delta.id.clone().unwrap_or_default();
            shown.name = delta.name.clone().unwrap_or_default();
            self.opened(out, index);
            index
        });
        let shown = &mut self.shown[index];
        shown.last = event.id;
        if !shown.has_all_arguments {
            shown.text.push_str(&delta.arguments);
        }
        if shown.is_open() {
            self.arguments_delta(out, index, &delta.arguments);
        }
    }

    /// Closes the oldest call if as many are open as may be.
    fn make_room(&mut self, out: &mut BytesMut) {
        let open = |shown: &Shown| shown.is_open() && matches!(shown.kind, ItemKind::ClientCall(_));
        if self.shown.iter().filter(|shown| open(shown)).count() >= MAX_OPEN_CALLS
            && let Some(oldest) = self.shown.iter().position(open)
        {
            self.close(out, oldest, ItemStatus::Completed);
        }
    }

    fn arguments_delta(&mut self, out: &mut BytesMut, index: usize, delta: &str) {
        if delta.is_empty() {
            return;
        }
        let body = OfText {
            item_id: &self.shown[index].id,
            output_index: self.index_on_wire(index),
            delta: Some(delta),
            ..OfText::default()
        };
        let kind = "response.function_call_arguments.delta";
        self.frames.write(out, place::DELTA, kind, body);
    }

    pub(super) fn server_call(&mut self, out: &mut BytesMut, event: &Event, call: &ToolStarted) {
        self.close_all(out, ItemStatus::Completed);
        if self.mcp_call(out, event, call) {
            return;
        }
        let index = self.add(event, ItemKind::ServerCall);
        let shown = &mut self.shown[index];
        shown.call_id.clone_from(&call.call_id);
        shown.name.clone_from(&call.name);
        self.opened(out, index);
        self.shown[index].text.clone_from(&call.arguments);
        self.arguments_delta(out, index, &call.arguments);
        self.came_whole(out, index);
    }

    pub(super) fn server_result(&mut self, out: &mut BytesMut, event: &Event, call: &ToolFinished) {
        self.close_all(out, ItemStatus::Completed);
        if self.mcp_result(out, event, call) {
            return;
        }
        let index = self.add(event, ItemKind::CallOutput);
        let shown = &mut self.shown[index];
        shown.call_id.clone_from(&call.call_id);
        shown.text.clone_from(&call.result);
        self.came_whole(out, index);
    }

    /// Writes the item of a sealed summary.
    pub(super) fn compaction(&mut self, out: &mut BytesMut, event: &Event, sealed: String) {
        self.close_all(out, ItemStatus::Completed);
        let index = self.add(event, ItemKind::Compaction);
        self.shown[index].text = sealed;
        self.came_whole(out, index);
    }

    /// Closes an item that came with one event.
    fn came_whole(&mut self, out: &mut BytesMut, index: usize) {
        let output_index = self.index_on_wire(index);
        let kind = self.shown[index].kind;
        if matches!(kind, ItemKind::CallOutput | ItemKind::Compaction) {
            self.shown[index].state = State::Closed(ItemStatus::Completed);
            self.opened(out, index);
        } else {
            let body = whole_arguments(&self.shown[index], output_index);
            self.frames.write(out, place::WHOLE, ARGUMENTS_DONE, body);
            self.shown[index].state = State::Closed(ItemStatus::Completed);
        }
        let body = OfItem {
            output_index,
            item: &self.shown[index].item(),
        };
        let kind = "response.output_item.done";
        self.frames.write(out, place::ITEM_DONE, kind, body);
    }

    fn close_kind(&mut self, out: &mut BytesMut, kind: ItemKind) {
        let open = |shown: &Shown| shown.is_open() && shown.kind == kind;
        while let Some(index) = self.shown.iter().position(open) {
            self.close(out, index, ItemStatus::Completed);
        }
    }

    /// Closes everything but the calls of MCP servers, which stay open until their results.
    pub(super) fn close_all(&mut self, out: &mut BytesMut, status: ItemStatus) {
        let open = |shown: &Shown| shown.is_open() && shown.kind != ItemKind::McpCall;
        while let Some(index) = self.shown.iter().position(open) {
            self.close(out, index, status);
        }
    }

    pub(super) fn close(&mut self, out: &mut BytesMut, index: usize, status: ItemStatus) {
        let output_index = self.index_on_wire(index);
        let shown = &mut self.shown[index];
        shown.state = State::Closed(status);
        for (content_index, text) in (0..).zip(&shown.parts) {
            let mut body = OfText {
                item_id: &shown.id,
                output_index,
                content_index: Some(content_index),
                ..OfText::default()
            };
            let kind = match text.kind {
                TextKind::Reasoning => {
                    body.text = Some(&text.text);
                    "response.reasoning_text.done"
                }
                TextKind::Output => {
                    body.text = Some(&text.text);
                    body.logprobs = Some([]);
                    "response.output_text.done"
                }
                TextKind::Refusal => {
                    body.refusal = Some(&text.text);
                    "response.refusal.done"
                }
            };
            self.frames.close(out, kind, body);
            let body = OfPart {
                item_id: &shown.id,
                output_index,
                content_index,
                part: &text.part(),
            };
            self.frames.close(out, "response.content_part.done", body);
        }
        if matches!(shown.kind, ItemKind::ClientCall(_)) {
            let body = whole_arguments(shown, output_index);
            self.frames.close(out, ARGUMENTS_DONE, body);
        }
        let body = OfItem {
            output_index,
            item: &shown.item(),
        };
        self.frames.close(out, "response.output_item.done", body);
    }
}

/// Returns the body of [`ARGUMENTS_DONE`].
fn whole_arguments(shown: &Shown, output_index: u32) -> OfText<'_> {
    OfText {
        item_id: &shown.id,
        output_index,
        name: Some(&shown.name),
        arguments: Some(&shown.text),
        ..OfText::default()
    }
}
