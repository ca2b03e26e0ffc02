//! `POST /v1/conversations`.

use axum::extract::State;
use axum::response::Response;
use baton_admission::check_shape;
use baton_openai::ErrorBody;
use baton_protocol::{RawFields, ThreadId};
use baton_responses::CreateConversation;
use baton_responses::items::join_items;
use baton_service::SharedClock;
use baton_store::Store;

use super::answer;
use super::description::{ConversationBody, ConversationRequest};
use super::items::add::append;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::ApiError;

/// Creates a conversation: a thread in OpenAI's words.
#[utoipa::path(
    post,
    path = "/v1/conversations",
    tag = "OpenAI",
    request_body = ConversationRequest,
    responses(
        (status = 200, description = "The conversation", body = ConversationBody),
        (status = 400, description = "A field is wrong, or an item is of a type that is not stored", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_conversation(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsWrite>,
    body: WholeBody,
) -> Result<Response, ApiError> {
    check_shape(&body.bytes)?;
    let request = CreateConversation::parse(&body.bytes)?;
    let now = clock.now();
    let id = ThreadId::new(now);
    let metadata = request.metadata.map(RawFields::into_raw);
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.create_thread(id, None, metadata.as_deref()).await?;
    let (_, messages) = join_items(None, &request.items);
    append(&mut tx, id, &messages, now).await?;
    tx.commit().await?;
    Ok(answer(&thread))
}
