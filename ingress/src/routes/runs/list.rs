//! `GET /v1/runs`.

use axum::Json;
use axum::extract::State;
use baton_protocol::RunStatus;
use baton_store::{RunFilter, Store};

use super::view::{RunList, RunView};
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, list_params};

list_params! {
    /// The filter and the page of the list.
    pub(crate) struct ListParams {
        /// Only runs in this state.
        status: Option<RunStatus>,
    }
    cursor: format = Uuid
}

/// Lists the tenant's runs, the newest first, without their input, output and steps.
#[utoipa::path(
    get,
    path = "/v1/runs",
    tag = "Runs",
    params(ListParams),
    responses(
        (status = 200, description = "A page of runs", body = RunList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_runs(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    QueryParams(params): QueryParams<ListParams>,
) -> Result<Json<RunList>, ApiError> {
    let (cursor, limit) = params.page()?;
    let filter = RunFilter {
        status: params.status,
        ..RunFilter::default()
    };
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let page = tx.list_runs(&filter, cursor, limit).await?;
    Ok(Json(RunList {
        data: page.data.into_iter().map(RunView::in_list).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}
