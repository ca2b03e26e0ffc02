//! `GET|PUT /log-level`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::problem::Problem;
use crate::telemetry::{SetFilterError, Telemetry, parse_filter_time};

#[derive(Serialize)]
struct LogLevel {
    filter: String,
    /// The time until the filter before it returns.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    time: Option<String>,
}

impl LogLevel {
    fn of(telemetry: &Telemetry) -> Self {
        let (filter, left) = telemetry.filter();
        let whole = |left: Duration| Duration::from_secs(left.as_secs());
        Self {
            filter,
            time: left.map(|left| humantime::format_duration(whole(left)).to_string()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    filter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    #[serde(rename = "for")]
    time: Option<String>,
}

pub(super) async fn read(State(admin): State<Arc<Admin>>) -> Response {
    Json(LogLevel::of(admin.telemetry)).into_response()
}

/// Accepts `{"filter": "…"}`, or the filter alone; with `?for=10m`, for that time.
pub(super) async fn set(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<For>, QueryRejection>,
    body: String,
) -> Response {
    let time = match query {
        Ok(Query(For { time })) => time.as_deref().map(parse_filter_time).transpose(),
        Err(_) => {
            return bad_request(
                "bad_parameter",
                "the only parameter is `for`, such as ?for=10m",
            );
        }
    };
    let time = match time {
        Ok(time) => time,
        Err(error) => return bad_request("bad_parameter", &error.to_string()),
    };
    let filter = match serde_json::from_str::<Wanted>(&body) {
        Ok(wanted) => wanted.filter,
        Err(_) => body.trim().to_owned(),
    };
    match admin.telemetry.set_filter(&filter, time) {
        Ok(()) => {
            tracing::warn!(
                filter,
                for_s = time.map(|time| time.as_secs()),
                "log filter changed"
            );
            Json(LogLevel::of(admin.telemetry)).into_response()
        }
        Err(error @ SetFilterError::Unreadable { .. }) => {
            bad_request("bad_filter", &error.to_string())
        }
        Err(error @ SetFilterError::NotOurs(_)) => {
            Problem::new(StatusCode::CONFLICT, "log_filter_fixed")
                .detail(error.to_string())
                .into_response()
        }
    }
}

fn bad_request(code: &'static str, detail: &str) -> Response {
    Problem::new(StatusCode::BAD_REQUEST, code)
        .detail(detail.to_owned())
        .into_response()
}
