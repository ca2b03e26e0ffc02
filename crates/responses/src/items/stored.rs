//! The items of a conversation: parts of the chat messages of its thread.

use baton_openai::{Content, Message};
use baton_protocol::MessageId;

use super::to_messages::continue_messages;
use super::{Item, to_items};
use crate::ids::stored_item_id;

/// Returns the items of a message of a thread, with their ids.
pub fn stored_items(id: MessageId, message: &Message) -> Vec<Item> {
    let mut items = to_items(std::slice::from_ref(message));
    for item in &mut items {
        let kind = item.kind();
        let call = match &*item {
            Item::FunctionCall { call_id, .. } => Some(&**call_id),
            Item::Message { .. }
            | Item::FunctionCallOutput { .. }
            | Item::Reasoning { .. }
            | Item::Compaction { .. }
            | Item::McpListTools { .. }
            | Item::McpCall(_)
            | Item::McpApprovalRequest { .. }
            | Item::McpApprovalResponse { .. } => None,
        };
        let own = stored_item_id(id, kind, call);
        item.set_id(own);
    }
    items
}

/// Adds items to a thread with this last message. Returns the last message, if it has changed, and
/// the new messages. So a list of items gives the same messages, however many requests it comes in.
pub fn join_items(last: Option<Message>, items: &[Item]) -> (Option<Message>, Vec<Message>) {
    let Some(last) = last else {
        return (None, continue_messages(Vec::new(), items));
    };
    let mut messages = continue_messages(vec![last.clone()], items);
    let first = messages.remove(0);
    ((first != last).then_some(first), messages)
}

/// The rest of a message after one of its items is deleted.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    /// The message has no such item.
    NotFound,
    /// Nothing of the message is left.
    Message,
    /// The message without the item.
    Part(Box<Message>),
}

/// Deletes an item of a message of a thread.
pub fn without_item(id: MessageId, mut message: Message, item: &str) -> Removal {
    let mut items = stored_items(id, &message).into_iter();
    match items.find(|known| known.id() == item) {
        None => return Removal::NotFound,
        Some(Item::Reasoning { .. }) => {
            message.rest.remove("reasoning_content");
        }
        Some(Item::FunctionCall { call_id, .. }) => {
            let calls = message.tool_calls.get_or_insert_default();
            calls.retain(|call| call.id != call_id);
            if calls.is_empty() {
                message.tool_calls = None;
            }
        }
        Some(Item::Message { role, .. }) if role == "assistant" => {
            message.content = None;
            message.rest.remove("refusal");
            message.rest.remove("phase");
        }
        Some(
            Item::Message { .. }
            | Item::FunctionCallOutput { .. }
            | Item::Compaction { .. }
            | Item::McpListTools { .. }
            | Item::McpCall(_)
            | Item::McpApprovalRequest { .. }
            | Item::McpApprovalResponse { .. },
        ) => return Removal::Message,
    }
    let has = |name: &str| message.rest.contains_key(name);
    let speaks = !message.plain_text().is_empty() || has("refusal");
    match (
        message.tool_calls.is_some() || speaks,
        has("reasoning_content"),
    ) {
        (false, false) => Removal::Message,
        // Upstreams refuse a message that has reasoning and no content.
        (false, true) => {
            message.content = Some(Content::Text(String::new()));
            Removal::Part(Box::new(message))
        }
        (true, _) => Removal::Part(Box::new(message)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::items::{ItemStatus, Output, Part, to_messages};

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn id() -> MessageId {
        ID.parse().unwrap()
    }

    fn turn() -> Message {
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let turn = json!({"role": "assistant", "content": "Wait.", "reasoning_content": "Hm.",
                          "tool_calls": [call("a"), call("b")]});
        serde_json::from_value(turn).unwrap()
    }

    #[test]
    fn the_items_of_a_message_are_deleted_one_by_one_and_the_others_keep_their_ids() {
        let mut message = turn();
        let mut ids: Vec<_> = stored_items(id(), &message)
            .iter()
            .map(|item| item.id().to_owned())
            .collect();
        assert_eq!(ids[..2], [format!("rs_{ID}"), format!("msg_{ID}")]);
        for place in [2, 0, 0] {
            let gone = ids.remove(place);
            let Removal::Part(rest) = without_item(id(), message, &gone) else {
                panic!("{gone}")
            };
            message = *rest;
            let left: Vec<_> = stored_items(id(), &message)
                .iter()
                .map(|item| item.id().to_owned())
                .collect();
            assert_eq!(left, ids);
            let again = without_item(id(), message.clone(), &gone);
            assert_eq!(again, Removal::NotFound);
        }
        let last = without_item(id(), message, &ids[0]);
        assert_eq!(last, Removal::Message, "nothing is left");
    }

    #[test]
    fn reasoning_that_is_left_alone_stays_a_message_that_upstreams_take() {
        let turn = json!({"role": "assistant", "content": "x", "reasoning_content": "Hm."});
        let turn: Message = serde_json::from_value(turn).unwrap();
        let Removal::Part(rest) = without_item(id(), turn, &format!("msg_{ID}")) else {
            panic!()
        };
        assert_eq!(rest.content, Some(Content::Text(String::new())));
        let nothing = without_item(id(), *rest, &format!("rs_{ID}"));
        assert_eq!(nothing, Removal::Message);
    }

    fn item() -> impl Strategy<Value = Item> {
        let status = ItemStatus::Completed;
        let message = |role: &'static str, content: Part| Item::Message {
            id: String::new(),
            status,
            role: role.to_owned(),
            content: vec![content],
            phase: None,
        };
        prop_oneof![
            Just(message("user", Part::InputText { text: "u".into() })),
            Just(message("assistant", Part::output_text("a"))),
            Just(Item::Reasoning {
                id: String::new(),
                status,
                summary: Vec::new(),
                content: vec![Part::ReasoningText { text: "r".into() }],
            }),
            "[abc]".prop_map(move |call_id| Item::FunctionCall {
                id: String::new(),
                status,
                call_id,
                name: "f".into(),
                arguments: "{}".into(),
            }),
            "[abc]".prop_map(move |call_id| Item::FunctionCallOutput {
                id: String::new(),
                status,
                call_id,
                output: Output::Text("o".into()),
            }),
        ]
    }

    proptest! {
        #[test]
        fn items_give_the_same_messages_in_any_number_of_requests(
            requests in prop::collection::vec(prop::collection::vec(item(), 1..4), 1..5)
        ) {
            let mut thread: Vec<Message> = Vec::new();
            for items in &requests {
                let (changed, new) = join_items(thread.last().cloned(), items);
                if let Some(changed) = changed {
                    *thread.last_mut().unwrap() = changed;
                }
                thread.extend(new);
            }
            prop_assert_eq!(thread, to_messages(&requests.concat()));
        }
    }
}
