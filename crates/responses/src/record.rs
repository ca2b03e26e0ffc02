//! A run's record as output items.

use baton_openai::Message;
use baton_protocol::{FinishReason, RunId};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::compaction::compaction_item;
use crate::ids::{ItemKind, item_id};
use crate::items::{Item, ItemStatus, McpCall, Output, Part};
use crate::mcp::{AnsweredCall, McpToolName};
use crate::settings::Settings;

/// A recorded step of a run.
#[derive(Debug, Clone, Copy)]
pub struct RecordedStep<'a> {
    /// Its place in the transcript.
    pub step: u32,
    /// Its kind.
    pub source: StepSource<'a>,
    /// The chat message that it resulted in, or as much of one as arrived.
    pub message: Option<&'a RawValue>,
}

/// A kind of step.
#[derive(Debug, Clone, Copy)]
pub enum StepSource<'a> {
    /// One answer of the model.
    Turn(FinishReason),
    /// An answer that broke off when the run was cancelled or failed.
    CutTurn,
    /// One call of a server-side tool.
    Call {
        /// The call's id, as the model gave it.
        call_id: &'a str,
        /// The tool.
        name: &'a str,
        /// Its arguments, as the model wrote them.
        arguments: &'a str,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A summary in place of everything before it, sealed.
    Compaction(&'a str),
    /// A call of an MCP server's tool that waits for a person, or waited when its run ended.
    Question {
        /// The tool's name for the model.
        name: &'a str,
        /// Its arguments, as the model wrote them.
        arguments: &'a str,
    },
}

/// Returns the lists of the MCP servers that a request names, as items.
pub(crate) fn list_items(run: RunId, settings: &Settings) -> impl Iterator<Item = Item> {
    (0..)
        .zip(&settings.mcp)
        .map(move |(index, list)| Item::McpListTools {
            id: item_id(run, 0, ItemKind::McpList(index)),
            server_label: list.server_label.clone(),
            tools: list.tools.clone(),
            error: list.error.clone(),
        })
}

/// Returns the items of a run's record, in the order of its transcript. A call without a result is
/// left out, because a client could not send it back.
pub fn output_items(
    run: RunId,
    steps: &[RecordedStep<'_>],
    client_tools: &[String],
    settings: &Settings,
) -> Result<Vec<Item>, serde_json::Error> {
    let mut items: Vec<_> = list_items(run, settings).collect();
    for step in steps {
        if let StepSource::Compaction(sealed) = step.source {
            items.push(compaction_item(run, step.step, sealed.to_owned()));
            continue;
        }
        if let StepSource::Question { name, arguments } = step.source {
            if let Some(tool) = McpToolName::find(&settings.mcp_tools, name) {
                items.push(Item::McpApprovalRequest {
                    id: item_id(run, step.step, ItemKind::McpApproval),
                    server_label: tool.server_label.clone(),
                    name: tool.name.clone(),
                    arguments: arguments.to_owned(),
                });
            }
            continue;
        }
        let Some(message) = step.message else {
            continue;
        };
        let message: Message = serde_json::from_str(message.get())?;
        match step.source {
            StepSource::Turn(finish) => {
                let whole = !matches!(finish, FinishReason::Length | FinishReason::ContentFilter);
                items.extend(turn_items(run, step.step, &message, client_tools, whole));
            }
            StepSource::Compaction(_) | StepSource::Question { .. } => {}
            StepSource::CutTurn => {
                items.extend(turn_items(run, step.step, &message, client_tools, false));
            }
            StepSource::Call {
                call_id,
                name,
                arguments,
                ok,
            } => {
                if let Some(tool) = McpToolName::find(&settings.mcp_tools, name) {
                    let mut call = McpCall {
                        id: item_id(run, step.step, ItemKind::McpCall),
                        server_label: tool.server_label.clone(),
                        name: tool.name.clone(),
                        arguments: arguments.to_owned(),
                        approval_request_id: AnsweredCall::find(&settings.mcp_answers, call_id)
                            .map(|answered| answered.approval_request_id.clone()),
                        ..McpCall::default()
                    };
                    call.end(ok, message.plain_text());
                    items.push(Item::McpCall(Box::new(call)));
                    continue;
                }
                let status = ItemStatus::Completed;
                items.push(Item::FunctionCall {
                    id: item_id(run, step.step, ItemKind::ServerCall),
                    status,
                    call_id: call_id.to_owned(),
                    name: name.to_owned(),
                    arguments: arguments.to_owned(),
                });
                items.push(Item::FunctionCallOutput {
                    id: item_id(run, step.step, ItemKind::CallOutput),
                    status,
                    call_id: call_id.to_owned(),
                    output: Output::Text(message.plain_text()),
                });
            }
        }
    }
    Ok(items)
}

/// Returns the items of a turn. What it wrote last is incomplete unless the turn is whole.
fn turn_items(
    run: RunId,
    step: u32,
    message: &Message,
    client_tools: &[String],
    whole: bool,
) -> Vec<Item> {
    let mut items = Vec::new();
    let status = |is_last: bool| {
        if whole || !is_last {
            ItemStatus::Completed
        } else {
            ItemStatus::Incomplete
        }
    };
    let field = |name: &str| {
        let text = message.rest.get(name).and_then(Value::as_str);
        text.unwrap_or_default()
    };
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    let calls: Vec<_> = calls
        .iter()
        .filter(|call| client_tools.iter().any(|name| name == call.name()))
        .collect();
    let (text, refusal) = (message.plain_text(), field("refusal"));
    let mut content = Vec::new();
    if !text.is_empty() {
        content.push(Part::output_text(text));
    }
    if !refusal.is_empty() {
        content.push(Part::Refusal {
            refusal: refusal.to_owned(),
        });
    }
    let reasoning = field("reasoning_content");
    if !reasoning.is_empty() {
        items.push(Item::Reasoning {
            id: item_id(run, step, ItemKind::Reasoning),
            status: status(content.is_empty() && calls.is_empty()),
            summary: Vec::new(),
            content: vec![Part::ReasoningText {
                text: reasoning.to_owned(),
            }],
        });
    }
    if !content.is_empty() {
        items.push(Item::Message {
            id: item_id(run, step, ItemKind::Message),
            status: status(calls.is_empty()),
            role: "assistant".to_owned(),
            content,
            phase: None,
        });
    }
    for (index, call) in (0..).zip(calls) {
        items.push(Item::FunctionCall {
            id: item_id(run, step, ItemKind::ClientCall(index)),
            status: status(true),
            call_id: call.id.clone(),
            name: call.name().to_owned(),
            arguments: call.arguments().to_owned(),
        });
    }
    items
}
