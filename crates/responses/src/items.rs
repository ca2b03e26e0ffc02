//! Items: the parts of an input or an output, and their forms as chat messages.
//!
//! A run takes and records chat messages. [`to_messages`] and [`to_items`] are inverse to each
//! other, except that items have ids, and that neighbouring parts of one assistant's turn
//! (reasoning, text, calls) are one message.

mod from_messages;
mod mcp;
mod parse;
mod stored;
mod to_messages;

use serde::Serialize;
use serde_json::Value;

pub use from_messages::to_items;
pub(crate) use mcp::McpCallStatus;
pub use mcp::{ListedTool, McpCall, with_mcp_calls};
pub(crate) use parse::{SealedItem, read_input, read_item};
pub use stored::{Removal, join_items, stored_items, without_item};
pub use to_messages::to_messages;

/// An item as the wire shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// A message of any role.
    Message {
        /// The item's id.
        id: String,
        /// Its progress.
        status: ItemStatus,
        /// `user`, `system`, `developer` or `assistant`.
        role: String,
        /// Its parts.
        content: Vec<Part>,
        /// The part of an answer that an assistant's message is: `commentary` or `final_answer`.
        #[serde(skip_serializing_if = "Option::is_none")]
        phase: Option<String>,
    },
    /// A call of a function.
    FunctionCall {
        /// The item's id.
        id: String,
        /// Its progress.
        status: ItemStatus,
        /// The call's id, as the model gave it.
        call_id: String,
        /// The function.
        name: String,
        /// JSON as the model wrote it, which may not be valid.
        arguments: String,
    },
    /// The result of a call.
    FunctionCallOutput {
        /// The item's id.
        id: String,
        /// Its progress.
        status: ItemStatus,
        /// The call's id, as the model gave it.
        call_id: String,
        /// The result.
        output: Output,
    },
    /// The model's reasoning.
    Reasoning {
        /// The item's id.
        id: String,
        /// Its progress.
        status: ItemStatus,
        /// Always empty: models here show their reasoning itself.
        summary: Vec<Part>,
        /// The reasoning.
        content: Vec<Part>,
    },
    /// A summary in place of everything before it.
    Compaction {
        /// The item's id.
        id: String,
        /// The summary, which this server alone can open.
        encrypted_content: String,
    },
    /// The tools of an MCP server.
    McpListTools {
        /// The item's id.
        id: String,
        /// The server.
        server_label: String,
        /// Those that the model is offered.
        tools: Vec<ListedTool>,
        /// The reason why tools of it cannot be used.
        error: Option<String>,
    },
    /// A call of an MCP server's tool.
    McpCall(Box<McpCall>),
    /// A call of an MCP server's tool that waits for a person.
    McpApprovalRequest {
        /// The item's id.
        id: String,
        /// The server.
        server_label: String,
        /// The server's name for the tool.
        name: String,
        /// JSON as the model wrote it.
        arguments: String,
    },
    /// A person's answer about such a call.
    McpApprovalResponse {
        /// The item's id.
        id: String,
        /// The item that it answers.
        approval_request_id: String,
        /// Whether the call may be made.
        approve: bool,
        /// The reason, for the model.
        reason: Option<String>,
    },
}

/// The progress of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// It is being written.
    InProgress,
    /// It is whole.
    Completed,
    /// It broke off.
    Incomplete,
}

/// A part of a message or of a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text of a user, a system or a tool.
    InputText {
        /// The text.
        text: String,
    },
    /// An image.
    InputImage {
        /// A URL or a `data:` URL.
        image_url: String,
        /// `low`, `high`, `auto` or `original`.
        detail: String,
    },
    /// A file in the request itself.
    InputFile {
        /// Its name.
        filename: Option<String>,
        /// Its content, a `data:` URL or Base64.
        file_data: String,
    },
    /// Text of the model.
    OutputText {
        /// The text.
        text: String,
        /// The upstream's annotations, in OpenAI's form.
        annotations: Vec<Value>,
        /// Always empty: token probabilities are not kept.
        logprobs: Vec<Value>,
    },
    /// A refusal of the model.
    Refusal {
        /// The text.
        refusal: String,
    },
    /// Reasoning of the model.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// A summary of reasoning.
    SummaryText {
        /// The text.
        text: String,
    },
}

impl Part {
    /// Makes the model's text.
    pub fn output_text(text: impl Into<String>) -> Self {
        Self::OutputText {
            text: text.into(),
            annotations: Vec::new(),
            logprobs: Vec::new(),
        }
    }
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Output {
    /// Plain text.
    Text(String),
    /// Parts: text, images, files.
    Parts(Vec<Part>),
}

impl Item {
    /// Returns the item's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::FunctionCallOutput { id, .. }
            | Self::Reasoning { id, .. }
            | Self::Compaction { id, .. }
            | Self::McpListTools { id, .. }
            | Self::McpApprovalRequest { id, .. }
            | Self::McpApprovalResponse { id, .. } => id,
            Self::McpCall(call) => &call.id,
        }
    }

    pub(crate) fn set_id(&mut self, new: String) {
        match self {
            Self::Message { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::FunctionCallOutput { id, .. }
            | Self::Reasoning { id, .. }
            | Self::Compaction { id, .. }
            | Self::McpListTools { id, .. }
            | Self::McpApprovalRequest { id, .. }
            | Self::McpApprovalResponse { id, .. } => *id = new,
            Self::McpCall(call) => call.id = new,
        }
    }

    fn kind(&self) -> crate::ids::ItemKind {
        use crate::ids::ItemKind;
        match self {
            Self::Message { .. } => ItemKind::Message,
            Self::FunctionCall { .. } => ItemKind::ServerCall,
            Self::FunctionCallOutput { .. } => ItemKind::CallOutput,
            Self::Reasoning { .. } => ItemKind::Reasoning,
            Self::Compaction { .. } => ItemKind::Compaction,
            Self::McpListTools { .. } => ItemKind::McpList(0),
            Self::McpCall(_) => ItemKind::McpCall,
            Self::McpApprovalRequest { .. } => ItemKind::McpApproval,
            Self::McpApprovalResponse { .. } => ItemKind::McpAnswer,
        }
    }
}

/// Gives input items the ids of their places.
pub fn with_input_ids(run: baton_protocol::RunId, items: &mut [Item]) {
    for (index, item) in items.iter_mut().enumerate() {
        let kind = item.kind();
        item.set_id(crate::ids::input_item_id(run, index, kind));
    }
}
