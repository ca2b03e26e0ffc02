//! `POST /v1/threads`.

use axum::Json;
use axum::extract::State;
use baton_admission::Admission;
use baton_protocol::ThreadId;
use baton_service::SharedClock;
use baton_store::{Store, ThreadChange};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::fields::{Metadata, check_title, check_title_model, encode_metadata, two_titles};
use super::no_such_thread;
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
    /// A model to ask for a title, with the first message of the next run that joins the thread. Not with
    /// `title`.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 512)]
    title_model: Option<String>,
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
    State(admission): State<Admission>,
    authorized: Authorized<RunsWrite>,
    JsonBody(body): JsonBody<CreateThread>,
) -> Result<(StatusCode, Json<ThreadView>), ApiError> {
    check_title(body.title.as_deref())?;
    let title_model = body.title_model.as_deref();
    if let Some(model) = title_model {
        check_title_model(&admission, &authorized.caller, model)?;
        if body.title.is_some() {
            return Err(two_titles());
        }
    }
    let metadata = body.metadata.as_ref().map(encode_metadata).transpose()?;
    let id = ThreadId::new(clock.now());
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let mut thread = tx
        .create_thread(id, body.title.as_deref(), metadata.as_deref())
        .await?;
    if title_model.is_some() {
        let change = ThreadChange {
            title_model: Some(title_model),
            ..ThreadChange::default()
        };
        let changed = tx.change_thread(id, &change).await?;
        thread = changed.ok_or_else(no_such_thread)?;
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(thread.into())))
}
