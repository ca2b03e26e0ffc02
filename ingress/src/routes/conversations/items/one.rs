//! `GET` and `DELETE /v1/conversations/{id}/items/{item}`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use baton_openai::ErrorBody;
use baton_responses::Item;
use baton_responses::items::{Removal, stored_items, without_item};
use baton_store::Store;
use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::parse;
use crate::access::{Authorized, RunsRead, RunsWrite};
use crate::error::ApiError;
use crate::routes::conversations::description::{ConversationBody, ConversationItem};
use crate::routes::conversations::path::ItemPath;
use crate::routes::conversations::{answer, conversation_busy, no_such_conversation, no_such_item};
use crate::routes::query::QueryParams;
use crate::routes::responses::Include;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    #[serde(default, alias = "include[]")]
    include: Include,
}

/// Returns an item of a conversation.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items/{item}",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$"),
        ("item" = String, Path, description = "The item", max_length = 512),
    ),
    responses(
        (status = 200, description = "The item", body = ConversationItem),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 404, description = "No such conversation or item", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_item(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    path: ItemPath,
    QueryParams(params): QueryParams<Params>,
) -> Result<Json<Item>, ApiError> {
    params.include.refuse()?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.thread(path.thread).await?;
    thread.ok_or_else(no_such_conversation)?;
    let message = tx.thread_message(path.thread, path.message).await?;
    drop(tx);
    let message = message.ok_or_else(no_such_item)?;
    let items = stored_items(message.id, &parse(&message)?);
    let mut items = items.into_iter();
    let item = items.find(|item| item.id() == path.item);
    item.map(Json).ok_or_else(no_such_item)
}

/// Deletes an item of a conversation. A call and its result are two items: delete both, because no
/// model takes one without the other.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}/items/{item}",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$"),
        ("item" = String, Path, description = "The item", max_length = 512),
    ),
    responses(
        (status = 200, description = "The conversation", body = ConversationBody),
        (status = 404, description = "No such conversation or item", body = ErrorBody),
        (status = 409, description = "`thread_busy`: a run of it has not ended", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn delete_item(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    path: ItemPath,
) -> Result<Response, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let busy = tx.lock_thread(path.thread).await?;
    let thread = tx.thread(path.thread).await?;
    let (Some(busy), Some(thread)) = (busy, thread) else {
        return Err(no_such_conversation());
    };
    if busy {
        return Err(conversation_busy());
    }
    let message = tx.thread_message(path.thread, path.message).await?;
    let message = message.ok_or_else(no_such_item)?;
    let changed = match without_item(message.id, parse(&message)?, &path.item) {
        Removal::NotFound => false,
        Removal::Message => tx.delete_thread_message(path.thread, message.id).await?,
        Removal::Part(rest) => {
            let rest = to_raw_value(&rest).map_err(|error| ApiError::internal(&error))?;
            tx.replace_thread_message(path.thread, message.id, &rest)
                .await?
        }
    };
    if !changed {
        return Err(no_such_item());
    }
    tx.commit().await?;
    Ok(answer(&thread))
}
