//! Long polls: `?wait=30s`.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;

use crate::error::ApiError;

/// The longest time that one request waits: proxies are less patient.
const LONGEST: Duration = Duration::from_mins(1);

/// The time that the caller wants to wait; more than a minute counts as a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Params {
            wait: Option<String>,
        }

        let given = Query::<Params>::try_from_uri(&parts.uri)
            .ok()
            .and_then(|query| query.0.wait);
        given.as_deref().map(read).transpose().map(Self)
    }
}

fn read(given: &str) -> Result<Duration, ApiError> {
    let (number, unit) = given.split_at(
        given
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(given.len()),
    );
    let number: Option<u64> = number.parse().ok();
    let duration = match (number, unit) {
        (Some(millis), "ms") => Some(Duration::from_millis(millis)),
        (Some(seconds), "s" | "") => Some(Duration::from_secs(seconds)),
        (Some(minutes), "m") => minutes.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    duration
        .map(|duration| duration.min(LONGEST))
        .ok_or_else(|| {
            let message = "`wait` is a time such as 30s or 500ms";
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_wait", message).param("wait")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_units_and_end_at_a_minute() {
        assert_eq!(read("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(read("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(read("5").unwrap(), Duration::from_secs(5));
        assert_eq!(read("2h").unwrap_err().status, 400);
        assert_eq!(read("10m").unwrap(), LONGEST);
        for bad in ["", "s", "-1s", "1.5s", "99999999999999999999s"] {
            assert_eq!(read(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
