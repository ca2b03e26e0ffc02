//! The conversation, and the item of it, that a path names.

use axum::extract::{FromRequestParts, Path};
use baton_protocol::{MessageId, ThreadId};
use baton_responses::{message_of_item, thread_of_conversation};
use http::request::Parts;

use super::{no_such_conversation, no_such_item, not_found};
use crate::error::ApiError;

/// The thread of the conversation that the path names. An id of another form names none.
pub(super) struct ConversationPath(pub(super) ThreadId);

impl<S: Send + Sync> FromRequestParts<S> for ConversationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_conversation())?;
        thread(&id).map(Self)
    }
}

/// The item that the path names, and the message that it is part of.
pub(super) struct ItemPath {
    pub(super) thread: ThreadId,
    pub(super) message: MessageId,
    pub(super) item: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ItemPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((id, item)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_conversation())?;
        Ok(Self {
            thread: thread(&id)?,
            message: message_of_item(&item).ok_or_else(no_such_item)?,
            item,
        })
    }
}

fn thread(id: &str) -> Result<ThreadId, ApiError> {
    thread_of_conversation(id).map_err(|error| not_found(error.to_string()))
}
