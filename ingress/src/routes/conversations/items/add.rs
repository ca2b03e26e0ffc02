//! `POST /v1/conversations/{id}/items`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_admission::check_shape;
use baton_openai::{ErrorBody, Message};
use baton_protocol::{MessageId, ThreadId};
use baton_responses::items::{join_items, stored_items};
use baton_responses::{AddItems, whole_list};
use baton_service::SharedClock;
use baton_store::{Append, MessageOrder, Store, TenantTx};
use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};

use super::parse;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::ApiError;
use crate::routes::conversations::description::AddItemsRequest;
use crate::routes::conversations::path::ConversationPath;
use crate::routes::conversations::{conversation_busy, no_such_conversation};
use crate::routes::responses::ItemPage;

/// Adds items to a conversation. Its next response begins with them.
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}/items",
    tag = "OpenAI",
    params(("id" = String, Path, description = "The conversation", pattern = "^conv_[0-9a-f-]{36}$")),
    request_body = AddItemsRequest,
    responses(
        (status = 200, description = "The added items, in order", body = ItemPage),
        (status = 400, description = "A field is wrong, or an item is of a type that is not stored", body = ErrorBody),
        (status = 404, description = "No such conversation", body = ErrorBody),
        (status = 409, description = "`thread_busy`: a run of it has not ended", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn add_items(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsWrite>,
    ConversationPath(thread): ConversationPath,
    body: WholeBody,
) -> Result<Response, ApiError> {
    check_shape(&body.bytes)?;
    let AddItems { items } = AddItems::parse(&body.bytes)?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    match tx.lock_thread(thread).await? {
        None => return Err(no_such_conversation()),
        Some(true) => return Err(conversation_busy()),
        Some(false) => {}
    }
    let page = tx.thread_messages(thread, MessageOrder::Descending, None, 1);
    let last = page.await?.data.pop();
    let message = last.as_ref().map(parse).transpose()?;
    let (changed, new) = join_items(message, &items);
    let mut added = Vec::new();
    if let Some((last, changed)) = last.zip(changed) {
        let message = raw(&changed)?;
        tx.replace_thread_message(thread, last.id, &message).await?;
        added.extend(stored_items(last.id, &changed));
    }
    for (id, message) in append(&mut tx, thread, &new, clock.now()).await? {
        added.extend(stored_items(id, &message));
    }
    tx.commit().await?;
    // Items before these may be parts of the same message.
    let added = added.split_off(added.len().saturating_sub(items.len()));
    Ok(Json(whole_list(added)).into_response())
}

/// Appends messages to a thread; returns them with their ids.
pub(in crate::routes::conversations) async fn append(
    tx: &mut TenantTx,
    thread: ThreadId,
    messages: &[Message],
    now: DateTime<Utc>,
) -> Result<Vec<(MessageId, Message)>, ApiError> {
    let texts: Vec<_> = messages.iter().map(raw).collect::<Result<_, _>>()?;
    let rows: Vec<(MessageId, &RawValue)> = texts
        .iter()
        .map(|text| (MessageId::new(now), &**text))
        .collect();
    match tx.append_messages(thread, &rows).await? {
        Append::Appended(_) => {}
        Append::Busy => return Err(conversation_busy()),
        Append::NotFound => return Err(no_such_conversation()),
    }
    let ids = rows.iter().map(|(id, _)| *id);
    Ok(ids.zip(messages.iter().cloned()).collect())
}

fn raw(message: &Message) -> Result<Box<RawValue>, ApiError> {
    to_raw_value(message).map_err(|error| ApiError::internal(&error))
}
