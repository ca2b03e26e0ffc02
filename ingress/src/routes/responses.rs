//! `/v1/responses`: OpenAI's Responses API. A response is a run; the crate `baton-responses` has the
//! wire, and these routes add the ledger and the run's events.

mod approvals;
mod cancel;
mod compact;
mod count_tokens;
mod create;
mod delete;
mod derived_run;
mod description;
mod earlier;
mod include;
mod input_items;
mod mcp_servers;
mod path;
mod read;
mod record;
mod run_request;
mod seal;
mod streamed;
mod whole;

use std::sync::Arc;

use axum::extract::FromRef;
use baton_protocol::RunId;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use description::ItemPage;
pub(super) use include::Include;
pub(super) use input_items::{AskedPage, ItemQuery};
pub(crate) use mcp_servers::McpServers;

use crate::access::body::Bodies;
use crate::error::ApiError;
use crate::routes::AppState;
use crate::run::followers::Followers;
use crate::run::relay::Interruption;
use crate::run::submission::Submitter;

/// The parts of the server that make a response.
pub(crate) struct ResponseParts {
    followers: Arc<Followers>,
    submitter: Arc<Submitter>,
    bodies: Bodies,
    mcp_servers: McpServers,
}

impl FromRef<AppState> for ResponseParts {
    fn from_ref(state: &AppState) -> Self {
        Self {
            followers: FromRef::from_ref(state),
            submitter: FromRef::from_ref(state),
            bodies: FromRef::from_ref(state),
            mcp_servers: FromRef::from_ref(state),
        }
    }
}

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_response))
        .routes(routes!(read::read_response, delete::delete_response))
        .routes(routes!(cancel::cancel_response))
        .routes(routes!(input_items::list_input_items))
        .routes(routes!(count_tokens::count_input_tokens))
        .routes(routes!(compact::compact_conversation))
}

/// Returns the error for a client that gets no answer although its run goes on. A new request would
/// make a second response, so the SDKs must not repeat it.
fn interrupted(run: RunId, reason: Interruption) -> ApiError {
    let goes_on = |code, why| {
        let message = format!("{why}; the response goes on: GET /v1/responses/resp_{run}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .of_run(run)
            .do_not_retry()
    };
    match reason {
        Interruption::Parked => {
            let message = format!(
                "the run waits for a decision: GET /v1/runs/{run}/approvals; the response goes \
                 on afterwards: GET /v1/responses/resp_{run}"
            );
            ApiError::new(StatusCode::CONFLICT, "approval_required", message).do_not_retry()
        }
        Interruption::Stopping => goes_on("server_stopping", "this server is stopping"),
        Interruption::Revoked => ApiError::credential_ended(),
        Interruption::Lost | Interruption::Unreadable => {
            goes_on("events_unavailable", "the run's events cannot be read")
        }
    }
}
