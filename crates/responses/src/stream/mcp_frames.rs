//! The frames of MCP servers' items.

use baton_protocol::event::{ApprovalRequested, ToolFinished, ToolStarted};
use baton_protocol::{ApprovalReason, Event};
use bytes::BytesMut;

use super::ResponseStream;
use super::frames::{OfItem, OfText, place};
use super::shown::recorded;
use super::shown::{Shown, State};
use crate::ids::{ItemKind, item_id};
use crate::items::ItemStatus;
use crate::mcp::{AnsweredCall, McpToolName};
use crate::response::{Snapshot, Status, usage_object};

/// The frames of a list.
const FRAMES_OF_LIST: u8 = 4;

impl ResponseStream {
    /// Writes the lists of the servers that the request names, from this place on.
    pub(super) fn lists(&mut self, out: &mut BytesMut, first: u8) {
        for index in 0..self.head.settings.mcp.len() {
            let list = &self.head.settings.mcp[index];
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            let place = first.saturating_add(number.saturating_mul(FRAMES_OF_LIST));
            let kind = ItemKind::McpList(number.into());
            let mut shown = Shown::new(kind, 0, item_id(self.head.run, 0, kind));
            shown.state = State::Closed(ItemStatus::Completed);
            shown.server_label.clone_from(&list.server_label);
            let (tools, error) = (list.tools.clone(), list.error.clone());
            let done = if error.is_some() {
                "response.mcp_list_tools.failed"
            } else {
                "response.mcp_list_tools.completed"
            };
            self.shown.push(shown);
            let at = self.shown.len() - 1;
            let output_index = self.index_on_wire(at);
            let shown = &mut self.shown[at];
            let of_list = OfText {
                item_id: &shown.id.clone(),
                output_index,
                ..OfText::default()
            };
            let item = &shown.item();
            let body = OfItem { output_index, item };
            let frames = &mut self.frames;
            frames.write(out, place, "response.output_item.added", body);
            let kind = "response.mcp_list_tools.in_progress";
            frames.write(out, place + 1, kind, &of_list);
            frames.write(out, place + 2, done, &of_list);
            (shown.tools, shown.error) = (tools, error);
            let item = &shown.item();
            let body = OfItem { output_index, item };
            frames.write(out, place + 3, "response.output_item.done", body);
        }
    }

    fn mcp_tool(&self, offered: &str) -> Option<McpToolName> {
        McpToolName::find(&self.head.settings.mcp_tools, offered).cloned()
    }

    /// Opens the item of a call, if it is one of an MCP server's tool. A call that a later attempt makes again
    /// is the same item.
    pub(super) fn mcp_call(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        call: &ToolStarted,
    ) -> bool {
        let Some(tool) = self.mcp_tool(&call.name) else {
            return false;
        };
        if self.find_open(event, ItemKind::McpCall).is_none() {
            self.open_mcp_call(out, event, tool, &call.call_id, &call.arguments);
        }
        true
    }

    fn open_mcp_call(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        tool: McpToolName,
        call_id: &str,
        arguments: &str,
    ) -> usize {
        self.withdraw_question(event.step);
        let answered = AnsweredCall::find(&self.head.settings.mcp_answers, call_id);
        let asked_by = answered.map(|answered| answered.approval_request_id.clone());
        let index = self.add(event, ItemKind::McpCall);
        let shown = &mut self.shown[index];
        shown.server_label = tool.server_label;
        shown.name = tool.name;
        shown.asked_by = asked_by;
        self.opened(out, index);
        let output_index = self.index_on_wire(index);
        let shown = &mut self.shown[index];
        arguments.clone_into(&mut shown.text);
        let item_id = &*shown.id;
        let begun = OfText {
            item_id,
            output_index,
            ..OfText::default()
        };
        let kind = "response.mcp_call.in_progress";
        self.frames.write(out, place::PART, kind, &begun);
        if !arguments.is_empty() {
            let delta = OfText {
                item_id,
                output_index,
                delta: Some(arguments),
                ..OfText::default()
            };
            let kind = "response.mcp_call_arguments.delta";
            self.frames.write(out, place::DELTA, kind, delta);
        }
        let whole = OfText {
            item_id,
            output_index,
            arguments: Some(arguments),
            ..OfText::default()
        };
        let kind = "response.mcp_call_arguments.done";
        self.frames.write(out, place::WHOLE, kind, whole);
        index
    }

    /// Closes the item of a call with its result, if it is one of an MCP server's tool.
    pub(super) fn mcp_result(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        call: &ToolFinished,
    ) -> bool {
        let Some(tool) = self.mcp_tool(&call.name) else {
            return false;
        };
        let open = self.find_open(event, ItemKind::McpCall);
        let index = open.unwrap_or_else(|| self.open_mcp_call(out, event, tool, &call.call_id, ""));
        let output_index = self.index_on_wire(index);
        let shown = &mut self.shown[index];
        shown.last = event.id;
        shown.result = Some((call.ok, call.result.clone()));
        let body = OfText {
            item_id: &shown.id,
            output_index,
            ..OfText::default()
        };
        let kind = if call.ok {
            "response.mcp_call.completed"
        } else {
            "response.mcp_call.failed"
        };
        self.frames.close(out, kind, body);
        self.close(out, index, ItemStatus::Completed);
        true
    }

    /// Writes the item that asks about a call, if this wire can take the answer. Returns whether it can.
    pub(super) fn question(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        asked: &ApprovalRequested,
    ) -> bool {
        let is_of_wire = asked.reason == ApprovalReason::ApprovalRequired.as_str()
            && self.head.settings.conversation.is_none();
        let Some(tool) = self.mcp_tool(&asked.name).filter(|_| is_of_wire) else {
            return false;
        };
        self.close_all(out, ItemStatus::Completed);
        let index = self.add(event, ItemKind::McpApproval);
        let shown = &mut self.shown[index];
        shown.server_label = tool.server_label;
        shown.name = tool.name;
        shown.text.clone_from(&asked.arguments);
        shown.state = State::Closed(ItemStatus::Completed);
        self.opened(out, index);
        let body = OfItem {
            output_index: self.index_on_wire(index),
            item: &self.shown[index].item(),
        };
        let kind = "response.output_item.done";
        self.frames.write(out, place::ITEM_DONE, kind, body);
        true
    }

    /// Withdraws the question about a call that somebody decided: the record has the call alone.
    fn withdraw_question(&mut self, step: u32) {
        let is_it = |shown: &&mut Shown| {
            shown.kind == ItemKind::McpApproval
                && shown.step == step
                && shown.state != State::Withdrawn
        };
        if let Some(shown) = self.shown.iter_mut().find(is_it) {
            shown.state = State::Withdrawn;
            self.frames.count_extra();
        }
    }

    /// Returns whether the run waits for nothing but the client's answers to approval requests.
    pub fn waits_for_answers(&self) -> bool {
        let asks =
            |shown: &Shown| shown.kind == ItemKind::McpApproval && shown.state != State::Withdrawn;
        !self.asks_people && self.shown.iter().any(asks)
    }

    /// Writes the response as it ends with approval requests. A client that resumes after it misses nothing.
    pub fn park(&mut self, out: &mut BytesMut) {
        let output = recorded(self.head.run, &self.shown);
        let mut counts = baton_openai::AnswerFields::default();
        for (_, _, fields) in &self.counts {
            counts.extend(fields.clone());
        }
        let mut used = baton_protocol::Usage::default();
        for (_, usage) in &self.used {
            used += *usage;
        }
        let snapshot = Snapshot {
            status: Status::Completed,
            ended_at: self.asked_at,
            output: &output,
            usage: (!used.is_zero()).then(|| usage_object(used, &counts.usage)),
        };
        self.whole(out, place::END, "response.completed", &snapshot);
    }

    /// Closes the calls that have no result when the run ends.
    pub(super) fn break_off_calls(&mut self, out: &mut BytesMut) {
        while let Some(index) = self.shown.iter().position(Shown::is_open) {
            self.close(out, index, ItemStatus::Incomplete);
        }
    }
}
