//! The routes of the HTTP API, a file or folder for each family, and their description.

pub(crate) mod agents;
pub(crate) mod api_keys;
pub(crate) mod chat_completions;
mod conversations;
pub(crate) mod health;
mod invites;
mod members;
pub(crate) mod models;
pub(crate) mod openapi;
mod prefer;
mod query;
pub(crate) mod responses;
mod run_stream;
mod runs;
mod sign_in;
mod sse;
mod state;
mod threads;
mod tools;
mod usage;

use axum::Router;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use state::{AppState, Parts};

use openapi::ApiDescription;

/// Returns the routes and their description.
pub(crate) fn described() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    let (routes, mut description) = api().split_for_parts();
    openapi::add_common_refusals(&mut description);
    openapi::join_closed_objects(&mut description);
    (routes, description)
}

fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(ApiDescription::openapi())
        .routes(routes!(chat_completions::chat_completions))
        .routes(routes!(models::list_models))
        .routes(routes!(models::read_model))
        .route(
            "/v1/models/{owner}/{*name}",
            get(models::read_model_of_owner),
        )
        .merge(responses::router())
        .merge(conversations::router())
        .merge(runs::router())
        .merge(sign_in::router())
        .merge(members::router())
        .merge(invites::router())
        .merge(api_keys::router())
        .merge(agents::router())
        .merge(threads::router())
        .merge(tools::router())
        .merge(usage::router())
}
