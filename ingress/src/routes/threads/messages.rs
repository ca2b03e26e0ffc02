//! `POST` and `GET /v1/threads/{id}/messages`.

use axum::Json;
use axum::extract::State;
use baton_admission::request::read_messages;
use baton_admission::{check_shape, read_json};
use baton_protocol::MessageId;
use baton_service::SharedClock;
use baton_store::{Append, MessageOrder, Store};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::view::{ThreadMessageList, ThreadMessageView};
use super::{ThreadPath, no_such_thread, thread_busy};
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsRead, RunsWrite};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, list_params};

/// The most messages of one request.
const MOST_MESSAGES: usize = 1_000;

/// Messages to append.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"messages": [{"role": "user", "content": "I like trains."}]}))]
pub(crate) struct AppendMessages {
    /// OpenAI chat messages, at most 1,000.
    #[schema(value_type = Vec<Object>, min_items = 1, max_items = 1_000)]
    messages: Box<RawValue>,
}

/// Appends messages to a thread without running an agent. The thread's next run begins with them.
#[utoipa::path(
    post,
    path = "/v1/threads/{id}/messages",
    tag = "Threads",
    params(("id" = String, Path, description = "The thread", format = Uuid)),
    request_body = AppendMessages,
    responses(
        (status = 201, description = "The appended messages, in order", body = ThreadMessageList),
        (status = 404, description = "No such thread", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A run of it has not ended", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn append_thread_messages(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsWrite>,
    ThreadPath(thread): ThreadPath,
    body: WholeBody,
) -> Result<(StatusCode, Json<ThreadMessageList>), ApiError> {
    check_shape(&body.bytes)?;
    let AppendMessages { messages } = read_json(&body.bytes)?;
    let messages = read_messages(messages)?;
    let messages: Vec<&RawValue> =
        serde_json::from_str(messages.get()).map_err(|error| ApiError::internal(&error))?;
    if messages.len() > MOST_MESSAGES {
        let message = format!("`messages` has at most {MOST_MESSAGES} messages");
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_messages", message);
        return Err(error.param("messages"));
    }
    let now = clock.now();
    let messages: Vec<_> = messages
        .into_iter()
        .map(|message| (MessageId::new(now), message))
        .collect();
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let appended = match tx.append_messages(thread, &messages).await? {
        Append::Appended(appended) => appended,
        Append::Busy => return Err(thread_busy()),
        Append::NotFound => return Err(no_such_thread()),
    };
    tx.commit().await?;
    let data = appended
        .into_iter()
        .map(|message| ThreadMessageView::new(thread, message))
        .collect();
    let list = ThreadMessageList {
        data,
        next_cursor: None,
    };
    Ok((StatusCode::CREATED, Json(list)))
}

/// The order of the list.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListOrder {
    /// The first message first.
    #[default]
    Asc,
    /// The last message first.
    Desc,
}

list_params! {
    /// The page of the list.
    pub(crate) struct MessageListParams {
        /// `asc` begins with the first message, `desc` with the last. Default: `asc`.
        #[param(inline)]
        order: Option<ListOrder>,
    }
    cursor: pattern = "^[0-9]{1,19}$"
}

/// Lists the messages of a thread: those that clients appended, and those of its ended runs.
#[utoipa::path(
    get,
    path = "/v1/threads/{id}/messages",
    tag = "Threads",
    params(("id" = String, Path, description = "The thread", format = Uuid), MessageListParams),
    responses(
        (status = 200, description = "A page of messages", body = ThreadMessageList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such thread", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_thread_messages(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    ThreadPath(thread): ThreadPath,
    QueryParams(params): QueryParams<MessageListParams>,
) -> Result<Json<ThreadMessageList>, ApiError> {
    let (cursor, limit) = params.page()?;
    let order = match params.order.unwrap_or_default() {
        ListOrder::Asc => MessageOrder::Ascending,
        ListOrder::Desc => MessageOrder::Descending,
    };
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    tx.thread(thread).await?.ok_or_else(no_such_thread)?;
    let page = tx.thread_messages(thread, order, cursor, limit).await?;
    let data = page
        .data
        .into_iter()
        .map(|message| ThreadMessageView::new(thread, message))
        .collect();
    Ok(Json(ThreadMessageList {
        data,
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}
