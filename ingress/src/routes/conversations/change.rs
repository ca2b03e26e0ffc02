//! `GET`, `POST` and `DELETE /v1/conversations/{id}`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use baton_admission::check_shape;
use baton_openai::ErrorBody;
use baton_protocol::RawFields;
use baton_responses::{ChangeConversation, conversation_id};
use baton_store::{Store, ThreadChange, ThreadDeletion};
use serde::Serialize;
use utoipa::ToSchema;

use super::description::{ConversationBody, ConversationChange};
use super::path::ConversationPath;
use super::{answer, conversation_busy, no_such_conversation};
use crate::access::body::WholeBody;
use crate::access::{Authorized, Origin, RunsRead, RunsWrite};
use crate::error::ApiError;
use crate::routes::threads::delete;

/// Returns a conversation without its items.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$")),
    responses(
        (status = 200, description = "The conversation", body = ConversationBody),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_conversation(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    ConversationPath(id): ConversationPath,
) -> Result<Response, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.thread(id).await?.ok_or_else(no_such_conversation)?;
    Ok(answer(&thread))
}

/// Replaces a conversation's metadata.
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$")),
    request_body = ConversationChange,
    responses(
        (status = 200, description = "The conversation as it is now", body = ConversationBody),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn change_conversation(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    ConversationPath(id): ConversationPath,
    body: WholeBody,
) -> Result<Response, ApiError> {
    check_shape(&body.bytes)?;
    let request = ChangeConversation::parse(&body.bytes)?;
    let metadata = request.metadata.map(RawFields::into_raw);
    let change = ThreadChange {
        metadata: Some(metadata.as_deref()),
        ..ThreadChange::default()
    };
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.change_thread(id, &change).await?;
    let thread = thread.ok_or_else(no_such_conversation)?;
    tx.commit().await?;
    Ok(answer(&thread))
}

/// A conversation that is deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedConversation {
    id: String,
    /// `conversation.deleted`.
    object: &'static str,
    /// `true`.
    deleted: bool,
}

/// Deletes a conversation with its items and its responses. From the answer on no request finds it.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$")),
    responses(
        (status = 200, description = "It is deleted", body = DeletedConversation),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "`thread_busy`: a run of it has not ended", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn delete_conversation(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    ConversationPath(id): ConversationPath,
) -> Result<Json<DeletedConversation>, ApiError> {
    match delete(&store, &authorized.caller, &origin, id).await? {
        ThreadDeletion::Deleted => {}
        ThreadDeletion::Busy => return Err(conversation_busy()),
        ThreadDeletion::NotFound => return Err(no_such_conversation()),
    }
    Ok(Json(DeletedConversation {
        id: conversation_id(id),
        object: "conversation.deleted",
        deleted: true,
    }))
}
