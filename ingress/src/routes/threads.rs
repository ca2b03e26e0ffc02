//! `/v1/threads`: stored conversations, and their messages.

mod change;
mod create;
mod fields;
mod messages;
mod read;
mod view;

pub(super) use change::delete;

use axum::extract::{FromRequestParts, Path};
use baton_protocol::ThreadId;
use http::StatusCode;
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::routes::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_thread, read::list_threads))
        .routes(routes!(
            read::read_thread,
            change::change_thread,
            change::delete_thread
        ))
        .routes(routes!(
            messages::append_thread_messages,
            messages::list_thread_messages
        ))
}

/// The thread that a path names. A malformed id names no thread.
struct ThreadPath(ThreadId);

impl<S: Send + Sync> FromRequestParts<S> for ThreadPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_thread())?;
        id.parse().map(Self).map_err(|_| no_such_thread())
    }
}

fn no_such_thread() -> ApiError {
    let message = "there is no thread with this id";
    ApiError::new(StatusCode::NOT_FOUND, "thread_not_found", message)
}

/// Refuses a request because a run of the thread has not ended.
fn thread_busy() -> ApiError {
    let message = "a run of this thread has not ended: wait for its end, or cancel it first";
    ApiError::new(StatusCode::CONFLICT, "thread_busy", message).do_not_retry()
}
