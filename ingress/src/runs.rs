//! `/v1/runs`: the native way to run agents.

mod approvals;
mod cancel;
mod create;
mod events;
mod list;
mod read;
mod replay;
mod view;
mod wait;

pub(crate) use events::{Source, Told, tell_from};
pub(crate) use view::Problem;

use axum::extract::{FromRequestParts, Path};
use baton_protocol::RunId;
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::state::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_run, list::list_runs))
        .routes(routes!(read::read_run))
        .routes(routes!(events::run_events))
        .routes(routes!(cancel::cancel_run))
        .routes(routes!(approvals::list_approvals))
        .routes(routes!(approvals::decide_approval))
}

/// The run that the path names. What is no id names no run.
struct RunPath(RunId);

impl FromRequestParts<AppState> for RunPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::no_such_run())?;
        // OpenAI routes write the id with a prefix; people paste it here.
        let id = id.strip_prefix("chatcmpl-").unwrap_or(&id);
        id.parse().map(Self).map_err(|_| ApiError::no_such_run())
    }
}
