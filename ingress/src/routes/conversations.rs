//! `/v1/conversations`: threads in OpenAI's words. A conversation is a thread; its items are parts of
//! the thread's messages.

mod change;
mod create;
mod description;
mod items;
mod path;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use baton_responses::ConversationObject;
use baton_store::ThreadRecord;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::routes::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_conversation))
        .routes(routes!(
            change::read_conversation,
            change::change_conversation,
            change::delete_conversation
        ))
        .routes(routes!(items::list::list_items, items::add::add_items))
        .routes(routes!(items::one::read_item, items::one::delete_item))
}

fn answer(thread: &ThreadRecord) -> Response {
    let created_at = thread.created_at.timestamp();
    let metadata = thread.metadata.as_deref();
    Json(ConversationObject::new(thread.id, created_at, metadata)).into_response()
}

pub(super) fn no_such_conversation() -> ApiError {
    not_found("there is no conversation with this id")
}

fn not_found(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "conversation_not_found", message)
}

fn no_such_item() -> ApiError {
    let message = "the conversation has no item with this id";
    ApiError::new(StatusCode::NOT_FOUND, "item_not_found", message)
}

/// Refuses a request because a run of the conversation has not ended.
pub(super) fn conversation_busy() -> ApiError {
    let message = "a run of this conversation has not ended: wait for its end, or cancel it first";
    ApiError::new(StatusCode::CONFLICT, "thread_busy", message).do_not_retry()
}
