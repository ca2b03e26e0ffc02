//! `GET /v1/runs/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_protocol::{EventData, RunId, RunStatus, TenantId};
use baton_run_log::parked_events::question_event;
use baton_store::{Store, TenantTx};

use super::path::RunPath;
use super::view::RunView;
use super::wait::Wait;
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, Problem, run_header};
use crate::run::await_end::wait_for_end;
use crate::run::followers::Followers;

/// Returns a run with its output, usage and steps.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}",
    tag = "Runs",
    params(
        ("id" = String, Path, description = "The run", format = Uuid),
        ("wait" = Option<String>, Query, description = "Wait for its end for so long, for instance `30s`; a minute at most", example = "30s", pattern = "^[0-9]{1,9}(ms|s|m)?$"),
    ),
    responses(
        (status = 200, description = "The run as it stands", body = RunView),
        (status = 400, description = "`wait` is no time", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_run(
    State(store): State<Store>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
    wait: Wait,
) -> Result<Response, ApiError> {
    let tenant = authorized.caller.tenant;
    let mut view = load(&store, tenant, run).await?;
    if let Some(time) = wait.0
        && !view.is_terminal()
    {
        wait_for_end(&followers, &authorized.caller, run, None, time).await;
        view = load(&store, tenant, run).await?;
    }
    Ok((run_header(run), Json(view)).into_response())
}

/// Reads the whole run in one transaction.
pub(super) async fn load(store: &Store, tenant: TenantId, run: RunId) -> Result<RunView, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    read_whole(&mut tx, run)
        .await?
        .ok_or_else(ApiError::no_such_run)
}

/// Reads the whole run, if it exists.
pub(super) async fn read_whole(tx: &mut TenantTx, run: RunId) -> Result<Option<RunView>, ApiError> {
    let Some(record) = tx.run(run).await? else {
        return Ok(None);
    };
    let output = tx.run_messages(run).await?;
    let steps = tx.run_steps(run).await?;
    let routes = tx.turn_routes(run).await?;
    let asked = match record.status {
        RunStatus::AwaitingApproval => tx.run_approvals(run).await?,
        _ => Vec::new(),
    };
    let open = asked.iter().filter(|asked| asked.decided.is_none());
    let budget = open.map(question_event).find_map(|event| match event {
        EventData::BudgetReached(budget) => Some(budget),
        _ => None,
    });
    let view = RunView::whole(record, output, steps, routes, budget);
    view.map(Some).map_err(|error| ApiError::internal(&error))
}
