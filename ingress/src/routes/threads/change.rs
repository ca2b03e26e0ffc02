//! `PATCH` and `DELETE /v1/threads/{id}`.

use axum::Json;
use axum::extract::State;
use baton_admission::Admission;
use baton_protocol::ThreadId;
use baton_store::{AuditEntry, Store, ThreadChange, ThreadDeletion};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::fields::{Metadata, check_title, check_title_model, encode_metadata, some, two_titles};
use super::view::ThreadView;
use super::{ThreadPath, no_such_thread, thread_busy};
use crate::access::body::JsonBody;
use crate::access::{Authorized, Caller, Origin, RunsWrite};
use crate::error::{ApiError, Problem};

/// A change of a thread. A field that is absent stays; `null` clears it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Trip to Rome in May"}))]
#[expect(
    clippy::option_option,
    reason = "a field may be absent, cleared or set"
)]
pub(crate) struct ChangeThread {
    /// Its title, for people.
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>, max_length = 512)]
    title: Option<Option<String>>,
    /// All its metadata: texts by name, at most 16, of 512 characters, with names of at most 64.
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<Option<Metadata>>,
    /// A model to ask for a title, with the first message of the next run that joins the thread. Only for a
    /// thread without a title.
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512)]
    title_model: Option<Option<String>>,
}

/// Changes a thread's title and metadata. A title ends the wish for one by a model.
#[utoipa::path(
    patch,
    path = "/v1/threads/{id}",
    tag = "Threads",
    params(("id" = String, Path, description = "The thread", format = Uuid)),
    request_body = ChangeThread,
    responses(
        (status = 200, description = "The thread as it is now", body = ThreadView),
        (status = 404, description = "No such thread", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`title_model` for a thread that has a title", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn change_thread(
    State(store): State<Store>,
    State(admission): State<Admission>,
    authorized: Authorized<RunsWrite>,
    ThreadPath(id): ThreadPath,
    JsonBody(body): JsonBody<ChangeThread>,
) -> Result<Json<ThreadView>, ApiError> {
    check_title(body.title.as_ref().and_then(Option::as_deref))?;
    let title_model = body.title_model.as_ref().map(Option::as_deref);
    if let Some(Some(model)) = title_model {
        check_title_model(&admission, &authorized.caller, model)?;
        if matches!(body.title, Some(Some(_))) {
            return Err(two_titles());
        }
    }
    let metadata = match &body.metadata {
        Some(Some(metadata)) => Some(Some(encode_metadata(metadata)?)),
        Some(None) => Some(None),
        None => None,
    };
    let change = ThreadChange {
        title: body.title.as_ref().map(Option::as_deref),
        metadata: metadata.as_ref().map(Option::as_deref),
        title_model,
    };
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let thread = tx.change_thread(id, &change).await?;
    let thread = thread.ok_or_else(no_such_thread)?;
    if thread.title.is_some() && thread.title_model.is_some() {
        let message =
            "the thread has a title, which no model replaces: clear it with `\"title\": null`";
        let error = ApiError::new(StatusCode::CONFLICT, "thread_has_title", message);
        return Err(error.param("title_model").do_not_retry());
    }
    tx.commit().await?;
    Ok(Json(thread.into()))
}

/// Deletes a thread with its messages and runs. From the answer on no request finds the thread; its
/// rows are removed soon afterwards. Usage entries stay.
#[utoipa::path(
    delete,
    path = "/v1/threads/{id}",
    tag = "Threads",
    params(("id" = String, Path, description = "The thread", format = Uuid)),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 404, description = "No such thread", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A run of it has not ended", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn delete_thread(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    ThreadPath(id): ThreadPath,
) -> Result<StatusCode, ApiError> {
    match delete(&store, &authorized.caller, &origin, id).await? {
        ThreadDeletion::Deleted => Ok(StatusCode::NO_CONTENT),
        ThreadDeletion::Busy => Err(thread_busy()),
        ThreadDeletion::NotFound => Err(no_such_thread()),
    }
}

/// Deletes a thread, with its entry in the audit log.
pub(in crate::routes) async fn delete(
    store: &Store,
    caller: &Caller,
    origin: &Origin,
    id: ThreadId,
) -> Result<ThreadDeletion, ApiError> {
    let mut tx = store.tenant(caller.tenant).await?;
    let deletion = tx.delete_thread(id).await?;
    if deletion == ThreadDeletion::Deleted {
        let entry = AuditEntry {
            target: Some(format!("thread:{id}")),
            ..origin.entry(caller.actor(), Some(caller.tenant), "thread.deleted")
        };
        tx.record_audit(&entry).await?;
        tx.commit().await?;
    }
    Ok(deletion)
}
