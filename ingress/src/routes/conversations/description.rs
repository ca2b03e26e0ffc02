//! The bodies of these routes, for the description alone: `baton_responses` reads and writes them.

#![expect(dead_code, reason = "described and never made")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A new conversation.
#[derive(ToSchema)]
pub(crate) struct ConversationRequest {
    /// Its first items: messages, calls, results, reasoning.
    #[schema(value_type = Option<Vec<Object>>, max_items = 20)]
    items: Option<Vec<Value>>,
    /// The client's data, at most 16 texts.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// A change of a conversation.
#[derive(ToSchema)]
pub(crate) struct ConversationChange {
    /// All its data, at most 16 texts; `null` clears them.
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// Items to add.
#[derive(ToSchema)]
pub(crate) struct AddItemsRequest {
    /// Messages, calls, results, reasoning.
    #[schema(value_type = Vec<Object>, min_items = 1, max_items = 20)]
    items: Vec<Value>,
}

/// A conversation.
#[derive(ToSchema)]
pub(crate) struct ConversationBody {
    /// `conv_`, then the thread's id.
    id: String,
    /// `conversation`.
    object: String,
    /// Seconds since 1970.
    created_at: i64,
    /// The client's data.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// An item: a message, a call, a result or reasoning.
#[derive(ToSchema)]
pub(crate) struct ConversationItem {
    /// Its id.
    id: String,
    /// `message`, `function_call`, `function_call_output` or `reasoning`.
    r#type: String,
    /// `completed`.
    status: String,
}
