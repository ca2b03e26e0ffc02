//! Answers to approval requests: those at the end of an input decide about calls that wait, and earlier ones are
//! part of the conversation.

use std::collections::HashSet;

use baton_openai::{Message, ToolCall};
use baton_protocol::{ApprovedCall, Decision, RunId};
use serde::{Deserialize, Serialize};

use super::called_name;
use crate::Invalid;
use crate::ids::{approval_id, call_of_approval};
use crate::items::{Item, ItemStatus, Output};
use crate::read::WRONG_VALUE;
use crate::request::CreateResponse;

/// An answer of a request about a call that waits.
#[derive(Debug, Clone)]
pub struct McpAnswer {
    /// The place of the asking item's id in the request.
    pub path: String,
    /// The run that the call waits in.
    pub run: RunId,
    /// The call's step.
    pub step: u32,
    /// Whether it may be made.
    pub approve: bool,
    /// The reason, for the model.
    pub reason: Option<String>,
}

/// A call that waits for a person.
#[derive(Debug, Clone)]
pub struct WaitingCall {
    /// The call's step.
    pub step: u32,
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The tool's name for the model.
    pub offered: String,
    /// The arguments to approve.
    pub arguments: String,
}

/// A call that a request answered about. It is stored with the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredCall {
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The item that asked about it.
    pub approval_request_id: String,
    /// Whether it may be made.
    pub approve: bool,
    /// The reason, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AnsweredCall {
    /// Finds the answer about a call.
    pub(crate) fn find<'a>(known: &'a [Self], call_id: &str) -> Option<&'a Self> {
        known.iter().find(|answered| answered.call_id == call_id)
    }
}

/// Takes the answers from the end of an input, and replaces earlier ones by their calls.
pub(crate) fn take_answers(input: &mut Vec<Item>) -> Result<Vec<McpAnswer>, Invalid> {
    let is_answer = |item: &&Item| matches!(item, Item::McpApprovalResponse { .. });
    let last = input.iter().rev().take_while(is_answer).count();
    let first = input.len() - last;
    let mut answers: Vec<McpAnswer> = Vec::with_capacity(last);
    let mut ids = HashSet::new();
    for (index, item) in (first..).zip(input.split_off(first)) {
        let Item::McpApprovalResponse {
            approval_request_id: id,
            approve,
            reason,
            ..
        } = item
        else {
            continue;
        };
        let path = format!("input[{index}].approval_request_id");
        let wrong = |why: &str| Invalid::field(WRONG_VALUE, &*path, format!("`{path}` {why}"));
        let (run, step) = call_of_approval(&id)
            .ok_or_else(|| wrong("is not the id of an approval request: send it as it came"))?;
        if answers.first().is_some_and(|first| first.run != run) {
            return Err(wrong(
                "is of another response: answer those of one response at a time",
            ));
        }
        if !ids.insert(id) {
            return Err(wrong("is answered twice: send one answer"));
        }
        answers.push(McpAnswer {
            path,
            run,
            step,
            approve,
            reason,
        });
    }
    settle_earlier(input, &ids)?;
    Ok(answers)
}

/// Replaces the approval requests of an input, and their answers in the middle of it. `answered` are the requests
/// that its end answers.
fn settle_earlier(input: &mut Vec<Item>, answered: &HashSet<String>) -> Result<(), Invalid> {
    let items = std::mem::take(input);
    let made: HashSet<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::McpCall(call) => call.approval_request_id.clone(),
            _ => None,
        })
        .collect();
    let rejected: Vec<(String, String)> = items
        .iter()
        .filter_map(|item| match item {
            Item::McpApprovalResponse {
                approval_request_id,
                approve: false,
                reason,
                ..
            } => Some((
                approval_request_id.clone(),
                reason.clone().unwrap_or_default(),
            )),
            _ => None,
        })
        .collect();
    let approved: HashSet<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::McpApprovalResponse {
                approval_request_id,
                approve: true,
                ..
            } => Some(approval_request_id.clone()),
            _ => None,
        })
        .collect();
    let asked: HashSet<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::McpApprovalRequest { id, .. } => Some(id.clone()),
            _ => None,
        })
        .collect();
    for (index, item) in items.into_iter().enumerate() {
        let refuse = |why: &str| {
            let path = format!("input[{index}]");
            let message = format!("`{path}` {why}");
            Err(Invalid::field(WRONG_VALUE, path, message))
        };
        match item {
            Item::McpApprovalRequest {
                id,
                server_label,
                name,
                arguments,
            } => {
                if let Some((_, reason)) = rejected.iter().find(|(rejected, _)| *rejected == id) {
                    input.push(Item::FunctionCall {
                        id: String::new(),
                        status: ItemStatus::Completed,
                        call_id: id.clone(),
                        name: called_name(&server_label, &name),
                        arguments,
                    });
                    input.push(Item::FunctionCallOutput {
                        id: String::new(),
                        status: ItemStatus::Completed,
                        call_id: id,
                        output: Output::Text(Decision::text_of_rejection(reason)),
                    });
                } else if !answered.contains(&id) && !made.contains(&id) && !approved.contains(&id)
                {
                    return refuse(
                        "is an approval request without an answer: end `input` with an \
                         `mcp_approval_response`, or leave it out",
                    );
                }
            }
            Item::McpApprovalResponse {
                approval_request_id,
                approve,
                ..
            } => {
                if approve && !made.contains(&approval_request_id) {
                    return refuse(
                        "approves a call that has no `mcp_call` after it: an answer is the end of `input`. Send \
                         what follows with the next request",
                    );
                }
                if !approve && !asked.contains(&approval_request_id) {
                    return refuse("answers no approval request of this input: leave it out");
                }
            }
            other => input.push(other),
        }
    }
    Ok(())
}

impl CreateResponse {
    /// Applies the answers of the request to the calls that wait in their run. With `previous_response_id` the
    /// earlier messages have the calls; else the request repeats the conversation, and they are added to it.
    pub fn apply_answers(&mut self, waiting: &[WaitingCall]) -> Result<(), Invalid> {
        let mut calls = Vec::new();
        let mut results = Vec::new();
        for call in waiting {
            let answers = self.answers.iter();
            let answer = answers.clone().find(|answer| answer.step == call.step);
            let Some(answer) = answer else {
                let run = answers.map(|answer| answer.run).next();
                let id = run
                    .map(|run| approval_id(run, call.step))
                    .unwrap_or_default();
                let message = format!(
                    "`input` has no answer to `{id}`: answer all approval requests of a response"
                );
                return Err(Invalid::field("approval_missing", "input", message));
            };
            if answer.approve {
                let tools = &mut self.server_tools;
                let tool = tools.iter_mut().find(|tool| tool.name == call.offered);
                let Some(tool) = tool else {
                    let message = format!(
                        "`tools` does not offer `{}`, which the request approves a call of: name its server",
                        call.offered
                    );
                    return Err(Invalid::field("invalid_tools", "tools", message));
                };
                tool.approved.push(ApprovedCall {
                    id: call.call_id.clone(),
                    arguments: call.arguments.clone(),
                });
            } else {
                let reason = answer.reason.as_deref().unwrap_or_default();
                let text = Decision::text_of_rejection(reason);
                results.push(Message::tool_result(&call.call_id, &text));
            }
            calls.push(ToolCall::function(
                &call.call_id,
                &call.offered,
                &call.arguments,
            ));
            self.settings.mcp_answers.push(AnsweredCall {
                call_id: call.call_id.clone(),
                approval_request_id: approval_id(answer.run, call.step),
                approve: answer.approve,
                reason: answer.reason.clone(),
            });
        }
        if self.previous.is_none() {
            self.calls = calls;
        }
        self.results = results;
        Ok(())
    }

    /// Adds the calls and results of the answers to the messages of the run.
    pub(crate) fn add_answered(&self, messages: &mut Vec<Message>) {
        if !self.calls.is_empty() {
            if messages.last().is_none_or(|last| last.role != "assistant") {
                messages.push(Message {
                    role: "assistant".to_owned(),
                    ..Message::default()
                });
            }
            if let Some(last) = messages.last_mut() {
                last.tool_calls
                    .get_or_insert_default()
                    .extend(self.calls.iter().cloned());
            }
        }
        messages.extend(self.results.iter().cloned());
    }
}

/// Shows the calls that a request answered about as the items that asked, and its answers after them.
pub fn with_answers(items: Vec<Item>, answered: &[AnsweredCall]) -> Vec<Item> {
    let mut shown: Vec<Item> = Vec::with_capacity(items.len() + answered.len());
    for item in items {
        shown.push(match item {
            Item::McpCall(call) => match AnsweredCall::find(answered, &call.call_id) {
                Some(answer) => Item::McpApprovalRequest {
                    id: answer.approval_request_id.clone(),
                    server_label: call.server_label,
                    name: call.name,
                    arguments: call.arguments,
                },
                None => Item::McpCall(call),
            },
            other => other,
        });
    }
    shown.extend(answered.iter().map(|answer| Item::McpApprovalResponse {
        id: String::new(),
        approval_request_id: answer.approval_request_id.clone(),
        approve: answer.approve,
        reason: answer.reason.clone(),
    }));
    shown
}
