//! `/v1/conversations/{id}/items`: the parts of a thread's messages.

pub(super) mod add;
pub(super) mod list;
pub(super) mod one;

use baton_openai::Message;
use baton_store::ThreadMessage;

use crate::error::ApiError;

fn parse(stored: &ThreadMessage) -> Result<Message, ApiError> {
    serde_json::from_str(stored.message.get()).map_err(|error| ApiError::internal(&error))
}
