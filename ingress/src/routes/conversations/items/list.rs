//! `GET /v1/conversations/{id}/items`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_openai::ErrorBody;
use baton_responses::items::stored_items;
use baton_responses::{Order, message_of_item, page};
use baton_store::{MessageOrder, Store};

use super::parse;
use crate::access::{Authorized, RunsRead};
use crate::error::ApiError;
use crate::routes::conversations::no_such_conversation;
use crate::routes::conversations::path::ConversationPath;
use crate::routes::query::{QueryParams, bad_parameter};
use crate::routes::responses::{AskedPage, ItemPage, ItemQuery};

/// The items of a conversation: those that clients added, and those of its ended runs.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$"),
        ("order" = Option<String>, Query, description = "`desc`, the newest first, or `asc`", pattern = "^(asc|desc)$"),
        ("after" = Option<String>, Query, description = "The id of the last item of the page before", max_length = 512),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 100; 20 unless it is given"),
    ),
    responses(
        (status = 200, description = "A page of items", body = ItemPage),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 404, description = "No such conversation", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_items(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    ConversationPath(thread): ConversationPath,
    QueryParams(query): QueryParams<ItemQuery>,
) -> Result<Response, ApiError> {
    let AskedPage {
        order,
        after,
        limit,
    } = query.page()?;
    let unknown = || bad_parameter("after", "`after` is the id of an item of this conversation");
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    tx.thread(thread).await?.ok_or_else(no_such_conversation)?;
    // The messages begin with the one of `after`, which may have further items.
    let cursor = match after.as_deref() {
        None => None,
        Some(after) => {
            let message = message_of_item(after).ok_or_else(unknown)?;
            let message = tx.thread_message(thread, message).await?;
            let position = message.ok_or_else(unknown)?.position;
            Some(match order {
                Order::Asc => position.saturating_sub(1),
                Order::Desc => position.saturating_add(1),
            })
        }
    };
    let in_order = match order {
        Order::Asc => MessageOrder::Ascending,
        Order::Desc => MessageOrder::Descending,
    };
    // Each message has an item at least: these are all items of the page, and one more.
    let messages = tx.thread_messages(thread, in_order, cursor, limit + 2);
    let mut messages = messages.await?.data;
    drop(tx);
    if order == Order::Desc {
        messages.reverse();
    }
    let mut items = Vec::new();
    for message in &messages {
        items.extend(stored_items(message.id, &parse(message)?));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = page(items, order, after.as_deref(), limit).ok_or_else(unknown)?;
    Ok(Json(page).into_response())
}
