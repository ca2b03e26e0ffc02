//! `GET /v1/threads` and `GET /v1/threads/{id}`.

use axum::Json;
use axum::extract::State;
use baton_store::{Store, ThreadFilter};

use super::fields::{Metadata, check_title, encode_metadata};
use super::view::{ThreadList, ThreadView};
use super::{ThreadPath, no_such_thread};
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, bad_parameter, list_params};

list_params! {
    /// The filter and the page of the list.
    pub(crate) struct ThreadListParams {
        /// Only threads with this text in their title, in upper or lower case.
        #[param(max_length = 512)]
        title: Option<String>,
        /// Only threads that have these fields in their metadata: a JSON object such as `{"user":"ada"}`.
        #[param(max_length = 16_384)]
        metadata: Option<String>,
    }
    cursor: format = Uuid
}

/// Lists the tenant's threads, the newest first.
#[utoipa::path(
    get,
    path = "/v1/threads",
    tag = "Threads",
    params(ThreadListParams),
    responses(
        (status = 200, description = "A page of threads", body = ThreadList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_threads(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    QueryParams(params): QueryParams<ThreadListParams>,
) -> Result<Json<ThreadList>, ApiError> {
    let (cursor, limit) = params.page()?;
    check_title(params.title.as_deref())?;
    let metadata = params
        .metadata
        .map(|text| {
            let fields: Metadata = serde_json::from_str(&text).map_err(|_| {
                let message = "`metadata` is a JSON object of texts, such as {\"user\":\"ada\"}";
                bad_parameter("metadata", message)
            })?;
            encode_metadata(&fields)?;
            Ok::<_, ApiError>(fields)
        })
        .transpose()?;
    let filter = ThreadFilter {
        title: params.title.as_deref(),
        metadata: metadata.as_ref(),
    };
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let page = tx.list_threads(&filter, cursor, limit).await?;
    Ok(Json(ThreadList {
        data: page.data.into_iter().map(ThreadView::from).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// Returns a thread without its messages.
#[utoipa::path(
    get,
    path = "/v1/threads/{id}",
    tag = "Threads",
    params(("id" = String, Path, description = "The thread", format = Uuid)),
    responses(
        (status = 200, description = "The thread", body = ThreadView),
        (status = 404, description = "No such thread", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_thread(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    ThreadPath(id): ThreadPath,
) -> Result<Json<ThreadView>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.thread(id).await?.ok_or_else(no_such_thread)?;
    Ok(Json(thread.into()))
}
