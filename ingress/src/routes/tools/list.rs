//! `GET /v1/tools` and `GET /v1/tools/{name}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use baton_admission::Admission;
use baton_nats::{Bus, NoDescriptions};
use baton_protocol::{ToolDescription, ToolsQuestion};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Authorized, ModelsRead};
use crate::error::{ApiError, Problem};
use crate::run::followers::Followers;

/// The server-side tools that the caller may use, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerToolList)]
pub(crate) struct ToolList {
    data: Vec<ToolDescription>,
    /// Always null: the tools are one page.
    next_cursor: Option<String>,
}

/// Lists the server-side tools that the caller may use.
///
/// A worker describes them. Tools of MCP servers are as their servers list them now.
#[utoipa::path(
    get,
    path = "/v1/tools",
    tag = "Tools",
    responses(
        (status = 200, description = "The tools, by name", body = ToolList),
        (status = 503, description = "`no_worker`: no worker is there to describe them", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_tools(
    State(admission): State<Admission>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<ModelsRead>,
) -> Result<Json<ToolList>, ApiError> {
    let grant = &authorized.caller.grant;
    let names = admission.tool_names().into_iter();
    let allowed = names.filter(|name| grant.allows_tool(name)).collect();
    let data = describe(&followers.runs.bus, allowed).await?;
    Ok(Json(ToolList {
        data,
        next_cursor: None,
    }))
}

/// Returns one of the server-side tools that the caller may use.
#[utoipa::path(
    get,
    path = "/v1/tools/{name}",
    tag = "Tools",
    params(("name" = String, Path, description = "The tool", pattern = "^[a-zA-Z0-9_-]{1,64}$")),
    responses(
        (status = 200, description = "The tool", body = ToolDescription),
        (status = 404, description = "No such tool, or not for this key", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`no_worker`: no worker is there to describe it", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_tool(
    State(admission): State<Admission>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<ModelsRead>,
    Path(name): Path<String>,
) -> Result<Json<ToolDescription>, ApiError> {
    let is_known = admission.tool_names().contains(&name);
    let found = if is_known && authorized.caller.grant.allows_tool(&name) {
        describe(&followers.runs.bus, vec![name]).await?.pop()
    } else {
        None
    };
    found.map(Json).ok_or_else(|| {
        let message = "there is no tool of this name for this caller: GET /v1/tools lists those that there are";
        ApiError::new(StatusCode::NOT_FOUND, "tool_not_found", message)
    })
}

/// Has workers describe tools. A tool that the worker does not know is left out: the two have different
/// configurations.
pub(in crate::routes) async fn describe(
    bus: &Bus,
    mut names: Vec<String>,
) -> Result<Vec<ToolDescription>, ApiError> {
    let mut tools = Vec::with_capacity(names.len());
    while !names.is_empty() {
        let answer = bus.describe_tools(&ToolsQuestion { names }).await?;
        if answer.tools.is_empty() && !answer.left_out.is_empty() {
            return Err(NoDescriptions::Unanswered.into());
        }
        tools.extend(answer.tools);
        names = answer.left_out;
    }
    tools.sort_unstable_by(|a: &ToolDescription, b| a.name.cmp(&b.name));
    Ok(tools)
}

impl From<NoDescriptions> for ApiError {
    fn from(error: NoDescriptions) -> Self {
        match error {
            NoDescriptions::Bus(error) => error.into(),
            NoDescriptions::NoWorker | NoDescriptions::Unanswered => {
                tracing::warn!(%error, "no tools are described");
                let message = "no worker described the tools: try again when a worker runs";
                Self::unavailable("no_worker", message)
            }
        }
    }
}
