//! A thread and its messages as clients see them.

use baton_protocol::{MessageId, RunId, ThreadId};
use baton_store::{ThreadMessage, ThreadRecord};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A stored conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct ThreadView {
    id: ThreadId,
    /// `thread`.
    object: &'static str,
    title: Option<String>,
    /// Texts by name.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// The model to ask for a title when a run joins the thread; null once it is asked.
    title_model: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<ThreadRecord> for ThreadView {
    fn from(thread: ThreadRecord) -> Self {
        Self {
            id: thread.id,
            object: "thread",
            title: thread.title,
            metadata: thread.metadata,
            title_model: thread.title_model,
            created_at: thread.created_at,
        }
    }
}

/// Threads, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ThreadList {
    pub(super) data: Vec<ThreadView>,
    pub(super) next_cursor: Option<String>,
}

/// A message of a thread.
#[derive(Serialize, ToSchema)]
pub(crate) struct ThreadMessageView {
    id: MessageId,
    /// `thread.message`.
    object: &'static str,
    thread_id: ThreadId,
    /// The run that it was sent to, or that wrote it; null if a client appended it.
    run_id: Option<RunId>,
    /// An OpenAI chat message.
    #[schema(value_type = Object)]
    message: Box<RawValue>,
    created_at: DateTime<Utc>,
}

impl ThreadMessageView {
    pub(super) fn new(thread: ThreadId, message: ThreadMessage) -> Self {
        Self {
            id: message.id,
            object: "thread.message",
            thread_id: thread,
            run_id: message.run_id,
            message: message.message,
            created_at: message.created_at,
        }
    }
}

/// Messages of a thread.
#[derive(Serialize, ToSchema)]
pub(crate) struct ThreadMessageList {
    pub(super) data: Vec<ThreadMessageView>,
    pub(super) next_cursor: Option<String>,
}
