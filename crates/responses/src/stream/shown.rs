//! The items that a stream has shown.

use baton_protocol::{EventId, RunId};

use crate::ids::{ItemKind, item_id};
use crate::items::{Item, ItemStatus, ListedTool, McpCall, McpCallStatus, Output, Part};

/// An item that a stream has shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) kind: ItemKind,
    pub(super) step: u32,
    /// The item's id on the stream.
    pub(super) id: String,
    /// The last event that added to it.
    pub(super) last: EventId,
    pub(super) state: State,
    /// The parts of a message or of reasoning, in the order of their beginnings.
    pub(super) parts: Vec<TextPart>,
    /// The id of a call.
    pub(super) call_id: String,
    /// The function of a call.
    pub(super) name: String,
    /// The arguments of a call, its result, or a sealed summary.
    pub(super) text: String,
    /// Whether the arguments are known from the record, with what is still to be shown.
    pub(super) has_all_arguments: bool,
    /// The server of an MCP item.
    pub(super) server_label: String,
    /// Whether a call of an MCP server's tool succeeded, and its result.
    pub(super) result: Option<(bool, String)>,
    /// The item that asked a person about a call.
    pub(super) asked_by: Option<String>,
    /// The tools of a server's list.
    pub(super) tools: Vec<ListedTool>,
    /// The reason why tools of a server cannot be used.
    pub(super) error: Option<String>,
}

/// The state of a shown item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed(ItemStatus),
    /// It is no part of the response.
    Withdrawn,
}

/// A kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TextKind {
    Reasoning,
    Output,
    Refusal,
}

/// A part of a message or of reasoning.
#[derive(Debug, Clone)]
pub(super) struct TextPart {
    pub(super) kind: TextKind,
    pub(super) text: String,
    /// Whether it is known from the record, with what is still to be shown.
    pub(super) is_whole: bool,
}

impl TextPart {
    pub(super) fn empty(kind: TextKind) -> Self {
        Self {
            kind,
            text: String::new(),
            is_whole: false,
        }
    }

    pub(super) fn part(&self) -> Part {
        let text = self.text.clone();
        match self.kind {
            TextKind::Reasoning => Part::ReasoningText { text },
            TextKind::Output => Part::output_text(text),
            TextKind::Refusal => Part::Refusal { refusal: text },
        }
    }
}

impl Shown {
    pub(super) fn new(kind: ItemKind, step: u32, id: String) -> Self {
        Self {
            kind,
            step,
            id,
            last: EventId::ORIGIN,
            state: State::Open,
            parts: Vec::new(),
            call_id: String::new(),
            name: String::new(),
            text: String::new(),
            has_all_arguments: false,
            server_label: String::new(),
            result: None,
            asked_by: None,
            tools: Vec::new(),
            error: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    fn status(&self) -> ItemStatus {
        match self.state {
            State::Open => ItemStatus::InProgress,
            State::Closed(status) => status,
            State::Withdrawn => ItemStatus::Incomplete,
        }
    }

    /// Returns the item as it is now.
    pub(super) fn item(&self) -> Item {
        let (id, status) = (self.id.clone(), self.status());
        let parts = || self.parts.iter().map(TextPart::part).collect();
        let server_label = self.server_label.clone();
        match self.kind {
            ItemKind::McpList(_) => Item::McpListTools {
                id,
                server_label,
                tools: self.tools.clone(),
                error: self.error.clone(),
            },
            ItemKind::McpApproval | ItemKind::McpAnswer => Item::McpApprovalRequest {
                id,
                server_label,
                name: self.name.clone(),
                arguments: self.text.clone(),
            },
            ItemKind::McpCall => {
                let mut call = McpCall {
                    id,
                    server_label,
                    name: self.name.clone(),
                    arguments: self.text.clone(),
                    approval_request_id: self.asked_by.clone(),
                    ..McpCall::default()
                };
                match &self.result {
                    Some((ok, text)) => call.end(*ok, text.clone()),
                    None if status != ItemStatus::InProgress => {
                        call.status = McpCallStatus::Incomplete;
                    }
                    None => {}
                }
                Item::McpCall(Box::new(call))
            }
            ItemKind::Reasoning => Item::Reasoning {
                id,
                status,
                summary: Vec::new(),
                content: parts(),
            },
            ItemKind::Message => Item::Message {
                id,
                status,
                role: "assistant".to_owned(),
                content: parts(),
                phase: None,
            },
            ItemKind::ClientCall(_) | ItemKind::ServerCall => Item::FunctionCall {
                id,
                status,
                call_id: self.call_id.clone(),
                name: self.name.clone(),
                arguments: self.text.clone(),
            },
            ItemKind::Compaction => Item::Compaction {
                id,
                encrypted_content: self.text.clone(),
            },
            ItemKind::CallOutput => Item::FunctionCallOutput {
                id,
                status,
                call_id: self.call_id.clone(),
                output: Output::Text(self.text.clone()),
            },
        }
    }

    /// Adds a later item of the same step and kind, as the record has it.
    fn join(&mut self, later: &Self) {
        for text in &later.parts {
            match self.parts.iter_mut().find(|part| part.kind == text.kind) {
                Some(part) => part.text.push_str(&text.text),
                None => self.parts.push(text.clone()),
            }
        }
        self.state = later.state;
    }
}

/// Returns the output that the record has of these items, in the order and with the ids of the
/// record.
pub(super) fn recorded(run: RunId, shown: &[Shown]) -> Vec<Item> {
    let mut kept: Vec<Shown> = Vec::new();
    for item in shown.iter().filter(|item| item.state != State::Withdrawn) {
        let same = |known: &&mut Shown| known.step == item.step && known.kind == item.kind;
        if let Some(known) = kept.iter_mut().find(same) {
            known.join(item);
            continue;
        }
        // A call without a result is no part of the record.
        let is_answered = || {
            shown.iter().any(|output| {
                output.kind == ItemKind::CallOutput
                    && output.step == item.step
                    && output.state != State::Withdrawn
            })
        };
        if item.kind == ItemKind::ServerCall && !is_answered()
            || item.kind == ItemKind::McpCall && item.result.is_none()
        {
            continue;
        }
        let mut known = Shown::new(item.kind, item.step, item_id(run, item.step, item.kind));
        known.server_label.clone_from(&item.server_label);
        known.result.clone_from(&item.result);
        known.asked_by.clone_from(&item.asked_by);
        known.tools.clone_from(&item.tools);
        known.error.clone_from(&item.error);
        known.call_id.clone_from(&item.call_id);
        known.name.clone_from(&item.name);
        known.text.clone_from(&item.text);
        known.join(item);
        kept.push(known);
    }
    kept.sort_by_key(|item| (item.step, item.kind));
    for item in &mut kept {
        item.parts.sort_by_key(|part| part.kind);
    }
    kept.iter().map(Shown::item).collect()
}
