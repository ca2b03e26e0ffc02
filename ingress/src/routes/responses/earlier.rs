//! The conversation that a response goes on from.

use std::collections::HashSet;

use baton_openai::Message;
use baton_protocol::compaction::compacted_input;
use baton_protocol::{RunId, RunSpec, RunStatus, TenantId, ThreadId};
use baton_responses::McpToolName;
use baton_store::{MessageOrder, StepData, StepRecord, Store};
use http::StatusCode;

use super::path::{not_found, not_kept};
use super::record::head;
use super::run_request::PREVIOUS;
use crate::error::ApiError;
use crate::routes::conversations::no_such_conversation;

/// The messages that are read at a time.
const PAGE: u32 = 1_000;

/// The conversation before a request.
#[derive(Default)]
pub(super) struct Earlier {
    pub(super) messages: Vec<Message>,
    /// The tokens of its last turn, read and written; 0 after a compaction.
    pub(super) tokens: u64,
    /// The tools with calls that are shown as calls of MCP servers.
    pub(super) mcp_tools: Vec<McpToolName>,
}

/// Returns the messages up to the end of a response, or up to the calls that a request answers about.
/// They lack its `instructions`, which the next one does not inherit, and begin with its newest
/// summary.
pub(super) async fn conversation(
    store: &Store,
    tenant: TenantId,
    run: RunId,
    answered: &[String],
) -> Result<Earlier, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    let record = tx.run(run).await?;
    let record =
        record.ok_or_else(|| not_found("there is no response with this id").param(PREVIOUS))?;
    let mut spec: RunSpec =
        serde_json::from_str(&record.spec_json).map_err(|error| ApiError::internal(&error))?;
    let head = head(run, record.created_at, &spec, None).map_err(|error| error.param(PREVIOUS))?;
    if !head.settings.store {
        return Err(not_kept().param(PREVIOUS));
    }
    if record.outcome.is_none() && answered.is_empty() {
        if record.status == RunStatus::AwaitingApproval {
            let message = "the response before this one waits for a decision: begin `input` with an \
                           `mcp_approval_response` to each of its approval requests, decide at \
                           /v1/runs/{id}/approvals, or cancel it";
            let error = ApiError::new(StatusCode::CONFLICT, "approval_required", message);
            return Err(error.param(PREVIOUS).do_not_retry());
        }
        let message = "the response before this one has not ended: wait for it, or cancel it";
        let error = ApiError::new(StatusCode::CONFLICT, "response_in_progress", message);
        return Err(error.param(PREVIOUS).do_not_retry());
    }
    let mut steps = tx.run_steps(run).await?;
    drop(tx);
    let mut tokens = spec.compaction.map_or(0, |rule| rule.earlier_tokens);
    let newest = steps.iter().rposition(is_compaction);
    if let Some((at, rule)) = newest.zip(spec.compaction)
        && let Some(summary) = steps[at].message.take()
    {
        spec.messages = compacted_input(&spec.messages, &rule, &summary)
            .map_err(|error| ApiError::internal(&error))?;
        // Messages that no turn had answered stay as they are.
        let inputs = steps[..at].iter().rev();
        let inputs = inputs.take_while(|step| matches!(step.data, StepData::Input { .. }));
        let replaced = at - inputs.count();
        steps.remove(at);
        steps.drain(..replaced);
        tokens = 0;
    }
    let mut messages = input(&spec, head.settings.system_message().is_some())?;
    for step in steps {
        if let StepData::Turn { usage, .. } = step.data {
            let counted = usage.prompt_tokens.saturating_add(usage.completion_tokens);
            tokens = counted.max(usage.total_tokens);
        }
        if let Some(message) = step.message {
            let message = serde_json::from_str(message.get());
            messages.push(message.map_err(|error| ApiError::internal(&error))?);
        }
    }
    drop_open_calls(&mut messages, &spec.client_tools(), answered);
    Ok(Earlier {
        messages,
        tokens,
        mcp_tools: head.settings.mcp_tools,
    })
}

fn is_compaction(step: &StepRecord) -> bool {
    matches!(step.data, StepData::Compaction { .. })
}

/// Returns the messages of a conversation as it is now.
pub(super) async fn messages_of_thread(
    store: &Store,
    tenant: TenantId,
    thread: ThreadId,
) -> Result<Earlier, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    let known = tx.thread(thread).await?;
    known.ok_or_else(|| no_such_conversation().param("conversation"))?;
    let (mut messages, mut cursor) = (Vec::new(), None);
    loop {
        let page = tx.thread_messages(thread, MessageOrder::Ascending, cursor, PAGE);
        let page = page.await?;
        for stored in page.data {
            let message = serde_json::from_str(stored.message.get());
            messages.push(message.map_err(|error| ApiError::internal(&error))?);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(Earlier {
                messages,
                tokens: 0,
                mcp_tools: Vec::new(),
            });
        }
    }
}

/// Returns the messages that a response began with, without its `instructions`.
pub(super) fn input(spec: &RunSpec, instructed: bool) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> =
        serde_json::from_str(spec.messages.get()).map_err(|error| ApiError::internal(&error))?;
    if instructed && !messages.is_empty() {
        messages.remove(0);
    }
    Ok(messages)
}

/// Leaves out the calls of server-side tools that have no result, as those of a cancelled run: no
/// upstream takes a call without one. The client's own calls get their results from the client.
fn drop_open_calls(messages: &mut Vec<Message>, client_tools: &[String], kept: &[String]) {
    let answered: HashSet<String> = messages
        .iter()
        .filter_map(|message| message.tool_call_id.clone())
        .chain(kept.iter().cloned())
        .collect();
    for message in messages.iter_mut() {
        let Some(calls) = &mut message.tool_calls else {
            continue;
        };
        calls.retain(|call| {
            answered.contains(&call.id) || client_tools.iter().any(|name| name == call.name())
        });
        if calls.is_empty() {
            message.tool_calls = None;
        }
    }
    messages.retain(|message| {
        message.role != "assistant"
            || message.tool_calls.is_some()
            || message.content.is_some()
            || message.rest.contains_key("refusal")
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(json: &serde_json::Value) -> Vec<Message> {
        serde_json::from_str(&json.to_string()).unwrap()
    }

    fn call(id: &str, name: &str) -> serde_json::Value {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
    }

    #[test]
    fn a_call_without_a_result_is_left_out_unless_it_is_the_clients() {
        let mut all = messages(&json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": null,
             "tool_calls": [call("a", "server"), call("b", "server"), call("c", "own")]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "assistant", "content": null, "tool_calls": [call("d", "server")]},
        ]));
        drop_open_calls(&mut all, &["own".to_owned()], &[]);
        assert_eq!(
            all.len(),
            3,
            "a message of open calls alone has nothing left"
        );
        let calls = all[1].tool_calls.as_ref().unwrap();
        let ids: Vec<_> = calls.iter().map(|call| &*call.id).collect();
        assert_eq!(ids, ["a", "c"]);
    }
}
