//! `POST /v1/threads`.

use axum::Json;
use axum::extract::State;
use baton_protocol::ThreadId;
use baton_service::SharedClock;
use baton_store::Store;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::fields::{Metadata, check_title, encode_metadata};
use super::view::ThreadView;
use crate::access::body::JsonBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::ApiError;

/// A new thread.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Trip to Rome", "metadata": {"user": "ada"}}))]
pub(crate) struct CreateThread {
    /// Its title, for people.
    #[serde(default)]
    #[schema(max_length = 512)]
    title: Option<String>,
    /// Texts by name: at most 16, of 512 characters, with names of at most 64.
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// Creates a thread without messages.
#[utoipa::path(
    post,
    path = "/v1/threads",
    tag = "Threads",
    request_body = CreateThread,
    responses((status = 201, description = "The thread", body = ThreadView)),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_thread(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsWrite>,
    JsonBody(body): JsonBody<CreateThread>,
) -> Result<(StatusCode, Json<ThreadView>), ApiError> {
    check_title(body.title.as_deref())?;
    let metadata = body.metadata.as_ref().map(encode_metadata).transpose()?;
    let id = ThreadId::new(clock.now());
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx
        .create_thread(id, body.title.as_deref(), metadata.as_deref())
        .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(thread.into())))
}
