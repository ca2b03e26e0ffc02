//! `/v1/tools`: the server-side tools that a caller may use, and calls of them without a model.

mod execute;
mod list;
mod view;

pub(in crate::routes) use list::describe;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::routes::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_tools))
        .routes(routes!(list::read_tool))
        .routes(routes!(execute::execute_tool))
        .routes(routes!(execute::execute_tools))
}
