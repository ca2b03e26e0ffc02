//! The ids of responses and conversations, and of their items. They come from the ids of runs,
//! threads and messages, so that every server and every replay gives the same ones.

use baton_protocol::{MessageId, RunId, ThreadId};
use sha2::{Digest as _, Sha256};

/// Returns the id of a run's response.
pub fn response_id(run: RunId) -> String {
    format!("resp_{run}")
}

/// A string that is not the id of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a response: it begins with `resp_`, followed by a run's id")]
pub struct InvalidResponseId(String);

/// Returns the run of a response's id.
pub fn run_of_response(id: &str) -> Result<RunId, InvalidResponseId> {
    id.strip_prefix("resp_")
        .and_then(|run| run.parse().ok())
        .ok_or_else(|| InvalidResponseId(id.chars().take(64).collect()))
}

/// Returns the id of a thread's conversation.
pub fn conversation_id(thread: ThreadId) -> String {
    format!("conv_{thread}")
}

/// A string that is not the id of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a conversation: it begins with `conv_`, followed by a thread's id")]
pub struct InvalidConversationId(String);

/// Returns the thread of a conversation's id.
pub fn thread_of_conversation(id: &str) -> Result<ThreadId, InvalidConversationId> {
    id.strip_prefix("conv_")
        .and_then(|thread| thread.parse().ok())
        .ok_or_else(|| InvalidConversationId(id.chars().take(64).collect()))
}

/// A kind of item, with its place among those of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// The tools of an MCP server: its index among those of the request.
    McpList(u32),
    /// The model's reasoning.
    Reasoning,
    /// A message.
    Message,
    /// A call of the client's tool: its index among those of its turn.
    ClientCall(u32),
    /// A call of a server-side tool.
    ServerCall,
    /// A call of an MCP server's tool that waits for a person.
    McpApproval,
    /// A person's answer about such a call.
    McpAnswer,
    /// A call of an MCP server's tool.
    McpCall,
    /// The result of a call.
    CallOutput,
    /// A summary in place of everything before it.
    Compaction,
}

impl ItemKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::McpList(_) => "mcpl",
            Self::Reasoning => "rs",
            Self::Message => "msg",
            Self::ClientCall(_) | Self::ServerCall => "fc",
            Self::McpApproval => "mcpr",
            Self::McpAnswer => "mcpa",
            Self::McpCall => "mcp",
            Self::CallOutput => "fco",
            Self::Compaction => "cmp",
        }
    }
}

/// Returns the id of an output item: the kind, the run and the step.
pub fn item_id(run: RunId, step: u32, kind: ItemKind) -> String {
    let id = format!("{}_{run}_{step}", kind.prefix());
    match kind {
        ItemKind::McpList(index) | ItemKind::ClientCall(index) => format!("{id}_{index}"),
        ItemKind::Reasoning
        | ItemKind::Message
        | ItemKind::ServerCall
        | ItemKind::McpApproval
        | ItemKind::McpAnswer
        | ItemKind::McpCall
        | ItemKind::CallOutput
        | ItemKind::Compaction => id,
    }
}

/// Returns the id of the item that asks a person about a call.
pub(crate) fn approval_id(run: RunId, step: u32) -> String {
    item_id(run, step, ItemKind::McpApproval)
}

/// Returns the run and the step of the call that such an item asks about.
pub(crate) fn call_of_approval(id: &str) -> Option<(RunId, u32)> {
    let (run, step) = id.strip_prefix("mcpr_")?.split_once('_')?;
    Some((run.parse().ok()?, step.parse().ok()?))
}

/// Returns the id of an input item: the kind, the run and the place in the input.
pub(crate) fn input_item_id(run: RunId, index: usize, kind: ItemKind) -> String {
    format!("{}_{run}_in{index}", kind.prefix())
}

/// Returns the id of an item of a conversation: the kind, and the message of the thread that the item
/// is part of. Calls share their message, so theirs ends with a hash of the call's id.
pub(crate) fn stored_item_id(message: MessageId, kind: ItemKind, call_id: Option<&str>) -> String {
    let id = format!("{}_{message}", kind.prefix());
    match call_id {
        None => id,
        Some(call) => {
            let hash = Sha256::digest(call.as_bytes());
            let hash = hash.first_chunk().map_or(0, |it| u64::from_be_bytes(*it));
            format!("{id}_{hash:016x}")
        }
    }
}

/// Returns the message of the thread that an item of a conversation is part of.
pub fn message_of_item(id: &str) -> Option<MessageId> {
    let (_, rest) = id.split_once('_')?;
    let message = rest.split_once('_').map_or(rest, |(message, _)| message);
    message.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_its_run() {
        let run: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let id = response_id(run);
        assert_eq!(id, "resp_01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(run_of_response(&id), Ok(run));
        for other in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "resp_",
            "resp_01890A5D-AC96-774B-BCCE-B302099A8057",
            "chatcmpl-01890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert!(run_of_response(other).is_err(), "{other}");
        }
    }
}
