//! `GET /v1/responses/{id}/input_items`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_openai::ErrorBody;
use baton_responses::items::{to_items, with_input_ids, with_mcp_calls};
use baton_responses::{Order, page, with_answers};
use baton_store::Store;
use serde::Deserialize;

use super::description::ItemPage;
use super::earlier::input;
use super::include::Include;
use super::path::ResponsePath;
use super::record::ResponseRecord;
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, run_header};
use crate::routes::query::{QueryParams, bad_parameter, page_size};

const USUAL_PAGE: u32 = 20;
const LARGEST_PAGE: u32 = 100;

/// The query of a list of items.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemQuery {
    order: Option<Order>,
    after: Option<String>,
    limit: Option<u32>,
    #[serde(default, alias = "include[]")]
    include: Include,
}

/// A page of a list of items, as it was asked for.
pub(in crate::routes) struct AskedPage {
    pub(in crate::routes) order: Order,
    /// The id of the last item of the page before.
    pub(in crate::routes) after: Option<String>,
    pub(in crate::routes) limit: u32,
}

impl ItemQuery {
    pub(in crate::routes) fn page(self) -> Result<AskedPage, ApiError> {
        self.include.refuse()?;
        Ok(AskedPage {
            order: self.order.unwrap_or_default(),
            after: self.after,
            limit: page_size(self.limit, USUAL_PAGE, LARGEST_PAGE)?,
        })
    }
}

/// The items that a response began with: those of the responses that it goes on from, then its own
/// input. `instructions` are not among them, and neither are the items of a conversation.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The response", pattern = "^resp_[0-9a-f-]{36}$"),
        ("order" = Option<String>, Query, description = "`desc`, the newest first, or `asc`", pattern = "^(asc|desc)$"),
        ("after" = Option<String>, Query, description = "The id of the last item of the page before", max_length = 512),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 100; 20 unless it is given"),
    ),
    responses(
        (status = 200, description = "A page of items", body = ItemPage),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 404, description = "No such response", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_input_items(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    ResponsePath(run): ResponsePath,
    QueryParams(query): QueryParams<ItemQuery>,
) -> Result<Response, ApiError> {
    let asked = query.page()?;
    let record = ResponseRecord::load_kept(&store, authorized.caller.tenant, run).await?;
    let instructed = record.head.settings.system_message().is_some();
    let mut messages = input(&record.spec, instructed)?;
    let of_conversation = usize::try_from(record.run.thread_messages).unwrap_or(usize::MAX);
    messages.drain(..of_conversation.min(messages.len()));
    let settings = &record.head.settings;
    let items = with_mcp_calls(to_items(&messages), &settings.mcp_tools);
    let mut items = with_answers(items, &settings.mcp_answers);
    with_input_ids(run, &mut items);
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    let page = page(items, asked.order, asked.after.as_deref(), limit)
        .ok_or_else(|| bad_parameter("after", "`after` is the id of an item of this list"))?;
    Ok((run_header(run), Json(page)).into_response())
}
