//! `GET /v1/usage`.

use axum::Json;
use axum::extract::State;
use baton_protocol::ApiKeyId;
use baton_service::SharedClock;
use baton_store::{Store, UsageBearer, UsageFilter, UsageGroup, UsageGroups, UsageSum};
use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{Authorized, UsageRead};
use crate::error::{ApiError, Problem};
use crate::routes::AppState;
use crate::routes::query::{QueryParams, bad_cursor, bad_parameter, page_size};

/// The most days in one answer: a leap year, both ends included.
const MOST_DAYS: i64 = 366;
/// The number of days before the last one, if the request names no first day.
const USUAL_DAYS: Days = Days::new(29);
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

/// Returns the route.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(read_usage))
}

/// The days and the grouping of the usage.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageParams {
    /// The first day, UTC, as `YYYY-MM-DD`. Default: 29 days before the last.
    #[param(value_type = Option<NaiveDate>)]
    from: Option<String>,
    /// The last day, UTC. Default: today. At most 366 days in all.
    #[param(value_type = Option<NaiveDate>)]
    to: Option<String>,
    /// The grouping: any of `day`, `key` and `model`, separated by commas. Default: `day`. If
    /// empty, the answer is one sum of everything.
    #[param(pattern = "^((day|key|model)(,(day|key|model))*)?$")]
    group_by: Option<String>,
    /// The most sums in the answer, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before, with the same days and `group_by`.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[.][0-9a-f]{32}[.]")]
    cursor: Option<String>,
}

/// The tenant's usage.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageList {
    /// The first day.
    from: NaiveDate,
    /// The last day.
    to: NaiveDate,
    /// The sums, ordered by day, key and model. Groups without usage are omitted.
    data: Vec<UsageView>,
    /// The cursor of the next page.
    next_cursor: Option<String>,
}

/// A key's id, or null.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum BearerView {
    Key(ApiKeyId),
    People(()),
}

/// The usage of the runs of one group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
struct UsageView {
    /// The day on which the runs were accepted, UTC; only if grouped by day.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<NaiveDate>,
    /// The key that submitted the runs, null for runs of people; only if grouped by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ApiKeyId>)]
    api_key_id: Option<BearerView>,
    /// The upstream model; only if grouped by model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Runs that called a model.
    runs: u64,
    /// Model turns.
    turns: u64,
    /// Turns with estimated tokens, because the upstream did not report them.
    estimated_turns: u64,
    /// Tokens that models read.
    input_tokens: u64,
    /// The part of `input_tokens` that upstreams reported as cached.
    cached_tokens: u64,
    /// Tokens that models wrote.
    output_tokens: u64,
    /// The cost at the prices of the moment: an exact decimal number, in the currency of the
    /// prices.
    #[schema(example = "1.2345")]
    cost: String,
    /// Turns of models without a price; the cost does not include them.
    unpriced_turns: u64,
}

impl From<UsageSum> for UsageView {
    fn from(sum: UsageSum) -> Self {
        Self {
            day: sum.day,
            api_key_id: sum.key.map(|key| match key {
                UsageBearer::Key(key) => BearerView::Key(key),
                UsageBearer::People => BearerView::People(()),
            }),
            model: sum.model,
            runs: sum.runs,
            turns: sum.turns,
            estimated_turns: sum.estimated_turns,
            input_tokens: sum.input_tokens,
            cached_tokens: sum.cached_tokens,
            output_tokens: sum.output_tokens,
            cost: sum.cost.to_string(),
            unpriced_turns: sum.unpriced_turns,
        }
    }
}

/// Returns the tenant's usage by day, key and model.
#[utoipa::path(
    get,
    path = "/v1/usage",
    tag = "Usage",
    params(UsageParams),
    responses(
        (status = 200, description = "The sums", body = UsageList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_usage(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<UsageRead>,
    QueryParams(params): QueryParams<UsageParams>,
) -> Result<Json<UsageList>, ApiError> {
    let limit = page_size(params.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let today = clock.now().date_naive();
    let to = day("to", params.to.as_deref())?.unwrap_or(today);
    let from = match day("from", params.from.as_deref())? {
        Some(from) => from,
        None => to.checked_sub_days(USUAL_DAYS).unwrap_or(to),
    };
    let days = (to - from).num_days() + 1;
    if !(1..=MOST_DAYS).contains(&days) {
        let message = format!("`from` is not after `to`, and at most {MOST_DAYS} days are told");
        return Err(bad_parameter("from", message));
    }
    let filter = UsageFilter {
        from,
        to,
        by: groups(params.group_by.as_deref().unwrap_or("day"))?,
    };
    let after = params
        .cursor
        .map(|cursor| read_cursor(&cursor).ok_or_else(bad_cursor))
        .transpose()?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let page = tx.usage(&filter, after.as_ref(), limit).await?;
    Ok(Json(UsageList {
        from,
        to,
        data: page.data.into_iter().map(UsageView::from).collect(),
        next_cursor: page.next_cursor.as_ref().map(write_cursor),
    }))
}

fn day(param: &'static str, given: Option<&str>) -> Result<Option<NaiveDate>, ApiError> {
    given
        .map(|text| {
            let message = || format!("`{param}` is a day as YYYY-MM-DD");
            read_day(text).ok_or_else(|| bad_parameter(param, message()))
        })
        .transpose()
}

fn read_day(text: &str) -> Option<NaiveDate> {
    // Longer ones are years beyond 9999.
    (text.len() == "YYYY-MM-DD".len())
        .then(|| text.parse().ok())
        .flatten()
}

fn groups(given: &str) -> Result<UsageGroups, ApiError> {
    let mut by = UsageGroups::default();
    for word in given.split(',').filter(|_| !given.is_empty()) {
        match word {
            "day" => by.day = true,
            "key" => by.key = true,
            "model" => by.model = true,
            _ => {
                let message = "`group_by` is day, key, model, with commas between";
                return Err(bad_parameter("group_by", message));
            }
        }
    }
    Ok(by)
}

/// Writes day, key and model. The first two have a fixed length.
fn write_cursor(last: &UsageGroup) -> String {
    format!("{}.{}.{}", last.day, last.key.simple(), last.model)
}

fn read_cursor(text: &str) -> Option<UsageGroup> {
    let (day, rest) = text.split_once('.')?;
    let (key, model) = rest.split_once('.')?;
    Some(UsageGroup {
        day: read_day(day)?,
        key: Uuid::try_parse(key).ok()?,
        model: model.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_whatever_the_model_is_called() {
        for model in ["", "gpt-4.1", "a/b.c:d", "\u{e9}"] {
            let group = UsageGroup {
                day: NaiveDate::from_ymd_opt(2026, 2, 28).unwrap(),
                key: Uuid::from_u128(7),
                model: model.to_owned(),
            };
            assert_eq!(read_cursor(&write_cursor(&group)), Some(group));
        }
        for wrong in ["", ".", "2026-02-28", "2026-02-30.0.m", "+12345-01-01..m"] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sums_are_told_apart_by_words() {
        let by = groups("model,day").unwrap();
        assert!(by.day && by.model && !by.key);
        assert_eq!(groups("").unwrap(), UsageGroups::default());
        for wrong in ["day,", "keys", " day"] {
            assert_eq!(groups(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
